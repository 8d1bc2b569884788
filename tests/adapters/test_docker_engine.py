import hashlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from cfscale.adapters.docker_engine import DockerEngine, StatsReader
from cfscale.adapters.docker_engine.containers import Details, HostConfig, State
from cfscale.adapters.docker_engine.stats import CpuStats, CpuUsage, Measured, MemoryStats, Stats, Throttling
from cfscale.core.samples import Quality, Replica, ReplicaState
from cfscale.errors import ActionError, UnavailableError
from tests.adapters.fake_docker import (
    ID,
    Answer,
    details,
    endpoint,
    half_and_gone,
    half_and_silence,
    half_json,
    json_answer,
    listed,
    not_found,
    refused,
    serving,
    silence,
)

PORTS = {"agents": 8080}
NETWORKS = ("demo_app",)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return path


@pytest.fixture
def engine() -> Iterator[DockerEngine]:
    engine = DockerEngine(timeout_seconds=10.0)
    yield engine
    engine.close()


@pytest.fixture
def hasty() -> Iterator[DockerEngine]:
    """For a daemon that falls silent: long enough for an answer on a busy machine, and no longer."""
    engine = DockerEngine(timeout_seconds=1.0, patience_seconds=1.0)
    yield engine
    engine.close()


def replicas(engine: DockerEngine) -> tuple[Replica, ...]:
    return engine.replicas("demo", PORTS, NETWORKS)


def listing(*containers: object, inspected: object = None) -> dict[str, Answer]:
    return {"/containers/json": json_answer(containers), f"{ID}/json": json_answer(inspected or details())}


def only(engine: DockerEngine) -> Replica:
    (replica,) = replicas(engine)
    return replica


def test_fault_1_no_daemon_is_said_with_its_remedy(path: Path, engine: DockerEngine) -> None:
    with pytest.raises(UnavailableError, match=r"no Docker engine there .*: start it, or set DOCKER_HOST"):
        engine.identity()


def test_fault_1_a_socket_without_listener_is_no_daemon(path: Path, engine: DockerEngine) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(UnavailableError, match="no Docker engine there"):
        engine.identity()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_fault_1_a_socket_of_others_names_the_group_docker(
    monkeypatch: pytest.MonkeyPatch, engine: DockerEngine
) -> None:
    import docker  # noqa: F401 - read while it may be read

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "docker.sock"
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with serving(path, {}):
            path.chmod(0o600)
            os.seteuid(65534)
            try:
                with pytest.raises(UnavailableError, match="join the group docker, or set DOCKER_HOST"):
                    engine.identity()
            finally:
                os.seteuid(0)


def test_fault_2_a_daemon_that_never_answers_is_given_up(path: Path, hasty: DockerEngine) -> None:
    with (
        serving(path, {"/version": silence}),
        pytest.raises(UnavailableError, match="does not answer in time: see 'docker info'"),
    ):
        hasty.identity()


@pytest.mark.parametrize("answer", [half_and_silence, half_and_gone, half_json, json_answer({"no": "list"}), refused])
def test_fault_3_half_an_answer_is_no_list(path: Path, hasty: DockerEngine, answer: Answer) -> None:
    with serving(path, {"/containers/json": answer}), pytest.raises(UnavailableError):
        replicas(hasty)


def test_fault_3_the_next_question_is_answered_again(path: Path, hasty: DockerEngine) -> None:
    with serving(path, {"/containers/json": half_and_gone, f"{ID}/json": json_answer(details())}) as daemon:
        with pytest.raises(UnavailableError):
            replicas(hasty)
        daemon.answers["/containers/json"] = json_answer([listed()])
        assert only(hasty).state is ReplicaState.READY


def test_fault_4_a_container_removed_after_the_list_is_left_out(path: Path, engine: DockerEngine) -> None:
    with serving(path, {"/containers/json": json_answer([listed()]), f"{ID}/json": not_found}):
        assert replicas(engine) == ()


def test_fault_1_nobody_at_a_tcp_address_is_said(monkeypatch: pytest.MonkeyPatch, engine: DockerEngine) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UnavailableError, match=r"Connection refused.*set DOCKER_HOST"):
        engine.identity()


def test_a_container_without_a_name_is_called_by_its_id(path: Path, engine: DockerEngine) -> None:
    with serving(path, listing(listed("removing", "Removal In Progress", Names=None))):
        assert only(engine).name == "c0ffeec0ffee"


