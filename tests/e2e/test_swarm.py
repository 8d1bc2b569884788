"""The team tier as a stack on a real engine in swarm mode: up, scaled under load, broken on purpose, gone.

The engine is a second one in a network namespace: what talks to containers is started inside it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from cfscale.cli.engines import Deployment as Joined
from cfscale.cli.engines import open_deployment
from cfscale.cli.options import Sizing, load_plan
from cfscale.core.samples import ReplicaState
from tests.conftest import ROOT
from tests.test_docs import ON_SWARM

pytestmark = pytest.mark.engine

NAME, PORT = "cfscale-e2e-swarm", 18280
DOCKER_HOST = "unix:///tmp/cfscale-swarm/docker.sock"
INSIDE = ("nsenter", "--net=/run/netns/cfscale-swarm")
# a check starts an interpreter, on a tenth of a core: more often would be a good part of what there is
WORKER = """\
    image: cfscale/demo-worker:1
    command: [python3, worker.py]
    port: 8080
    health: {kind: http, path: /health, json: {status: ok}, interval: 6s, timeout: 3s, start_period: 20s}
"""
PROFILE = f"""
# The team's topology at a tenth of its size, so that two cores hold its reservations; with short windows.
name: {NAME}
users: 6
agents: 10
tasks: 10
services:
  coordinator:
{WORKER}    resources: {{cpu: 0.05, memory: 256M}}
    stop_grace: 5s
    env: {{DRAIN_SECONDS: "0"}}
  agents:
{WORKER}    resources: {{cpu: 0.1, memory: 512M}}
    stop_grace: 10s
    env: {{DRAIN_SECONDS: "3"}}
  loadbalancer:
    publish: 127.0.0.1:{PORT}
    stop_grace: 3s
    health: {{interval: 1s}}
    resources: {{cpu: 0.08, memory: 256M}}
  queue: {{health: {{interval: 2s}}, resources: {{cpu: 0.1, memory: 128M}}}}
  cache: {{health: {{interval: 2s}}, resources: {{cpu: 0.05, memory: 640M}}}}
  sentinel: {{health: {{interval: 2s}}}}
  database: {{health: {{interval: 2s}}, resources: {{cpu: 0.25, memory: 512M}}, stop_grace: 10s}}
  pooler: {{health: {{interval: 2s}}, resources: {{cpu: 0.05, memory: 64M}}, stop_grace: 5s}}
  etcd: {{resources: {{cpu: 0.05, memory: 128M}}}}
scaling:
  interval: 1s
  # far above what checks alone take, on a slow machine too, and far below what no check is answered at any more
  policies: [{{kind: resource, cpu: {{scale_up: 60, scale_down: 45}}}}]
  scale_up: {{cooldown: 1s}}
  scale_down: {{stabilization_window: 2s, cooldown: 1s}}
  services: {{agents: {{min: 2, max: 6}}}}
