import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

from cfscale.adapters import compose
from cfscale.adapters.cgroup import CgroupReader
from cfscale.adapters.compose import ComposeEngine
from cfscale.adapters.docker_engine import DockerEngine, StatsReader
from cfscale.adapters.haproxy import HaproxyBalancer, runtime_api_argv
from cfscale.core.plan import DeploymentPlan, Health, HealthKind, Service
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.errors import ActionError, UnavailableError
from tests.fake_service import a_plan

PROJECT = "cfscale-test-compose"


def service(name: str, replicas: int = 1, most: int = 4, **more: object) -> Service:
    base = Service(
        name=name,
        image="python:3.13-slim",
        replicas=replicas,
        min_replicas=1,
        max_replicas=most,
        cpu_request_millicores=500,
        cpu_limit_millicores=500,
        memory_request_bytes=64 << 20,
        memory_limit_bytes=64 << 20,
        storage_bytes=0,
        driver="agents",
        rules=(),
        port=8080,
        health=Health(HealthKind.NONE),
        stop_grace_seconds=2.0,
    )
    return replace(base, **more)


def plan(*services: Service) -> DeploymentPlan:
    return replace(a_plan(), name=PROJECT, services=services)


AGENTS, CODERS, QUEUE = service("agents", 2), service("agents-coder", 1), service("queue", 2, most=2, members=True)
PLAN = plan(AGENTS, CODERS, QUEUE)


def replica(name: str, owner: str = "agents", state: ReplicaState = ReplicaState.READY) -> Replica:
    return Replica(name, name, owner, state, 0.0, pid=None if state is ReplicaState.STOPPED else 1)