def test_a_container_is_a_replica(path: Path, engine: DockerEngine) -> None:
    with serving(path, listing(listed())):
        assert only(engine) == Replica(
            id=ID,
            name="demo-agents-1",
            service="agents",
            state=ReplicaState.READY,
            started_at=1795473685.465282,
            address="172.21.0.5:8080",
            pid=4242,
            restarts=3,
        )


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        ("running", "Up 2 minutes", ReplicaState.READY),
        ("running", "Up 2 minutes (healthy)", ReplicaState.READY),
        ("running", "Up 2 seconds (health: starting)", ReplicaState.STARTING),
        ("running", "Up 2 minutes (unhealthy)", ReplicaState.UNHEALTHY),
        ("paused", "Up 2 minutes (Paused)", ReplicaState.PAUSED),
        ("created", "Created", ReplicaState.STOPPED),
        ("restarting", "Restarting (1) 2 seconds ago", ReplicaState.STARTING),
        ("exited", "Exited (137) 2 seconds ago", ReplicaState.STOPPED),
        ("dead", "Dead", ReplicaState.STOPPED),
        ("removing", "Removal In Progress", ReplicaState.STOPPED),
    ],
)
def test_the_state_is_that_of_engine_and_health_check(
    path: Path, engine: DockerEngine, state: str, status: str, expected: ReplicaState
) -> None:
    with serving(path, listing(listed(state, status))):
        assert only(engine).state is expected


def test_an_exit_is_given_as_the_reason(path: Path, engine: DockerEngine) -> None:
    stopped = details(0, started="0001-01-01T00:00:00Z")
    with serving(path, listing(listed("exited", "Exited (137) 2 seconds ago"), inspected=stopped)):
        found = only(engine)
    assert (found.reason, found.pid, found.address) == ("Exited (137) 2 seconds ago", None, None)
    assert found.started_at == 1_700_000_000


def test_a_failed_health_check_is_given_as_the_reason_without_control_characters(
    path: Path, engine: DockerEngine
) -> None:
    health = {"Log": [{"Output": "old"}, {"Output": "\x1b[31mconnection\nrefused\x07"}]}
    with serving(path, listing(listed(status="Up 2 minutes (unhealthy)"), inspected=details(Health=health))):
        assert only(engine).reason == "[31mconnection refused"


def test_off_the_wanted_network_any_address_is_given(path: Path, engine: DockerEngine) -> None:
    with serving(path, listing(listed())):
        (replica,) = engine.replicas("demo", PORTS, ("demo_edge",))
    assert replica.address == "172.21.0.5:8080"


def test_containers_of_other_services_are_left_out(path: Path, engine: DockerEngine) -> None:
    with serving(path, listing(listed(Labels={"com.docker.compose.service": "mine"}))):
        assert replicas(engine) == ()


def test_a_container_is_inspected_again_only_after_a_new_start(path: Path, engine: DockerEngine) -> None:
    with serving(path, listing(listed())) as daemon:
        assert [only(engine).pid for _ in range(3)] == [4242] * 3
        assert daemon.asked.count(f"/v1.41/containers/{ID}/json") == 1
        again = listed(NetworkSettings={"Networks": {"demo_app": endpoint("172.21.0.5", "e2")}})
        daemon.answers = listing(again, inspected=details(pid=5000))
        assert only(engine).pid == 5000


def test_fault_2_a_container_that_the_engine_is_busy_starting_hides_no_other(path: Path, hasty: DockerEngine) -> None:
    busy = [listed("restarting", "Restarting (137)", Id=name, NetworkSettings=None) for name in ("b1", "b2", "b3")]
    answers = {"/containers/json": json_answer([*busy, listed()]), f"{ID}/json": json_answer(details())}
    answers |= {f"/containers/{name}/json": json_answer(details()) for name in ("b2", "b3")}
    with serving(path, answers | {"/containers/b1/json": silence}) as daemon:
        found = {one.id: (one.state, one.pid, one.reason) for one in replicas(hasty)}
        assert found == {
            ID: (ReplicaState.READY, 4242, ""),
            **dict.fromkeys(("b1", "b2", "b3"), (ReplicaState.STARTING, None, "Restarting (137)")),
        }
        # the second one is not waited for
        assert not any("/b2/" in question for question in daemon.asked)
        daemon.answers = answers | {"/containers/b1/json": json_answer(details(pid=5000))}
        assert {one.pid for one in replicas(hasty)} == {4242, 5000}


