import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from msgspec.structs import replace

from cfscale.core.plan import DeploymentPlan, Health, HealthKind, Limits
from cfscale.errors import ActionError, InputError
from cfscale.render import compose
from tests.conftest import ROOT
from tests.render.conftest import IMAGES
from tests.render.golden import assert_golden
from tests.render.plans import TIERS, changed, plan_for
from tests.render.test_emit import NASTY, TEXTS

TEMPLATES = {
    **{str(p.relative_to(ROOT / "templates")): p.read_text() for p in (ROOT / "templates").rglob("*.j2")},
    **IMAGES,
}


def services_of(files: Mapping[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(files["compose.yaml"])
    found: dict[str, Any] = document["services"]
    return found


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_renders_as_it_did(tier: str, templates: Mapping[str, str]) -> None:
    files = {path: text for path, text in compose.render(plan_for(tier), templates).items() if path not in IMAGES}

    assert_golden(f"compose/{tier}", files)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_text_does_not_depend_on_hashing(seed: str, templates: Mapping[str, str]) -> None:
    script = (
        "import sys; from tests.render.plans import plan_for; from tests.render.conftest import IMAGES\n"
        "from cfscale.adapters.assets import load_templates; from cfscale.render import compose\n"
        "files = compose.render(plan_for('team'), {**load_templates(), **IMAGES})\n"
        "sys.stdout.write(files['compose.yaml'] + files['config/haproxy.cfg'])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    files = compose.render(plan_for("team"), templates)

    assert done.stdout == files["compose.yaml"] + files["config/haproxy.cfg"]


@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_a_nasty_value_stays_literal_in_the_whole_file(value: str, templates: Mapping[str, str]) -> None:
    assert_literal(value, templates)


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_any_value_stays_literal_in_the_whole_file(value: str) -> None:
    assert_literal(value, TEMPLATES)


def assert_literal(value: str, templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "agents", image=value, command=(value, "x"), env={"VALUE": value}, build=False)
    agents = services_of(compose.render(plan, templates))["agents"]
    literal = value.replace("$", "$$")

    assert agents["image"] == literal
    assert agents["command"] == [literal, "x"]
    assert agents["environment"]["VALUE"] == literal
    assert "privileged" not in agents


def test_every_file_that_is_mounted_is_rendered_or_a_secret(templates: Mapping[str, str]) -> None:
    files = compose.render(plan_for("team"), templates)
    document = yaml.safe_load(files["compose.yaml"])

    configs = {entry["file"].removeprefix("./") for entry in document["configs"].values()}
    contexts = {s["build"]["context"].removeprefix("./") for s in document["services"].values() if "build" in s}
    assert configs <= files.keys()
    assert {f"{context}/Dockerfile" for context in contexts} <= files.keys()
    assert {entry["file"].removeprefix("./secrets/") for entry in document["secrets"].values()} == {
        "queue_password",
        "queue_auth.conf",
        "cache_password",
        "cache_auth.conf",
        "database_password",
        "database_admin_password",
        "database_replication_password",
        "pooler_userlist.txt",
    }


def test_build_contexts_are_copied_as_they_stand(templates: Mapping[str, str]) -> None:
    files = compose.render(plan_for("team"), templates)

    assert {path: text for path, text in files.items() if path.startswith("images/")} == IMAGES


def test_an_image_that_is_not_ours_brings_no_build_context(templates: Mapping[str, str]) -> None:
    files = compose.render(changed(plan_for("team"), "agents", image="worker:1", build=False), templates)

    assert "images/agents/Dockerfile" not in files
    assert services_of(files)["agents"]["pull_policy"] == "missing"


def test_an_image_that_is_ours_is_never_pulled(templates: Mapping[str, str]) -> None:
    agents = services_of(compose.render(plan_for("team"), templates))["agents"]

    assert agents["pull_policy"] == "never"
    assert agents["build"] == {"context": "./images/agents"}


def test_a_missing_build_context_is_an_error(templates: Mapping[str, str]) -> None:
    without = {path: text for path, text in templates.items() if path != "images/agents/Dockerfile"}

    with pytest.raises(ActionError, match="images/agents/Dockerfile is missing"):
        compose.render(plan_for("team"), without)


@pytest.mark.parametrize("tier", TIERS)
def test_every_container_is_hardened(tier: str, templates: Mapping[str, str]) -> None:
    for name, service in services_of(compose.render(plan_for(tier), templates)).items():
        assert service["read_only"] is True
        assert service["init"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        # the image of etcd has no other user, and a new volume is root's: without a capability it is like any other
        assert (service["user"].partition(":")[0] != "0") == (not name.startswith("etcd"))
        assert service["deploy"]["resources"]["limits"]["pids"] > 0


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "word", ["docker.sock", "start_interval", "oom_score_adj", "nofile", "container_name", "version:"]
)
def test_what_harms_or_stops_containers_is_not_rendered(word: str, tier: str, templates: Mapping[str, str]) -> None:
    assert word not in compose.render(plan_for(tier), templates)["compose.yaml"]


def test_the_queue_keeps_what_waits(templates: Mapping[str, str]) -> None:
    lines = compose.render(plan_for("team"), templates)["config/valkey.conf"].splitlines()

    assert {"maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec"} <= set(lines)
    assert f"maxmemory {256 * 1024**2 * 3 // 4}" in lines
    assert "include /run/secrets/queue_auth.conf" in lines


def test_the_queue_is_out_of_the_networks_reach(templates: Mapping[str, str]) -> None:
    document = yaml.safe_load(compose.render(plan_for("team"), templates)["compose.yaml"])

    assert document["services"]["queue-1"]["networks"] == ["data"]
    assert document["networks"]["data"] == {"internal": True}


def test_one_copy_is_the_queue_and_more_copies_are_members_with_volumes_of_their_own(
    templates: Mapping[str, str],
) -> None:
    single = services_of(compose.render(plan_for("single-user"), templates))
    department = services_of(compose.render(plan_for("department"), templates))

    assert {name for name in single if name.startswith("queue")} == {"queue"}
    assert {name for name in department if name.startswith("queue")} == {"queue-1", "queue-2", "queue-3"}
    volumes = [department[f"queue-{number}"]["volumes"][0]["source"] for number in (1, 2, 3)]
    assert volumes == ["queue-1-data", "queue-2-data", "queue-3-data"]
    assert "sentinel-1" in department
    assert "sentinel-1" not in single


def test_a_tier_brings_only_the_parts_that_it_needs(templates: Mapping[str, str]) -> None:
    parts = {
        tier: {service["labels"].get("cfscale.service") for service in services_of(files).values()} - {None}
        for tier in TIERS
        if (files := compose.render(plan_for(tier), templates))
    }

    assert parts["single-user"] == {"coordinator", "agents", "queue", "cache"}
    assert "memory" not in parts["team"]
    assert parts["department"] - parts["team"] == {"memory"}
    assert parts["enterprise"] == parts["department"]


def test_replicas_change_nothing_else(templates: Mapping[str, str]) -> None:
    plan = plan_for("team")
    few = compose.render(changed(plan, "agents", replicas=4), templates)
    many = compose.render(changed(plan, "agents", replicas=11), templates)

    assert few["compose.yaml"].replace("replicas: 4\n", "replicas: 11\n") == many["compose.yaml"]
    assert few["config/haproxy.cfg"] == many["config/haproxy.cfg"]


def test_a_changed_configuration_replaces_the_container(templates: Mapping[str, str]) -> None:
    plan = plan_for("team")
    before = services_of(compose.render(plan, templates))
    after = services_of(compose.render(changed(plan, "agents", max_replicas=20), templates))

    assert before["loadbalancer"]["labels"] != after["loadbalancer"]["labels"]
    assert before["queue-1"] == after["queue-1"]


def test_the_heap_follows_the_limit_unless_the_profile_says_otherwise(templates: Mapping[str, str]) -> None:
    given_by_profile = changed(plan_for("team"), "coordinator", env={"NODE_OPTIONS": "--trace-gc", "PORT": "1"})
    unlimited = changed(plan_for("team"), "agents", memory_limit_bytes=None)
    foreign = changed(plan_for("team"), "agents", image="python:3.13-slim", build=False)

    coordinator = services_of(compose.render(given_by_profile, templates))["coordinator"]
    assert coordinator["environment"]["NODE_OPTIONS"] == "--trace-gc"
    assert coordinator["environment"]["PORT"] == "1"
    assert environment_of(plan_for("team"), templates)["NODE_OPTIONS"] == "--max-old-space-size=1536"
    assert "NODE_OPTIONS" not in environment_of(unlimited, templates)
    assert "NODE_OPTIONS" not in environment_of(foreign, templates)


def environment_of(plan: DeploymentPlan, templates: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = services_of(compose.render(plan, templates))["agents"]["environment"]
    return found


def test_no_limit_means_no_key(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "agents", memory_limit_bytes=None, cpu_limit_millicores=None)
    limits = services_of(compose.render(plan, templates))["agents"]["deploy"]["resources"]["limits"]

    assert limits == {"pids": 1024}


def test_a_queue_without_a_memory_limit_keeps_within_its_request(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "queue", memory_limit_bytes=None, memory_request_bytes=1000)

    assert "maxmemory 750\n" in compose.render(plan, templates)["config/valkey.conf"]


def test_whoever_needs_an_unchecked_queue_waits_for_its_start_only(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "queue", health=Health(HealthKind.NONE))
    services = services_of(compose.render(plan, templates))

    assert "healthcheck" not in services["queue-1"]
    assert services["agents"]["depends_on"]["queue-1"] == {"condition": "service_started"}


@pytest.mark.parametrize(
    ("publish", "host", "published"),
    [("127.0.0.1:80", "127.0.0.1", "80"), ("[::1]:8080-8081", "::1", "8080-8081"), ("::1:80", "::1", "80")],
)
def test_ports_are_published_where_the_plan_says(
    publish: str, host: str, published: str, templates: Mapping[str, str]
) -> None:
    files = compose.render(changed(plan_for("team"), "loadbalancer", publish=publish), templates)

    expected = [{"host_ip": host, "published": published, "target": 8080, "protocol": "tcp"}]
    assert services_of(files)["loadbalancer"]["ports"] == expected


def test_the_longest_route_comes_first(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "agents", routes=("/", "/rpc/deep"))
    lines = compose.render(plan, templates)["config/haproxy.cfg"].splitlines()
    rules = [line.split()[1] for line in lines if line.lstrip().startswith("use_backend") and "path_beg" in line]

    kinds = ["agents.spawn", "agents.task", "agents.swarm"]
    assert rules == [*kinds, "agents", "coordinator", "coordinator", "coordinator"]


def test_without_a_route_for_everything_there_is_no_default(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "agents", routes=("/work",))

    assert "default_backend agents" not in compose.render(plan, templates)["config/haproxy.cfg"]


def test_a_service_without_http_is_checked_by_connecting(templates: Mapping[str, str]) -> None:
    plan = changed(plan_for("team"), "agents", health=Health(HealthKind.TCP, interval_seconds=0.5))
    config = compose.render(plan, templates)["config/haproxy.cfg"]

    # the coordinator's, and the two roles of the database
    assert config.count("option httpchk") == 3
    assert "inter 500ms fastinter 500ms" in config


@pytest.mark.parametrize(
    ("tier", "algorithm", "level"),
    [
        ("team", "roundrobin", "info"),
        ("department", "leastconn", "warning"),
        ("enterprise", "leastconn", "err"),
    ],
)
def test_the_tier_chooses_balancing_and_logging(
    tier: str, algorithm: str, level: str, templates: Mapping[str, str]
) -> None:
    config = compose.render(plan_for(tier), templates)["config/haproxy.cfg"]

    assert f"balance {algorithm}\n" in config
    assert f"log stdout format raw local0 {level}\n" in config


def test_a_tier_without_a_template_is_refused_by_name(templates: Mapping[str, str]) -> None:
    plan = replace(plan_for("team"), tier="galaxy")

    with pytest.raises(InputError, match=r"'galaxy'.*department, enterprise, single-user, team$"):
        compose.render(plan, templates)


@pytest.mark.parametrize(
    ("service", "values", "message"),
    [
        ("agents", {"env": {"A B": "x"}}, "services.agents.env: 'A B' is not the name of a variable"),
        ("agents", {"routes": ("work",)}, "services.agents: the path 'work' must begin with '/'"),
        ("agents", {"routes": ("/a'b",)}, "U+0027 cannot stand in a proxy configuration"),
        ("agents", {"routes": ("/a\nb",)}, "U+000A cannot stand in a proxy configuration"),
        ("agents", {"routes": ("/rpc",)}, "services.agents.routes: '/rpc' already leads to coordinator"),
        ("agents", {"health": Health(HealthKind.HTTP, path="x")}, "must begin with '/'"),
        ("agents", {"image": "a\x00b"}, "U+0000 cannot be written"),
        ("coordinator", {"sticky_header": "a) -m found"}, "is not a name"),
    ],
    ids=["env", "route", "quote", "newline", "route twice", "health path", "nul", "header"],
)
def test_what_cannot_be_rendered_is_the_input_s_fault(
    service: str, values: dict[str, object], message: str, templates: Mapping[str, str]
) -> None:
    with pytest.raises(InputError) as caught:
        compose.render(changed(plan_for("team"), service, **values), templates)

    assert message in str(caught.value)


@pytest.mark.parametrize(("field", "what"), [("strategy", "load balancing strategy"), ("log_level", "log level")])
def test_an_unknown_setting_is_refused(field: str, what: str, templates: Mapping[str, str]) -> None:
    plan = plan_for("team")
    odd = replace(plan, settings=replace(plan.settings, **{field: "psychic"}))

    with pytest.raises(InputError, match=f"the {what} 'psychic' is unknown"):
        compose.render(odd, templates)


def test_the_limits_of_the_plan_are_rendered(templates: Mapping[str, str]) -> None:
    plan = plan_for("team")
    limits = Limits(queue_memory_percent=50, database_buffers_percent=25, heap_percent=25, connections=77, processes=33)
    files = compose.render(replace(plan, settings=replace(plan.settings, limits=limits)), templates)
    memory = plan.service("queue").memory_limit_bytes
    assert memory is not None

    assert f"\nmaxmemory {memory // 2}\n" in files["config/valkey.conf"]
    assert "\nmaxclients 77\n" in files["config/valkey.conf"]
    assert "\n    maxconn 77\n" in files["config/haproxy.cfg"]
    for service in services_of(files).values():
        if "profiles" not in service:
            assert service["deploy"]["resources"]["limits"]["pids"] == 33
    assert services_of(files)["coordinator"]["environment"]["NODE_OPTIONS"] == "--max-old-space-size=512"