"""


class Stack(Struct, frozen=True):
    """The deployment and the ways to ask about it."""

    profile: Path
    env: dict[str, str]

    def cfscale(self, command: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command on it from inside the namespace."""
        argv = [*INSIDE, sys.executable, "-m", "cfscale", command, str(self.profile), *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        sys.stdout.write(f"$ cfscale {command} {' '.join(words)}\n{done.stdout}{done.stderr}")
        assert not check or done.returncode == 0, done.stderr
        return done

    def with_profile(self, old: str, new: str) -> "Stack":
        """The same deployment by an edited profile."""
        path = self.profile.with_name("edited.yaml")
        path.write_text(self.profile.read_text().replace(old, new))
        return Stack(path, self.env)

    def docker(self, *words: str) -> str:
        """One command of the Docker client on the engine."""
        done = subprocess.run(["docker", *words], env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self, service: str = "") -> list[str]:
        """The ids of the running containers, of one service or of all."""
        name = f"name={NAME}_{service}" if service else f"label=com.docker.stack.namespace={NAME}"
        return sorted(self.docker("ps", "--quiet", "--no-trunc", "--filter", name).split())

    def load(self, path: str, rate: int, seconds: int) -> subprocess.Popen[str]:
        """A bounded load on the balancer; its exit code is 1 where a request was lost."""
        words = (f"127.0.0.1:{PORT}", path, "--rate", str(rate), "--seconds", str(seconds))
        argv = [*INSIDE, sys.executable, str(ROOT / "examples" / "demo" / "load.py"), *words]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def joined(self, monkeypatch: pytest.MonkeyPatch) -> Joined:
        """The engine in this process; its API is a socket that every namespace reaches."""
        for name in ("DOCKER_HOST", "CFSCALE_STATE_DIR"):
            monkeypatch.setenv(name, self.env[name])
        return open_deployment(load_plan(str(self.profile), Sizing()), "auto", str(self.profile))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A swarm of one, in a namespace of its own."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a second engine needs root")
    script = str(ROOT / "tests" / "e2e" / "engine.sh")
    running = subprocess.run([script, "status", "swarm"], capture_output=True, timeout=60, check=False).returncode == 0
    subprocess.run([script, "start", "swarm"], check=True, timeout=120)
    folder = tmp_path_factory.mktemp("swarm")
    profile = folder / "cfscale.yaml"
    profile.write_text(PROFILE)
    shutil.copy(profile, folder / "acme.yaml")
    environment = {"DOCKER_HOST": DOCKER_HOST, "CFSCALE_STATE_DIR": str(folder / "state"), "NO_COLOR": "1"}
    try:
        yield Stack(profile, {**os.environ, **environment})
    finally:
        if not running:
            subprocess.run([script, "stop", "swarm"], check=True, timeout=120)