def test_fault_2_of_a_container_that_the_engine_is_busy_starting_what_was_known_stays(
    path: Path, hasty: DockerEngine
) -> None:
    with serving(path, listing(listed())) as daemon:
        before = only(hasty)
        restarting = [listed("restarting", "Restarting (1)", NetworkSettings=None)]
        daemon.answers |= {"/containers/json": json_answer(restarting), f"{ID}/json": silence}
        busy = only(hasty)
    assert (before.restarts, busy.restarts, busy.started_at) == (3, 3, before.started_at)
    assert (busy.state, busy.pid, busy.address) == (ReplicaState.STARTING, None, None)


@pytest.mark.parametrize("state", ["running", "exited"])
def test_fault_2_no_answer_about_what_runs_or_ended_is_no_answer(path: Path, hasty: DockerEngine, state: str) -> None:
    with (
        serving(path, {"/containers/json": json_answer([listed(state)]), f"{ID}/json": silence}),
        pytest.raises(UnavailableError, match="does not answer in time"),
    ):
        replicas(hasty)


def test_stopping_and_removing_what_is_gone_is_done(path: Path, engine: DockerEngine) -> None:
    with serving(path, {}):
        engine.stop(ID, 1.5)
        engine.remove(ID)


def test_a_removal_that_somebody_else_began_is_done(path: Path, engine: DockerEngine) -> None:
    with serving(path, {ID: json_answer({"message": "removal is already in progress"}, "409 Conflict")}):
        engine.remove(ID)


def test_a_stop_that_the_engine_refuses_is_a_failed_action(path: Path, engine: DockerEngine) -> None:
    with serving(path, {"/stop": refused, ID: refused}):
        with pytest.raises(ActionError, match="driver failed"):
            engine.stop(ID, 1.0)
        with pytest.raises(ActionError, match="driver failed"):
            engine.remove(ID)


def test_a_command_in_a_container_that_is_gone_is_unavailable(path: Path, engine: DockerEngine) -> None:
    with serving(path, {}), pytest.raises(UnavailableError, match="container c0ffeec0ffee is gone"):
        engine.execute(ID, ["true"])


def test_the_context_in_use_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    path = tmp_path / "other.sock"
    context_of(tmp_path, "other", f"unix://{path}")
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "other"}))
    with serving(path, {"/info": json_answer({"ID": "the-other"})}):
        assert identity() == "the-other"
        (tmp_path / "config.json").write_text("{}")
        monkeypatch.setenv("DOCKER_CONTEXT", "other")
        assert identity() == "the-other"


def context_of(config: Path, name: str, host: str) -> None:
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))


def identity() -> str:
    engine = DockerEngine(timeout_seconds=10.0)
    try:
        return engine.identity()
    finally:
        engine.close()


@pytest.mark.parametrize("meta", [None, "{"])
def test_a_context_that_is_missing_or_broken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meta: str | None
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "lost")
    (tmp_path / "config.json").write_text("{}")
    if meta:
        context_of(tmp_path, "lost", "unix:///nowhere")
        next(tmp_path.glob("contexts/meta/*/meta.json")).write_text(meta)
    with pytest.raises(UnavailableError, match=r"Docker context .*(lost|read)"):
        identity()


# --- usage by the engine's statistics


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Containers:
    """Statistics by container; None: gone; an error: raised."""

    def __init__(self, **known: Measured | UnavailableError | None) -> None:
        self.known = known

    def measure(self, container: str) -> Measured | None:
        found = self.known[container]
        if isinstance(found, UnavailableError):
            raise found
        return found


def measured(cpu_seconds: float = 1.0, *, started: str = "a", memory: MemoryStats | None = None) -> Measured:
    cpu = CpuStats(CpuUsage(int(cpu_seconds * 1e9)), Throttling(10, 4))
    stats = memory or MemoryStats(1000, {"inactive_file": 300, "active_file": 100, "slab_reclaimable": 50})
    return Measured(Stats("2026-11-23T22:41:25Z", cpu, stats), started, 0.5, None)


def asked(*names: str) -> Sequence[Replica]:
    return [Replica(name, name, "agents", ReplicaState.READY, 0.0) for name in names]


def test_fault_8_a_first_statistic_is_warming_and_the_next_our_own_difference() -> None:
    containers, clock = Containers(a=measured(1.0)), Clock()
    reader = StatsReader(containers.measure, clock)
    assert [usage.quality for usage in reader.read(asked("a"))] == [Quality.WARMING]
    containers.known["a"] = measured(2.0)
    clock.now += 4.0
    (usage,) = reader.read(asked("a"))
    assert (usage.quality, usage.source, usage.cpu_cores) == (Quality.OK, "engine-api", 0.25)
    assert (usage.memory_bytes, usage.reclaimable_bytes) == (700, 150)
    assert (usage.cpu_limit_cores, usage.memory_limit_bytes) == (0.5, None)