class FakeDocker:
    """Containers of a project; stopping and removing works unless told otherwise."""

    def __init__(self, *replicas: Replica) -> None:
        self.containers = {one.id: one for one in replicas}
        self.left: tuple[str, ...] = ()
        self.stuck: set[str] = set()
        self.ghosts = 0
        self.detached: list[str] = []
        self.stopped: list[tuple[str, float]] = []
        self.problem: UnavailableError | None = None
        self.asked: list[tuple[str, Mapping[str, int], Sequence[str]]] = []

    def identity(self) -> str:
        if self.problem:
            raise self.problem
        return "ENGINE"

    def replicas(self, project: str, ports: Mapping[str, int], networks: Sequence[str]) -> tuple[Replica, ...]:
        self.asked.append((project, ports, networks))
        return tuple(self.containers.values())

    def disk_ratio(self) -> float | None:
        return 0.91

    def leftovers(self, project: str, *, volumes: bool) -> tuple[str, ...]:
        return tuple(f"{what} of {project}" for what in (*self.left, *(["volume"] if volumes and self.left else [])))

    def drop_ghosts(self, project: str) -> None:
        self.detached.append(project)
        self.left = self.left if len(self.detached) < self.ghosts else ()

    def stop(self, container: str, grace_seconds: float) -> None:
        self.stopped.append((container, grace_seconds))

    def remove(self, container: str) -> None:
        if container not in self.stuck:
            self.containers.pop(container, None)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a ``docker`` of a few shell lines on the PATH; what it was given is in the file that is returned."""

    def write(body: str) -> Path:
        said = tmp_path / "said"
        script = tmp_path / "bin" / "docker"
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nfor word; do echo "$word" >> {said}; done\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        (tmp_path / "compose.yaml").write_text("services: {}\n")
        return said

    return write


def test_the_target_is_the_engine_and_the_project(tmp_path: Path) -> None:
    engine = ComposeEngine(PLAN, tmp_path, FakeDocker())
    assert (engine.name, engine.target) == ("compose", f"docker:ENGINE:{PROJECT}")


def test_up_gives_the_count_of_every_scaled_service_and_of_no_other(
    tmp_path: Path, command: Callable[[str], Path]
) -> None:
    said = command("echo ' Container x  Started'")
    docker = FakeDocker(*(replica(name) for name in "abc"), replica("d", "agents-coder"))
    docker.containers |= {name: replica(name, "queue") for name in ("q1", "q2")}
    lines: list[str] = []
    ComposeEngine(PLAN, tmp_path, docker, progress=lines.append).up({"agents": 3, "queue": 9})
    words = said.read_text().split("\n")
    assert words[words.index("up") :] == [
        "up",
        "-d",
        "--remove-orphans",
        "--scale=agents=3",
        "--scale=agents-coder=1",
        "",
    ]
    assert words[words.index("--project-name") + 1] == PROJECT
    assert words[words.index("--file") + 1] == str(tmp_path / "compose.yaml")
    assert lines == [" Container x  Started"]


def test_up_that_leaves_too_few_running_says_how_many(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command("exit 0")
    docker = FakeDocker(replica("a"), replica("b", state=ReplicaState.STOPPED))
    with pytest.raises(ActionError, match=r"agents: 1 of 2 replicas run"):
        ComposeEngine(PLAN, tmp_path, docker).up({})


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as owner:
        yield owner.getsockname()[1]


def publishing(port: int) -> DeploymentPlan:
    """Two replicas on two ports, of which this is the second."""
    return plan(service("agents", 2, publish=f"127.0.0.1:{port - 1}-{port}"))


def test_a_port_of_a_range_that_is_taken_is_named_before_anything_starts(
    tmp_path: Path, command: Callable[[str], Path], taken: int
) -> None:
    said = command("exit 0")
    with pytest.raises(ActionError, match=rf"127\.0\.0\.1:{taken} \(agents\).*nothing was started"):
        ComposeEngine(publishing(taken), tmp_path, FakeDocker()).up({})
    assert not said.exists()


def test_the_ports_of_what_runs_already_are_its_own(tmp_path: Path, command: Callable[[str], Path], taken: int) -> None:
    said = command("exit 0")
    ComposeEngine(publishing(taken), tmp_path, FakeDocker(replica("a"), replica("b"))).up({})
    assert "up" in said.read_text().split()


def test_the_ports_of_another_machine_are_not_looked_for_here(
    tmp_path: Path, command: Callable[[str], Path], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("exit 0")
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    with pytest.raises(ActionError, match="0 of 2 replicas run"):
        ComposeEngine(publishing(taken), tmp_path, FakeDocker()).up({})
    assert "up" in said.read_text().split()


def test_the_service_whose_image_cannot_be_had_is_named(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command('[ "$2" = version ] || { echo " agents Error Get it"; echo "Error response: no such host"; exit 1; }')
    with pytest.raises(ActionError, match=r"^docker compose up failed: image of agents: Error response: no such host$"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).up({})


def test_settings_for_other_projects_do_not_reach_compose(
    tmp_path: Path, command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("env | grep '^COMPOSE_' >> $(dirname $0)/../said; exit 0")
    monkeypatch.setenv("COMPOSE_FILE", "/etc/elsewhere.yaml")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "elsewhere")
    ComposeEngine(PLAN, tmp_path, FakeDocker()).down(volumes=False)
    assert "elsewhere" not in said.read_text()


def test_a_failure_is_told_in_the_line_that_says_why(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command('[ "$2" = version ] || { echo working; echo "Error response: port is   allocated"; echo done; exit 1; }')
    with pytest.raises(ActionError, match=r"^docker compose up failed: Error response: port is allocated$"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).grow(AGENTS, 3)


def test_a_failure_in_silence_is_told(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command('[ "$2" = version ] || exit 1')
    with pytest.raises(ActionError, match="failed: it says nothing"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).grow(AGENTS, 3)


def test_without_the_compose_plugin_the_remedy_is_named(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command("echo \"docker: 'compose' is not a docker command\"; exit 1")
    with pytest.raises(UnavailableError, match="no compose plugin: install docker-compose-plugin"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).grow(AGENTS, 3)


def test_without_the_docker_client_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compose.yaml").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="install the Docker client and its compose plugin"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).up({})


def test_a_client_that_cannot_be_run_is_out_of_reach(
    tmp_path: Path, command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("")
    (tmp_path / "bin" / "docker").write_bytes(b"\x7fELF")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UnavailableError, match="cannot be run"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).up({})


def test_fault_2_an_engine_that_does_not_answer_is_found_out_before_compose_is_run(
    tmp_path: Path, command: Callable[[str], Path]
) -> None:
    said = command("exit 0")
    docker = FakeDocker()
    docker.problem = UnavailableError("it does not answer in time")
    with pytest.raises(UnavailableError, match="in time"):
        ComposeEngine(PLAN, tmp_path, docker).up({})
    assert not said.exists()


def test_a_command_that_does_not_end_is_ended_with_its_children(
    tmp_path: Path, command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfscale.adapters.compose._GROW_SECONDS", 0.3)
    command("sleep 60 & wait")
    with pytest.raises(ActionError, match="docker compose up did not end within 0 s"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).grow(AGENTS, 3)


def test_without_a_manifest_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match=r"compose.yaml is missing: run 'cfscale up'"):
        ComposeEngine(PLAN, tmp_path, FakeDocker()).up({})


def test_growing_to_what_runs_already_does_nothing(tmp_path: Path) -> None:
    docker = FakeDocker(replica("a"), replica("b"))
    ComposeEngine(PLAN, tmp_path, docker).grow(AGENTS, 1)
    assert set(docker.containers) == {"a", "b"}


def test_growth_that_falls_short_says_how_far_it_came(tmp_path: Path, command: Callable[[str], Path]) -> None:
    command("exit 0")
    with pytest.raises(ActionError, match="agents: 2 of 5 replicas run"):
        ComposeEngine(PLAN, tmp_path, FakeDocker(replica("a"), replica("b"))).grow(AGENTS, 5)


def test_exactly_the_victims_are_stopped_with_their_grace_and_removed(tmp_path: Path) -> None:
    docker = FakeDocker(*(replica(name) for name in "abcd"))
    ComposeEngine(PLAN, tmp_path, docker).shrink(AGENTS, 2, [replica("a"), replica("c")])
    assert set(docker.containers) == {"b", "d"}
    assert sorted(docker.stopped) == [("a", 2.0), ("c", 2.0)]


def test_a_victim_that_stays_is_named(tmp_path: Path) -> None:
    docker = FakeDocker(replica("a"), replica("b"))
    docker.stuck = {"b"}
    with pytest.raises(ActionError, match="agents: b did not go"):
        ComposeEngine(PLAN, tmp_path, docker).shrink(AGENTS, 0, [replica("a"), replica("b")])


def test_a_shrink_that_leaves_another_count_says_so(tmp_path: Path) -> None:
    docker = FakeDocker(replica("a"), replica("b"))
    with pytest.raises(ActionError, match="agents: 1 of 2 replicas run"):
        ComposeEngine(PLAN, tmp_path, docker).shrink(AGENTS, 2, [replica("a")])


def test_a_shrink_without_victims_only_counts(tmp_path: Path) -> None:
    ComposeEngine(PLAN, tmp_path, FakeDocker(replica("a"))).shrink(AGENTS, 1, [])


def test_what_down_leaves_behind_is_named(tmp_path: Path, command: Callable[[str], Path]) -> None:
    said = command("exit 0")
    docker = FakeDocker()
    docker.left = ("network",)
    with pytest.raises(ActionError, match=f"left network of {PROJECT}, volume of {PROJECT}"):
        ComposeEngine(PLAN, tmp_path, docker).down(volumes=True)
    assert "--volumes" in said.read_text().split()


def test_a_network_that_seems_used_a_moment_longer_is_tried_again(
    tmp_path: Path, command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("exit 0")
    monkeypatch.setattr(compose, "_DOWN_PAUSES", (0.0, 0.0, 0.0))
    docker = FakeDocker()
    docker.left, docker.ghosts = ("network app",), 2
    ComposeEngine(PLAN, tmp_path, docker).down(volumes=False)

    assert docker.detached == [PROJECT, PROJECT]


def test_a_network_that_stays_in_use_is_named_in_the_end(
    tmp_path: Path, command: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    command("exit 0")
    monkeypatch.setattr(compose, "_DOWN_PAUSES", (0.0,))
    docker = FakeDocker()
    docker.left, docker.ghosts = ("network app",), 9

    with pytest.raises(ActionError, match=r"left network app of .* the engine has miscounted: restart it first"):
        ComposeEngine(PLAN, tmp_path, docker).down(volumes=False)


def test_down_without_a_manifest_goes_by_the_labels(tmp_path: Path, command: Callable[[str], Path]) -> None:
    said = command("pwd >> $(dirname $0)/../said")
    (tmp_path / "compose.yaml").unlink()
    ComposeEngine(PLAN, tmp_path, FakeDocker()).down(volumes=False)
    words = said.read_text().split()
    assert "--file" not in words
    assert "--volumes" not in words
    assert words[-1] == "/"


def test_members_are_replicas_of_what_they_are_of(tmp_path: Path) -> None:
    docker = FakeDocker(replica("q1", "queue-1"), replica("q2", "queue-2"))
    assert [one.service for one in ComposeEngine(PLAN, tmp_path, docker).replicas()] == ["queue", "queue"]
    (asked,) = docker.asked
    assert asked == (
        PROJECT,
        {"agents": 8080, "agents-coder": 8080, "queue-1": 8080, "queue-2": 8080},
        (f"{PROJECT}_app",),
    )


def test_what_one_source_leaves_out_the_next_is_asked_for(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def source(name: str, *knows: str) -> Callable[[Sequence[Replica]], tuple[Usage, ...]]:
        def read(replicas: Sequence[Replica]) -> tuple[Usage, ...]:
            asked.append([one.id for one in replicas])
            known = (one.id for one in replicas if one.id in knows)
            return tuple(Usage(one, name, 0.0, 1.0, Quality.OK, 0.1, 1) for one in known)

        return read

    engine = ComposeEngine(PLAN, tmp_path, FakeDocker(), readers=[source("cgroup", "a"), source("engine-api", "b")])
    found = engine.usage([replica(name) for name in "abc"])
    assert [(usage.replica, usage.source) for usage in found] == [("a", "cgroup"), ("b", "engine-api")]
    assert asked == [["a", "b", "c"], ["b", "c"]]


def test_faults_5_and_7_a_paused_or_stopped_replica_has_no_usage_rather_than_none_used(tmp_path: Path) -> None:
    def read(replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        return tuple(Usage(one.id, "x", 0.0, 1.0, Quality.OK, 0.0, 0) for one in replicas)

    engine = ComposeEngine(PLAN, tmp_path, FakeDocker(), readers=[read])
    states = (ReplicaState.PAUSED, ReplicaState.STOPPED, ReplicaState.READY)
    busy = Replica("busy", "busy", "agents", ReplicaState.STARTING, 0.0, pid=None)
    found = engine.usage([busy, *(replica(state.value, state=state) for state in states)])
    assert [usage.replica for usage in found] == ["ready"]


def test_the_disk_of_the_engine_is_told_with_every_usage(tmp_path: Path) -> None:
    def read(replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        return tuple(Usage(one.id, "x", 0.0, 1.0, Quality.OK, 0.0, 0) for one in replicas)

    (usage,) = ComposeEngine(PLAN, tmp_path, FakeDocker(), readers=[read]).usage([replica("a")])
    assert usage.disk_ratio == 0.91


# --- a real engine

SLEEPER = """\
    image: "python:3.13-slim"
    pull_policy: "never"
    init: true
    command: ["sleep", "600"]
    networks: ["app"]
    stop_grace_period: "2s"
    deploy: {replicas: 1, resources: {limits: {cpus: "0.5", memory: "64M"}}}