@pytest.fixture(scope="module")
def stack(engine: Stack) -> Stack:
    """The stack, started by the commands that the documentation shows."""
    for line in ON_SWARM:
        argv = [*INSIDE, sys.executable, "-m", "cfscale", *line.split()[1:]]
        done = subprocess.run(
            argv, cwd=engine.profile.parent, env=engine.env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
    assert any(line.startswith("cfscale up ") for line in ON_SWARM)
    return engine


def test_everything_is_healthy_when_asked(stack: Stack) -> None:
    report = json.loads(stack.cfscale("probe", "-o", "json").stdout)

    assert report["summary"]["up"] == len(report["results"]) == 21
    assert {result["kind"] for result in report["results"]} == {"http", "postgres", "redis"}


def test_the_recorded_engine_is_used_and_named(stack: Stack) -> None:
    status = json.loads(stack.cfscale("status", "-o", "json").stdout)

    assert (status["engine"], status["endpoint"]) == ("swarm", f"127.0.0.1:{PORT}")
    assert {one["service"]: one["ready"] for one in status["services"]} == {
        "coordinator": 2,
        "agents": 3,
        "loadbalancer": 1,  # one node has one port
        "queue": 2,
        "cache": 2,
        "database": 2,
        "pooler": 2,
        "sentinel": 3,
        "etcd": 3,
    }


def test_the_limits_are_what_the_engine_enforces(stack: Stack) -> None:
    for service in json.loads(stack.cfscale("plan", "-o", "json").stdout)["services"]:
        container = stack.containers(service["name"])[0]
        found = stack.docker("inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", container)

        assert found.split() == [
            str(service["memory_limit_bytes"]),
            str(service["cpu_limit_millicores"] * 10**6),
        ]


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = stack.containers()
    stack.cfscale("up")

    assert stack.containers() == before


def running(joined: Joined) -> int:
    """How many agents there are, those that are leaving left out."""
    return sum(one.service == "agents" and one.state is not ReplicaState.DRAINING for one in joined.engine.replicas())


def test_nothing_is_lost_from_three_to_six_to_two(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the engine's own port, to the number; who goes is Swarm's choice, and drains on SIGTERM."""
    joined = stack.joined(monkeypatch)
    agents, ran = joined.plan.service("agents"), [len(stack.containers("agents."))]
    with stack.load("/work?ms=1", rate=60, seconds=16) as load:
        joined.engine.grow(agents, 6)
        ran.append(running(joined))
        joined.engine.shrink(agents, 2, ())
        ran.append(running(joined))
        report = load.communicate(timeout=120)[0]
    sys.stdout.write(report)

    assert ran == [3, 6, 2]
    assert load.returncode == 0, report


def test_live_counts_survive_another_up(stack: Stack) -> None:
    before = stack.containers("agents.")
    stack.cfscale("up")

    assert len(before) == 2
    assert stack.containers("agents.") == before


def test_the_scaler_grows_and_shrinks_it_by_its_load_and_loses_nothing(stack: Stack) -> None:
    """The load, and the checks with it, are what two replicas carry: where they answer no check, a balancer that finds
    nobody ready answers 503, whatever the scaler does."""
    stack.docker("service", "scale", f"{NAME}_agents=2")
    words = ("scale", str(stack.profile), "--watch", "--apply", "--for", "45s", "-o", "json")
    argv = [*INSIDE, sys.executable, "-m", "cfscale", *words]
    with subprocess.Popen(argv, env=stack.env, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline()]  # it watches: now there is something to see
        with stack.load("/work?ms=8", rate=13, seconds=10) as load:
            report = load.communicate(timeout=120)[0]
        lines += watching.stdout.readlines()
    decisions = [json.loads(line) for line in lines]
    applied = {one["action"] for one in decisions if one["applied"]}

    assert applied == {"scale_up", "scale_down"}, [(one["action"], one["reason"]) for one in decisions]
    assert {one["engine"] for one in decisions} == {"swarm"}
    assert load.returncode == 0, report


def test_a_broken_update_is_taken_back_and_said_in_one_line(stack: Stack) -> None:
    before = set(stack.containers("coordinator."))
    done = stack.with_profile("demo-worker:1", "no-such-image:1").cfscale("up", check=False)
    stack.cfscale("up")  # the manifest as it was

    assert done.returncode == 1
    assert "the update was taken back: No such image: cfscale/no-such-image:1" in done.stderr.splitlines()[-1]
    assert len(stack.containers("coordinator.")) == len(before)


def test_the_database_is_reached_through_pool_and_balancer(stack: Stack) -> None:
    """Names of the stack's own network lead to healthy tasks only, and the write gate to the primary."""
    ask = "PGPASSWORD=$(cat /run/secrets/database_password) psql -h pooler -p 6432 -U app -At app -c 'select not pg_is_in_recovery()'"

    assert stack.docker("exec", stack.containers("database-2.")[0], "sh", "-c", ask).strip() == "t"


def test_the_password_is_in_no_manifest_definition_or_log(stack: Stack) -> None:
    folder = Path(stack.env["CFSCALE_STATE_DIR"]) / "swarm"
    password = (folder / "secrets" / "queue_password").read_text().strip()
    texts = [path.read_text() for path in folder.rglob("*") if path.is_file() and "secrets" not in path.parts]
    services = stack.docker("service", "ls", "--quiet").split()
    texts += [stack.docker("service", "inspect", *services), stack.docker("inspect", *stack.containers())]
    texts += [stack.docker("logs", one) for one in stack.containers()]

    assert not any(password in text for text in texts)


def test_down_keeps_the_data_until_it_is_told_not_to(engine: Stack) -> None:
    engine.cfscale("down", "--engine", "swarm")
    kept = engine.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.stack.namespace").split()
    engine.cfscale("down", "--engine", "swarm", "--volumes", "--yes")
    labels = engine.docker("node", "inspect", "self", "--format", "{{json .Spec.Labels}}")

    assert {f"{NAME}_coordinator-data", f"{NAME}_queue-1-data", f"{NAME}_database-2-data"} <= set(kept)
    assert engine.docker("volume", "ls", "--quiet", "--filter", "label=com.docker.stack.namespace") == ""
    assert (labels.strip(), engine.containers()) == ("{}", [])