def test_memory_of_v1_is_counted_by_its_totals() -> None:
    memory = MemoryStats(1000, {"total_inactive_file": 200, "inactive_file": 1, "total_active_file": 70})
    (usage,) = StatsReader(Containers(a=measured(memory=memory)).measure).read(asked("a"))
    assert (usage.memory_bytes, usage.reclaimable_bytes) == (800, 70)


def test_fault_5_the_empty_statistics_of_a_stopped_container_are_no_figure() -> None:
    empty = Stats("0001-01-01T00:00:00Z", CpuStats(CpuUsage()), MemoryStats())
    stopped = Measured(empty, "a", None, None)
    assert StatsReader(Containers(a=stopped).measure).read(asked("a")) == ()


def test_fault_10_without_memory_figures_the_usage_is_partial() -> None:
    (usage,) = StatsReader(Containers(a=measured(memory=MemoryStats())).measure).read(asked("a"))
    assert (usage.quality, usage.memory_bytes) == (Quality.PARTIAL, None)


def test_faults_3_and_4_one_that_fails_or_is_gone_does_not_touch_the_others() -> None:
    containers = Containers(a=None, b=UnavailableError("half an answer"), c=measured())
    assert [usage.replica for usage in StatsReader(containers.measure).read(asked("a", "b", "c"))] == ["c"]


def test_fault_6_a_restart_gives_one_statistic_without_a_figure() -> None:
    containers, clock = Containers(a=measured(5.0)), Clock()
    reader = StatsReader(containers.measure, clock)
    reader.read(asked("a"))
    clock.now += 5.0
    containers.known["a"] = measured(6.0, started="b")
    assert [usage.quality for usage in reader.read(asked("a"))] == [Quality.WARMING]


def test_asked_for_nobody_there_is_nothing() -> None:
    assert StatsReader(Containers().measure).read(()) == ()


def test_statistics_come_with_the_limits_of_the_inspection(path: Path, engine: DockerEngine) -> None:
    body = {
        "read": "2026-11-23T22:41:25Z",
        "cpu_stats": {"cpu_usage": {"total_usage": 7}, "throttling_data": {"periods": 2, "throttled_periods": 1}},
        "memory_stats": {"usage": 10, "stats": {"inactive_file": 4}},
    }
    with serving(path, {"/stats": json_answer(body), f"{ID}/json": json_answer(details())}):
        found = engine.measure(ID)
    assert found is not None
    assert (found.cpu_limit_cores, found.memory_limit_bytes) == (0.5, 67_108_864)
    assert (found.stats.cpu_stats.cpu_usage.total_usage, found.stats.memory_stats.usage) == (7, 10)


@pytest.mark.parametrize("missing", ["/stats", f"{ID}/json"])
def test_statistics_of_a_container_that_is_gone_are_none(path: Path, engine: DockerEngine, missing: str) -> None:
    body = {"read": "2026-11-23T22:41:25Z", "cpu_stats": {"cpu_usage": {}}}
    answers = {"/stats": json_answer(body), f"{ID}/json": json_answer(details()), missing: not_found}
    with serving(path, answers):
        assert engine.measure(ID) is None


@pytest.mark.parametrize(
    ("host", "limit"),
    [
        (HostConfig(), None),
        (HostConfig(nano_cpus=1_500_000_000), 1.5),
        (HostConfig(cpu_quota=25_000), 0.25),
        (HostConfig(cpu_quota=25_000, cpu_period=50_000), 0.5),
    ],
)
def test_a_cpu_limit_is_read_in_either_notation(host: HostConfig, limit: float | None) -> None:
    assert Details(State(1, ""), host).cpu_limit_cores == limit