"""
MANIFEST = f"""\
name: "{PROJECT}"
services:
  agents:
{SLEEPER}
  agents-coder:
{SLEEPER}
networks:
  app: {{}}
volumes:
  data: {{}}
"""


class Lab:
    """A project on the real engine."""

    def __init__(self, folder: Path, plan: DeploymentPlan, manifest: str) -> None:
        (folder / "compose.yaml").write_text(manifest)
        self.docker = DockerEngine()
        self.cgroups = CgroupReader()
        readers = (self.cgroups.read, StatsReader(self.docker.measure).read)
        self.plan = plan
        self.engine = ComposeEngine(plan, folder, self.docker, readers=readers)

    def close(self) -> None:
        self.engine.down(volumes=True)
        self.cgroups.close()
        self.docker.close()

    def running(self, name: str) -> dict[str, str]:
        """Name and id of what runs of a service."""
        return {one.name: one.id for one in self.of(name)}

    def of(self, name: str) -> list[Replica]:
        return [one for one in self.engine.replicas() if one.service == name]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path, plan(AGENTS, CODERS), MANIFEST)
    yield lab
    lab.close()


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)


@pytest.mark.engine
def test_a_deployment_grows_and_shrinks_and_keeps_its_counts(lab: Lab) -> None:
    engine, (agents, coders) = lab.engine, lab.plan.services
    engine.up({"agents": 2, "agents-coder": 2})
    coder_ids = lab.running("agents-coder")
    first = lab.running("agents")
    assert (len(first), len(coder_ids)) == (2, 2)
    engine.grow(agents, 4)
    grown = lab.running("agents")
    assert len(grown) == 4
    assert first.items() <= grown.items()
    assert lab.running("agents-coder") == coder_ids  # growing one service leaves the others' counts alone
    victims = [one for one in lab.of("agents") if one.name.endswith(("-2", "-3"))]
    engine.shrink(agents, 2, victims)
    left = lab.running("agents")
    assert sorted(name[-2:] for name in left) == ["-1", "-4"]
    engine.up({"agents": 2, "agents-coder": 2})  # a gap in the numbers is no reason to replace anybody
    assert lab.running("agents") == left
    engine.grow(agents, 3)
    assert left.items() <= lab.running("agents").items()
    assert lab.running("agents-coder") == coder_ids
    engine.grow(coders, 3)
    assert len(lab.running("agents")) == 3
    engine.down(volumes=False)
    assert engine.replicas() == ()
    assert lab.docker.leftovers(PROJECT, volumes=False) == ()


@pytest.mark.engine
def test_growth_without_an_image_is_a_failed_action(lab: Lab, tmp_path: Path) -> None:
    lab.engine.up({"agents": 1})
    manifest = tmp_path / "compose.yaml"
    manifest.write_text(MANIFEST.replace("python:3.13-slim", "cfscale/no-such-image:0"))
    with pytest.raises(ActionError, match=r"docker compose up failed: .*no-such-image"):
        lab.engine.grow(lab.plan.service("agents"), 3)
    manifest.write_text(MANIFEST)
    assert len(lab.of("agents")) == 1


@pytest.mark.engine
def test_fault_7_a_paused_container_is_paused_and_has_no_usage(lab: Lab) -> None:
    lab.engine.up({"agents": 1})
    (one,) = lab.of("agents")
    subprocess.run(["docker", "pause", one.id], check=True, capture_output=True, timeout=30)
    try:
        (paused,) = lab.of("agents")
        assert paused.state is ReplicaState.PAUSED
        assert lab.engine.usage([paused]) == ()
    finally:
        subprocess.run(["docker", "unpause", one.id], check=True, capture_output=True, timeout=30)


@pytest.mark.engine
def test_a_deployment_whose_manifest_is_lost_is_taken_down_by_its_labels(lab: Lab, tmp_path: Path) -> None:
    lab.engine.up({"agents": 1})
    (tmp_path / "compose.yaml").unlink()
    lab.engine.down(volumes=False)
    assert lab.engine.replicas() == ()
    assert lab.docker.leftovers(PROJECT, volumes=False) == ()


STORM, SPIN = "while :; do /bin/true; done", "while :; do :; done"


@pytest.mark.engine
@pytest.mark.parametrize("work", [STORM, SPIN], ids=["fork storm", "spin"])
def test_fault_14_a_fork_storm_is_measured_within_a_point_of_the_kernels_own_account(
    lab: Lab, tmp_path: Path, work: str
) -> None:
    manifest = tmp_path / "compose.yaml"
    manifest.write_text(MANIFEST.replace('["sleep", "600"]', f'["bash", "-c", "{work}"]', 1))
    lab.engine.up({"agents": 1})
    (storm,) = lab.of("agents")
    lab.docker.disk_ratio()  # the engine is asked once, and the account would be late by that
    (first,) = lab.engine.usage([storm])
    begin = kernel_account(storm)
    threading.Event().wait(2.0)
    (usage,) = lab.engine.usage([storm])
    end = kernel_account(storm)
    truth = (end[1] - begin[1]) / (end[0] - begin[0])
    assert first.quality is Quality.WARMING
    assert (usage.source, usage.quality) == ("cgroup", Quality.OK)
    assert usage.cpu_cores is not None
    assert usage.cpu_cores == pytest.approx(truth, abs=0.01)
    assert usage.cpu_limit_cores == 0.5


def kernel_account(replica: Replica) -> tuple[float, float]:
    """(moment, CPU seconds) from the files that the container itself sees, on v1 or v2."""
    own = Path(f"/proc/{replica.pid}/root/sys/fs/cgroup")
    v1 = own / "cpuacct" / "cpuacct.usage"
    text, moment = (v1 if v1.exists() else own / "cpu.stat").read_text(), time.monotonic()
    return moment, int(text) / 1e9 if v1.exists() else int(text.split()[1]) / 1e6


# --- a balancer in front

HAPROXY = """
global
    stats socket ipv4@127.0.0.1:9999 level admin
