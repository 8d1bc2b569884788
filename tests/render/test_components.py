"""Every rendered file is read by the program it is for, and one project is started as it stands."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from cfscale.adapters.files import ensure_secrets, write_tree
from cfscale.core.plan import Health, HealthKind
from cfscale.render import compose
from tests.e2e.stack import until
from tests.ports import free_port
from tests.render.plans import TIERS, changed, plan_for
from tests.render.test_emit import NASTY


def run(*argv: str, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload,no-any-return]


def written(files: Mapping[str, str], out: Path) -> Path:
    write_tree(out, files, "{}\n", force=False)
    names = [
        "queue_password",
        "queue_auth.conf",
        "cache_password",
        "cache_auth.conf",
        "memory_password",
        "memory_auth.conf",
    ]
    ensure_secrets(out, names)
    return out


@pytest.mark.engine
@pytest.mark.parametrize("tier", TIERS)
def test_compose_reads_it_without_a_warning(tier: str, templates: Mapping[str, str], tmp_path: Path) -> None:
    out = written(compose.render(plan_for(tier), templates), tmp_path)
    done = run("docker", "compose", "-f", str(out / "compose.yaml"), "config", "-q")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.engine
def test_compose_reads_nasty_values_as_they_are(templates: Mapping[str, str], tmp_path: Path) -> None:
    values = {f"V{number}": value for number, value in enumerate(NASTY)}
    plan = changed(plan_for("team"), "agents", env=values, command=tuple(NASTY))
    out = written(compose.render(plan, templates), tmp_path)
    done = run("docker", "compose", "-f", str(out / "compose.yaml"), "config", "--format", "json")

    agents = json.loads(done.stdout)["services"]["agents"]
    read = {name: value.replace("$$", "$") for name, value in agents["environment"].items()}
    assert {name: read[name] for name in values} == values
    assert [value.replace("$$", "$") for value in agents["command"]] == list(NASTY)


@pytest.mark.engine
@pytest.mark.parametrize("tier", TIERS[1:])
def test_haproxy_reads_it(tier: str, templates: Mapping[str, str], tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    plan = changed(plan_for(tier), "agents", routes=("/", "/a b;$HOME%x#{}", "/--"))
    path.write_text(compose.render(plan, templates)["config/haproxy.cfg"])
    mount = f"type=bind,source={path},target=/haproxy.cfg,readonly"
    done = run(
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--mount",
        mount,
        "haproxy:3.2",
        "haproxy",
        "-c",
        "-f",
        "/haproxy.cfg",
    )

    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr


WEB = ("python3", "-m", "http.server", "3000", "--directory", "/tmp")


@pytest.fixture(scope="module")
def project(templates: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """Small web servers, up and healthy: the words that address it, and the port it is published on."""
    port = free_port()
    health = Health(HealthKind.HTTP, path="/", interval_seconds=1.0, start_period_seconds=30.0)
    plan = plan_for("single-user")
    services = (*plan.services, plan_for("team").service("loadbalancer"))
    plan = replace(plan, name=f"cfscale-test-render-{os.getpid()}", services=services)
    for name in ("coordinator", "agents"):
        values = {"image": "python:3.13-slim", "command": WEB, "health": health, "build": False, "replicas": 2}
        plan = changed(plan, name, **values, cpu_limit_millicores=None, stop_grace_seconds=1.0)
    plan = changed(plan, "agents", max_replicas=12)
    plan = changed(plan, "queue", replicas=2, health=Health(HealthKind.REDIS, interval_seconds=1.0))
    plan = changed(
        plan, "loadbalancer", health=replace(health, path="/healthz"), replicas=1, publish=f"127.0.0.1:{port}"
    )
    out = written(compose.render(plan, templates), tmp_path_factory.mktemp("project"))
    address = ("docker", "compose", "-f", str(out / "compose.yaml"))
    try:
        done = run(*address, "up", "--detach", "--wait", "--pull", "never")
        assert done.returncode == 0, done.stderr + run(*address, "logs").stdout
        yield (*address, str(port))
    finally:
        run(*address, "down", "--volumes", "--timeout", "1")


@pytest.mark.engine
def test_the_balancer_answers_for_itself_and_for_those_behind_it(project: tuple[str, ...]) -> None:
    urls = [f"http://127.0.0.1:{project[-1]}{path}" for path in ("/healthz", "/", "/?rpc")]
    until(lambda: all(answers(url) for url in urls) or None, 30, "an answer to each")


def answers(url: str) -> bool:
    """Whether somebody behind the balancer answers; its own health says nothing of them."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return False
        raise


@pytest.mark.engine
def test_the_queue_asks_for_its_password_and_is_copied(project: tuple[str, ...]) -> None:
    address = project[:-1]
    ask = 'valkey-cli ping; REDISCLI_AUTH=$(cat /run/secrets/queue_password) valkey-cli "$@"'
    denied = run(*address, "exec", "-T", "queue-1", "sh", "-c", ask, "-", "role")
    copied = run(*address, "exec", "-T", "queue-2", "sh", "-c", ask, "-", "info", "replication")
    policy = run(*address, "exec", "-T", "queue-1", "sh", "-c", ask, "-", "config", "get", "maxmemory*")

    assert denied.stdout.startswith("NOAUTH")
    assert "master" in denied.stdout
    assert "role:slave" in copied.stdout
    assert "noeviction" in policy.stdout


@pytest.mark.engine
def test_the_runtime_api_is_reached_from_inside_only(project: tuple[str, ...]) -> None:
    address = project[:-1]
    ask = 'exec 3<>/dev/tcp/127.0.0.1/9999; printf "%s\\n" "$1" >&3; cat <&3'
    inside = run(*address, "exec", "-T", "loadbalancer", "bash", "-c", ask, "-", "show servers state agents")
    connect = "import socket; socket.create_connection(('loadbalancer', 9999), 5)"
    outside = run(*address, "exec", "-T", "agents", "python3", "-c", connect)

    assert len([line for line in inside.stdout.splitlines() if " agents " in line]) == 12
    assert "ConnectionRefusedError" in outside.stderr


@pytest.mark.engine
def test_no_container_holds_the_password_in_its_configuration(project: tuple[str, ...]) -> None:
    password = (Path(project[3]).parent / "secrets" / "queue_password").read_text()
    containers = run(*project[:-1], "ps", "--quiet").stdout.split()
    inspected = run("docker", "inspect", *containers)

    assert len(containers) == 8
    assert password not in inspected.stdout
    assert password not in run("docker", "top", containers[0]).stdout
