import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from cfscale.adapters.assets import load_templates
from cfscale.adapters.files import ensure_env_files, ensure_secrets, write_tree
from cfscale.core.swarm import carried, keepers, losses, pin_label
from cfscale.errors import ActionError
from cfscale.render import compose, swarm
from cfscale.render.lock import lock_document
from tests.render.golden import assert_golden
from tests.render.sized import TIERS, altered, sized
from tests.render.test_emit import NASTY

PART = "swarm/parts/service.yaml.j2"


@pytest.fixture(scope="session")
def templates() -> Mapping[str, str]:
    """The templates as shipped."""
    return load_templates()


def stack_of(tier: str, templates: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(swarm.render(sized(tier), templates)["stack.yaml"])
    return document


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_renders_as_it_did(tier: str, templates: Mapping[str, str]) -> None:
    """What is as it is for Compose stands in the golden tree of that."""
    same = compose.render(sized(tier), templates)
    files = {path: text for path, text in swarm.render(sized(tier), templates).items() if same.get(path) != text}

    assert files.keys() <= {"stack.yaml", "config/haproxy.cfg", "config/queue-start.sh"}
    assert_golden(f"swarm/{tier}", files)


@pytest.mark.parametrize("tier", TIERS)
def test_swarm_says_what_compose_says_but_for_the_printed_losses(tier: str, templates: Mapping[str, str]) -> None:
    plan = sized(tier)
    ours = yaml.safe_load(swarm.render(plan, templates)["stack.yaml"])["services"]
    every = yaml.safe_load(compose.render(plan, templates)["compose.yaml"])["services"]
    theirs = {name: service for name, service in every.items() if "profiles" not in service}
    differing = {
        (plan.parts[name].name, field)
        for name in plan.parts
        for field in ours[name].keys() | theirs[name].keys()
        if _common(ours[name], field) != _common(theirs[name], field)
    }
    listed = {(name, loss.field) for loss in losses(plan) for name in loss.services}
    # no key of a service: who is chosen, where a volume is; and what is alike on Compose
    of_the_target = {"scaling", "volumes", "storage", "health.rise"}

    assert ours.keys() == theirs.keys()
    assert differing == {(name, field) for name, field in listed if field not in of_the_target}


def _common(service: dict[str, Any], field: str) -> object:
    """A field as both dialects write it."""
    value: Any = service.get(field)
    if field in ("tmpfs", "shm_size"):
        return None  # compared among the volumes: Compose has keys of their own for them
    if field == "volumes":
        return _mounts(service)
    if field == "labels":
        return {name: text for name, text in value.items() if name != "cfscale.config"}  # here the config's own name
    if field == "deploy":
        ours = {"endpoint_mode", "placement", "restart_policy"}  # Compose has no such thing
        return {name: part for name, part in value.items() if name not in ours}
    if field == "env_file":
        return [item if isinstance(item, str) else item["path"] for item in value]
    return value


def _mounts(service: dict[str, Any]) -> list[dict[str, Any]]:
    """What is mounted where, and how large what is in memory may grow."""
    found = list(service.get("volumes", ()))
    if "tmpfs" in service:
        assert service["tmpfs"] == ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"]
        found.append({"type": "tmpfs", "target": "/tmp", "tmpfs": {"size": 64 << 20}})
    if "shm_size" in service:
        assert service["shm_size"] == "256m"
        found.append({"type": "tmpfs", "target": "/dev/shm", "tmpfs": {"size": 256 << 20}})
    return sorted(found, key=lambda mount: str(mount["target"]))


@pytest.mark.parametrize("tier", TIERS)
def test_what_keeps_data_is_bound_to_a_node_and_nothing_else_is(tier: str, templates: Mapping[str, str]) -> None:
    plan = sized(tier)
    services = stack_of(tier, templates)["services"]
    named = {name for name, s in services.items() if any("source" in mount for mount in s["volumes"])}
    bound = {name: s["deploy"].get("placement", {}).get("constraints") for name, s in services.items()}

    assert named == set(keepers(plan))
    assert {name for name, constraints in bound.items() if constraints} == named
    for name in named:
        assert bound[name] == [f"node.labels.{pin_label(plan, name)} == here"]


def test_an_object_s_name_fits_however_long_the_deployment_s_is(templates: Mapping[str, str]) -> None:
    long = replace(sized("team"), name="a-rather-long-name-of-a-deployment")
    other = replace(long, name="a-rather-long-name-of-another-one-")
    found = [yaml.safe_load(swarm.render(plan, templates)["stack.yaml"]) for plan in (long, other)]
    names = [{one["name"] for part in ("configs", "secrets") for one in stack[part].values()} for stack in found]

    assert all(len(name.replace("${CFSCALE_SECRETS:-1}", "0" * 12)) <= 64 for name in names[0] | names[1])
    assert not names[0] & names[1]


@pytest.mark.parametrize("tier", TIERS)
def test_every_task_is_hardened(tier: str, templates: Mapping[str, str]) -> None:
    for name, service in stack_of(tier, templates)["services"].items():
        assert service["read_only"] is True
        assert service["init"] is True
        assert service["cap_drop"] == ["ALL"]
        # the image of etcd has no other user, and a new volume is root's: without a capability it is like any other
        assert (service["user"].partition(":")[0] != "0") == (not name.startswith("etcd"))
        assert service["deploy"]["resources"]["limits"]["pids"] > 0
        assert service["deploy"].get("endpoint_mode", "dnsrr") == "dnsrr"


def test_a_new_content_is_a_new_config_and_a_secret_has_no_checksum_here(templates: Mapping[str, str]) -> None:
    before = stack_of("team", templates)
    more = altered(sized("team"), "agents", max_replicas=99)
    after = yaml.safe_load(swarm.render(more, templates)["stack.yaml"])

    assert before["configs"]["haproxy.cfg"]["name"] != after["configs"]["haproxy.cfg"]["name"]
    assert before["configs"]["valkey.conf"] == after["configs"]["valkey.conf"]
    assert before["secrets"]["queue_password"]["name"] == "acme_queue_password_${CFSCALE_SECRETS:-1}"


def test_the_balancer_asks_for_tasks_and_takes_one_port_of_each_node(templates: Mapping[str, str]) -> None:
    plan = sized("department")
    agents, files = plan.service("agents"), swarm.render(plan, templates)
    balancer = yaml.safe_load(files["stack.yaml"])["services"]["loadbalancer"]

    assert f"server-template agents {agents.max_replicas} tasks.agents:3000 " in files["config/haproxy.cfg"]
    assert balancer["ports"] == [{"target": 8080, "published": 8080, "protocol": "tcp", "mode": "host"}]
    assert balancer["deploy"]["placement"]["max_replicas_per_node"] == 1


def test_the_lock_is_that_of_the_plan_as_it_is_carried(templates: Mapping[str, str]) -> None:
    plan = sized("team")
    files = swarm.render(plan, templates)

    assert files == swarm.render(carried(plan), templates)
    assert lock_document(carried(plan), "swarm", files, templates) == lock_document(
        carried(carried(plan)), "swarm", files, templates
    )


@pytest.mark.parametrize(
    ("template", "old", "new", "message"),
    [
        (PART, "container.replicas", "7", "services.coordinator: deploy.replicas is 7, planned 2"),
        (PART, "container.memory |", "'1G' |", "limits.memory is 1073741824, planned 2147483648"),
        (PART, "container.reserved_cpus", "'3'", "reservations.cpus is 3000, planned 1000"),
        (PART, "container.health.retries", "1", "healthcheck.retries is 1, planned 3"),
        (PART, 'mode: "host"', 'mode: "ingress"', "ports is [{'target': 8080, 'published': 8080, 'protocol': 'tcp', 'mode'"),
        (PART, "    <<: *common\n", "    <<: *common\n    security_opt: []\n", "the key 'security_opt' is not ours"),
        ("swarm/base.yaml.j2", "x-name: ", "name: ", "stack.yaml: the key 'name' is not ours"),
        ("config/haproxy.cfg.j2", "(peers ~ backend.service)", "backend.service", "address is 'coordinator:3000', planned 'tasks.coordinator:3000'"),
    ],
)  # fmt: skip
def test_a_template_that_says_something_else_is_caught(
    template: str, old: str, new: str, message: str, templates: Mapping[str, str]
) -> None:
    assert old in templates[template]

    with pytest.raises(ActionError) as caught:
        swarm.render(sized("team"), {**templates, template: templates[template].replace(old, new)})

    assert message in str(caught.value)


def stack_config(plan_files: Mapping[str, str], out: Path) -> subprocess.CompletedProcess[str]:
    write_tree(out, plan_files, "{}\n", force=False)
    ensure_secrets(out)  # the others are read when it is deployed
    ensure_env_files(out, ("agents.env", "coordinator.env"))
    argv = ["docker", "stack", "config", "--compose-file", str(out / "stack.yaml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.engine
@pytest.mark.parametrize("tier", TIERS)
def test_docker_stack_reads_it_and_ignores_nothing(tier: str, templates: Mapping[str, str], tmp_path: Path) -> None:
    done = stack_config(swarm.render(sized(tier), templates), tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.engine
def test_docker_stack_reads_nasty_values_as_they_are(templates: Mapping[str, str], tmp_path: Path) -> None:
    # docker writes a lone line break as YAML that means an empty text: what it has read of it cannot be seen
    nasty = tuple(value for value in NASTY if value != "\n")
    values = {f"V{number}": value for number, value in enumerate(nasty)}
    plan = altered(sized("team"), "agents", env=values, command=nasty)
    done = stack_config(swarm.render(plan, templates), tmp_path)
    agents = yaml.safe_load(done.stdout)["services"]["agents"]

    assert {name: agents["environment"][name] for name in values} == values
    assert agents["command"] == list(nasty)