resolvers docker
    nameserver dns 127.0.0.11:53
    accepted_payload_size 8192
    hold valid 1s
    hold obsolete 1s
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
frontend public
    bind :8080
    default_backend agents
backend agents
    balance roundrobin
    default-server check inter 500ms fastinter 200ms rise 2 fall 2
    server-template a 8 agents:8080 resolvers docker resolve-prefer ipv4 init-addr none
"""
SERVER = "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"
BALANCED = f"""\
name: "{PROJECT}-lb"
services:
  loadbalancer:
    image: "haproxy:3.2"
    pull_policy: "never"
    networks: ["app"]
    ports: ["127.0.0.1:18488:8080"]
    configs: [{{source: "haproxy", target: "/usr/local/etc/haproxy/haproxy.cfg"}}]
  agents:
    image: "python:3.13-slim"
    pull_policy: "never"
    init: true
    command: ["python", "-c", "{SERVER}"]
    working_dir: "/tmp"
    networks: ["app"]
    stop_grace_period: "2s"
configs:
  haproxy: {{file: "./haproxy.cfg"}}
networks:
  app: {{}}
"""


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "haproxy.cfg").write_text(HAPROXY)
    balancer = service("loadbalancer", 1, most=1)
    lab = Lab(tmp_path, replace(plan(AGENTS, balancer), name=f"{PROJECT}-lb"), BALANCED)
    yield lab
    lab.close()


class Load:
    """Requests, one after the other, until told to end."""

    def __init__(self) -> None:
        self.answered, self.lost = 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.005):
            if asked():
                self.answered += 1
            else:
                self.lost += 1


def asked() -> bool:
    try:
        with urlopen("http://127.0.0.1:18488/", timeout=10) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.engine
def test_nothing_is_lost_when_replicas_are_drained_stopped_and_added_again(balanced: Lab) -> None:
    engine, agents = balanced.engine, balanced.plan.service("agents")

    def senders() -> list[Callable[[str], str]]:
        return [partial(send, one.id) for one in balanced.of("loadbalancer")]

    def send(container: str, line: str) -> str:
        return balanced.docker.execute(container, runtime_api_argv(line))

    def up_slots() -> int:
        return sum(",UP," in line for line in senders()[0]("show stat -1 4 -1").splitlines())

    balancer = HaproxyBalancer(senders)
    engine.up({"agents": 3})
    eventually(lambda: up_slots() == 3)
    eventually(asked)
    with Load() as load:
        eventually(lambda: load.answered > 50)
        victims = balanced.of("agents")[:2]
        addresses = [one.address for one in victims if one.address]
        balancer.drain(addresses)
        eventually(lambda: balancer.sessions(addresses) == 0)
        engine.shrink(agents, 1, victims)
        balancer.ready(addresses)
        sofar = load.answered
        eventually(lambda: load.answered > sofar + 100)
        engine.grow(agents, 3)
        eventually(lambda: up_slots() == 3)  # no slot stays out of rotation
    assert load.lost == 0