@pytest.mark.parametrize(
    ("state", "policy", "by_hand"),
    [
        ("exited", "unless-stopped", True),
        ("exited", "always", True),
        ("exited", "on-failure", False),
        ("exited", "no", False),
        ("restarting", "always", False),
        ("created", "always", False),
    ],
)
def test_what_the_engine_would_start_again_was_stopped_by_hand(
    path: Path,
    engine: DockerEngine,
    state: str,
    policy: str,
    by_hand: bool,  # noqa: FBT001
) -> None:
    found = {**details(), "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}}}
    answers = {"/containers/json": json_answer([listed(state, "Exited (0)")]), f"{ID}/json": json_answer(found)}
    with serving(path, answers):
        assert only(engine).by_hand is by_hand


def test_what_the_engine_could_not_start_again_was_not_stopped_by_hand(path: Path, engine: DockerEngine) -> None:
    found = {
        **details(Error="failed to initialize logging driver"),
        "HostConfig": {"RestartPolicy": {"Name": "always"}},
    }
    answers = {"/containers/json": json_answer([listed("exited", "Exited (137)")]), f"{ID}/json": json_answer(found)}
    with serving(path, answers):
        replica = only(engine)
    assert (replica.by_hand, replica.reason) == (False, "failed to initialize logging driver")


# --- a real engine

PROJECT = "cfscale-test-engine"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    engine = DockerEngine()
    yield engine
    engine.close()
    left = docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
    if left:
        docker("rm", "-f", *left)


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def started(*command: str) -> str:
    labels = {"project": PROJECT, "service": "agents", "oneoff": "False"}
    flags = [f"--label=com.docker.compose.{name}={value}" for name, value in labels.items()]
    return docker("run", "-d", "--init", "--cpus=0.5", "--memory=64m", *flags, "python:3.13-slim", *command)


def found(engine: DockerEngine) -> Replica:
    (replica,) = engine.replicas(PROJECT, PORTS, ())
    return replica


@pytest.mark.engine
def test_the_life_of_a_container_on_a_real_engine(real: DockerEngine) -> None:
    container = started("sleep", "600")
    first = found(real)
    assert (first.id, first.state) == (container, ReplicaState.READY)
    docker("restart", "-t", "0", container)
    second = found(real)
    assert second.pid != first.pid
    assert second.started_at > first.started_at
    docker("pause", container)
    assert found(real).state is ReplicaState.PAUSED
    docker("unpause", container)
    assert found(real) == replace(second, address=found(real).address)
    assert real.leftovers(PROJECT, volumes=True) == (f"container {first.name}",)
    real.stop(container, 5.0)
    assert found(real).state is ReplicaState.STOPPED
    assert StatsReader(real.measure).read((first,)) == ()
    real.remove(container)
    assert real.replicas(PROJECT, PORTS, ()) == ()
    assert real.measure(container) is None


@pytest.mark.engine
def test_the_disk_of_a_real_engine_is_as_full_as_the_system_says(real: DockerEngine) -> None:
    ratio = real.disk_ratio()
    assert ratio is not None
    assert 0 < ratio < 1
    assert ratio == pytest.approx(
        psutil.disk_usage(docker("info", "--format", "{{.DockerRootDir}}")).percent / 100, abs=0.02
    )


def test_the_disk_of_an_engine_elsewhere_is_not_ours(path: Path, engine: DockerEngine) -> None:
    with serving(path, {"/info": json_answer({"DockerRootDir": "/nowhere/at/all"})}):
        assert engine.disk_ratio() is None


@pytest.mark.engine
def test_a_command_in_a_real_container(real: DockerEngine) -> None:
    container = started("sleep", "600")
    assert real.execute(container, ["bash", "-c", "echo out; echo err >&2"]) == "out\n"
    with pytest.raises(UnavailableError, match="'bash' ended with 3: err"):
        real.execute(container, ["bash", "-c", "echo err >&2; exit 3"])
    impatient = DockerEngine(timeout_seconds=0.5)
    try:
        for endless in ("sleep 60", "while echo on; do sleep 0.1; done"):
            with pytest.raises(UnavailableError, match="does not answer in time"):
                impatient.execute(container, ["sh", "-c", endless])
    finally:
        impatient.close()


def test_an_endpoint_that_the_engine_forgot_is_detached_by_its_name(path: Path, engine: DockerEngine) -> None:
    """The engine lists it as ``ep-`` and an id of its own, which it does not take."""
    ghosts = {"Containers": {"ep-1": {"Name": "demo-a-1"}, ID: {"Name": "alive"}, "ep-2": {"Name": "demo-b-1"}}}
    answers = {
        "/containers/json": json_answer([listed()]),
        "/networks": json_answer([{"Id": "n1"}]),
        "/networks/n1": json_answer(ghosts),
        "/networks/n1/disconnect": not_found,
    }
    with serving(path, answers) as daemon:
        engine.drop_ghosts("demo")
    told = [json.loads(body) for asked, body in zip(daemon.asked, daemon.told, strict=True) if "disconnect" in asked]

    assert told == [{"Container": "demo-a-1", "Force": True}, {"Container": "demo-b-1", "Force": True}]
