"""The scaler on a real engine whose socket answers late, in part, or not at all: it holds, and goes on when that is over."""

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from cfscale.adapters.cgroup import CgroupReader
from cfscale.adapters.compose import ComposeEngine
from cfscale.adapters.docker_engine import DockerEngine, Statistics, StatsReader
from cfscale.adapters.journal import Journal
from cfscale.adapters.lock import Lock
from cfscale.adapters.state import State
from cfscale.core.decision import Action, Decision, unfinished
from cfscale.core.plan import Damping, DeploymentPlan, Health, HealthKind, Service
from cfscale.core.samples import Quality, ReplicaState, Usage
from cfscale.errors import UnavailableError
from cfscale.runtime.act import Hands
from cfscale.runtime.watch import Scaler
from tests.e2e.fault_proxy import Fault, FaultProxy, spoiling
from tests.e2e.stack import left_behind, until
from tests.fake_service import SCALING, VirtualClock, a_plan

pytestmark = pytest.mark.engine

NAME = "cfscale-e2e-faults"
SPIN = "while :; do :; done"
AGENTS = Service(
    name="agents",
    image="python:3.13-slim",
    replicas=2,
    min_replicas=1,
    max_replicas=5,
    cpu_request_millicores=100,
    cpu_limit_millicores=100,
    memory_request_bytes=64 << 20,
    memory_limit_bytes=64 << 20,
    storage_bytes=0,
    driver="agents",
    rules=(),
    port=8080,
    health=Health(HealthKind.NONE),
    stop_grace_seconds=1.0,
)
MANIFEST = f"""\
name: "{NAME}"
services:
  agents:
    image: "python:3.13-slim"
    pull_policy: "never"
    init: true
    restart: "unless-stopped"
    command: ["sh", "-c", "COMMAND"]
    networks: ["app"]
    logging: LOGGING
    stop_grace_period: "1s"
    deploy: {{replicas: 2, resources: {{limits: {{cpus: "0.1", memory: "64M"}}}}}}
networks:
  app: {{}}
"""
QUICK = replace(
    SCALING, interval_seconds=2.0, scale_up=Damping(0.0, 0.0, 100, 4), scale_down=Damping(0.0, 0.0, 50, None)
)


class Now(VirtualClock):
    """Real time, without waiting between ticks: usage needs a window, which the tests take."""

    @property
    def time(self) -> float:
        return time.time()

    @time.setter
    def time(self, value: float) -> None:
        pass


@dataclass(slots=True)
class Lab:
    """A project on the real engine, reached through the proxy."""

    folder: Path
    proxy: FaultProxy
    plan: DeploymentPlan = field(default_factory=lambda: replace(a_plan(AGENTS, QUICK), name=NAME))
    warnings: list[str] = field(default_factory=list)
    # longer than an engine on a busy machine needs, shorter than the silence of the proxy
    docker: DockerEngine = field(default_factory=lambda: DockerEngine(timeout_seconds=5.0))
    cgroups: CgroupReader = field(default_factory=CgroupReader)

    @property
    def engine(self) -> ComposeEngine:
        return ComposeEngine(self.plan, self.folder, self.docker, readers=(self.cgroups.read,))

    def scaler(self, *, apply: bool = False, engine: ComposeEngine | None = None) -> Scaler:
        engine, state = engine or self.engine, State(self.folder / "state")
        scaler = Scaler(engine, self.plan, (AGENTS,), Now(), state, self.warnings.append)
        if apply:
            state.create()
            lock = Lock(f"test:{self.folder}", command="test", started_at="now", folder=self.folder)
            lock.acquire()
            scaler.hands = Hands(engine, scaler.clock, Journal(state.folder), lock)
        return scaler

    def begin(self, command: str, count: int, logging: str = "{driver: json-file}") -> None:
        (self.folder / "compose.yaml").write_text(MANIFEST.replace("COMMAND", command).replace("LOGGING", logging))
        self.engine.up({"agents": count})


def ticked(scaler: Scaler) -> Decision:
    """One tick after a window long enough to measure."""
    pause(0.5)
    (decision,) = scaler.tick()
    return decision


def pause(seconds: float) -> None:
    """A window of real time: usage is a difference over it."""
    import threading

    threading.Event().wait(seconds)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    with spoiling(tmp_path / "engine.sock") as proxy:
        lab = Lab(tmp_path, proxy)
        yield lab
        proxy.fault = Fault.NONE
        lab.engine.down(volumes=True)
        lab.cgroups.close()
        lab.docker.close()
    monkeypatch.undo()
    assert left_behind(NAME) == []


def test_faults_2_and_3_an_engine_that_answers_in_part_or_not_at_all_is_a_hold(lab: Lab) -> None:
    lab.begin(SPIN, 2)
    scaler = lab.scaler()
    ticked(scaler)
    assert ticked(scaler).action is Action.SCALE_UP
    for fault in (Fault.SILENCE, Fault.HALF, Fault.RESET):
        lab.proxy.fault = fault
        held = ticked(scaler)
        assert (held.action, held.samples, scaler.codes) == (Action.HOLD, (), {"agents": 3}), fault
        assert "Docker engine" in held.reason, fault
        lab.proxy.fault = Fault.NONE
        ticked(scaler)
        assert ticked(scaler).action is Action.SCALE_UP, f"after {fault}"


def test_fault_2_an_answer_that_is_late_but_in_time_is_an_answer(lab: Lab) -> None:
    lab.begin(SPIN, 2)
    scaler = lab.scaler()
    ticked(scaler)
    lab.proxy.fault = Fault.DELAY
    assert ticked(scaler).action is Action.SCALE_UP
    assert lab.proxy.spoilt > 0


class LogServer:
    """A TCP server for what containers log. Nobody takes up the connections that wait; the engine waits with those beyond."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=8)
        self.port = int(self._listener.getsockname()[1])
        self._waiting: list[socket.socket] = []

    def fall_silent(self) -> None:
        """Fill the queue: until this server is closed, no further connection comes about."""
        accepted = True
        while accepted:
            one = socket.socket()
            one.settimeout(0.0)
            one.connect_ex(self._listener.getsockname())
            self._waiting.append(one)
            accepted = bool(select.select([], [one], [], 0.5)[1])

    def close(self) -> None:
        for one in (self._listener, *self._waiting):
            one.close()


def test_fault_2_a_container_that_the_engine_cannot_start_hides_no_other(lab: Lab) -> None:
    with closing(LogServer()) as log:
        lab.begin(SPIN, 2, f'{{driver: syslog, options: {{syslog-address: "tcp://127.0.0.1:{log.port}"}}}}')
        scaler = lab.scaler()
        _, two = lab.engine.replicas()
        ticked(scaler)
        log.fall_silent()
        # its shell may be killed with the rest
        subprocess.run(["docker", "exec", two.id, "sh", "-c", "kill -KILL -1"], check=False, timeout=60)
        listed = ("ps", "--filter", f"id={two.id}", "--format", "{{.Status}}")
        until(lambda: "Restarting" in docker(*listed) or None, 60, "a restart")
        ticked(scaler)
        decision = ticked(scaler)
        assert decision.reason.endswith("is above 80%: 1 still starting will help to carry it")
        assert decision.basis is not None
        assert (decision.basis.ready, decision.basis.starting) == (1, 1)


def test_fault_3_what_the_engine_streams_is_taken_up_again_after_a_reset(lab: Lab) -> None:
    lab.begin(SPIN, 2)
    statistics = Statistics(lab.docker.measure, lab.docker.follow, quick_seconds=0.0)
    reader = StatsReader(statistics.measure, keep=statistics.keep)
    replicas = lab.engine.replicas()

    def measured(after: float = 0.0) -> dict[str, Usage]:
        """The usage of each as it was measured after this time; their streams do not keep step."""
        found: dict[str, Usage] = {}

        def read() -> bool | None:
            told = (usage for usage in reader.read(replicas) if usage.quality is Quality.OK)
            found.update({usage.replica: usage for usage in told if usage.taken_at > after})
            return found.keys() == {one.id for one in replicas} or None

        until(read, 60, "both are measured")
        return found

    measured()
    lab.proxy.fault = Fault.RESET
    until(lambda: lab.proxy.spoilt >= 2 * len(replicas) or None, 60, "streams are broken")
    broken = time.time()
    lab.proxy.fault = Fault.NONE
    # a window ends when a thread gets to it: a part of a second is in one or in the next
    assert all(0.02 < (usage.cpu_cores or 0.0) < 0.4 for usage in measured(after=broken).values())
    reader.read(())


def test_fault_2_an_engine_that_falls_silent_in_the_middle_of_a_growth_is_no_success(lab: Lab) -> None:
    lab.begin(SPIN, 1)

    class Falling(ComposeEngine):
        def grow(self, service: Service, count: int) -> None:
            ComposeEngine.grow(self, service, count)
            lab.proxy.fault = Fault.SILENCE

    engine = Falling(lab.plan, lab.folder, lab.docker, readers=(lab.cgroups.read,))
    scaler = lab.scaler(apply=True, engine=engine)
    ticked(scaler)
    decision = ticked(scaler)
    assert (decision.action, decision.applied, scaler.codes) == (Action.SCALE_UP, False, {"agents": 1})
    assert "the result is not known" in decision.reason
    lab.proxy.fault = Fault.NONE
    assert "outside" not in ticked(scaler).reason
    assert unfinished(Journal(lab.folder / "state").entries()) == ()


def test_faults_4_to_7_removed_stopped_restarted_and_paused_are_not_idle(lab: Lab) -> None:
    lab.begin("sleep 600", 4)
    scaler = lab.scaler()
    ticked(scaler)
    one, two, three, four = lab.engine.replicas()
    docker("pause", one.id)
    held = ticked(scaler)
    assert (held.action, held.current) == (Action.HOLD, 4)
    assert "1 paused: no shrinking" in held.reason
    docker("unpause", one.id)
    docker("restart", "-t", "0", two.id)
    assert "2 of 4 report cpu: no shrinking" in ticked(scaler).reason
    docker("stop", "-t", "0", three.id)
    docker("rm", "-f", four.id)
    found = lab.engine.replicas()
    states = {each.id: each.state for each in found}
    assert states == {one.id: ReplicaState.READY, two.id: ReplicaState.READY, three.id: ReplicaState.STOPPED}
    usages = lab.engine.usage((*found, four))
    assert {usage.replica for usage in usages} == {one.id, two.id}


def test_fault_38_a_container_stopped_by_hand_is_a_count_that_somebody_wants(lab: Lab) -> None:
    lab.begin("sleep 600", 3)
    scaler = lab.scaler()
    ticked(scaler)
    victim = lab.engine.replicas()[0]
    subprocess.run(["docker", "stop", "--time", "1", victim.id], check=True, capture_output=True, timeout=60)

    assert ticked(scaler).reason == "the count was changed from outside from 3 to 2: adopted"
    assert lab.warnings == []
    (stopped,) = (one for one in lab.engine.replicas() if one.state is ReplicaState.STOPPED)
    assert (stopped.id, stopped.by_hand) == (victim.id, True)


def test_fault_15_a_container_held_at_its_quota_is_saturated(lab: Lab) -> None:
    lab.begin(SPIN, 1)
    scaler = lab.scaler()
    ticked(scaler)
    (cpu,) = [sample for sample in ticked(scaler).samples if sample.resource == "cpu"]
    assert cpu.value_ratio > 0.9


def test_fault_36_what_starts_in_part_is_counted_kept_and_not_tried_at_once_again(lab: Lab) -> None:
    lab.begin(SPIN, 1)
    docker("create", "--name", f"{NAME}-agents-3", "python:3.13-slim", "true")
    try:
        scaler = lab.scaler(apply=True)
        ticked(scaler)
        scaler.services = (replace(AGENTS, min_replicas=4),)
        decision = ticked(scaler)
        assert (decision.action, decision.desired, decision.applied) == (Action.SCALE_UP, 4, False)
        count = len([one for one in lab.engine.replicas() if one.state is ReplicaState.READY])
        assert f"{count - 1} of 3 started, {count} running" in decision.reason
        assert 1 <= count < 4
        assert "did not take effect: next attempt in" in ticked(scaler).reason
    finally:
        docker("rm", "-f", f"{NAME}-agents-3")


def test_fault_37_a_container_that_dies_at_once_does_not_make_the_fleet_grow(lab: Lab) -> None:
    lab.begin("exit 1", 1)
    scaler = lab.scaler(apply=True)
    for _ in range(8):
        decision = ticked(scaler)
    assert len(lab.engine.replicas()) == 1
    assert decision.action is Action.HOLD


def test_fault_42_a_container_killed_for_lack_of_memory_is_seen_over_its_restart(lab: Lab) -> None:
    greedy = "test -e /tmp/x && exec sleep 600; touch /tmp/x; exec python3 -c 'x = bytearray(200 << 20)'"
    lab.begin(greedy, 2)
    lab.plan = replace(lab.plan, scaling=replace(QUICK, scale_down=Damping(0.0, 300.0, 50, None)))
    scaler = lab.scaler()
    until_ready(lab)
    ticked(scaler)
    held = ticked(scaler)
    assert held.action is Action.HOLD
    assert "killed for lack of memory: no shrinking" in held.reason


def until_ready(lab: Lab) -> None:
    """Both have been killed once and run again; of a container that it is starting the engine tells nothing."""
    for _ in range(100):
        with suppress(UnavailableError):
            found = lab.engine.replicas()
            if all(one.state is ReplicaState.READY and one.restarts for one in found):
                return
        pause(0.1)
    pytest.fail("they were not started again")


def test_fault_1_without_an_engine_scale_says_why_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cfscale", "scale", "--engine", "compose", "--users=1", "--agents=4", "--tasks=4"],
        env={**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock", "CFSCALE_STATE_DIR": str(tmp_path / "state")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "no Docker engine there (no such file or directory): start it, or set DOCKER_HOST" in done.stdout
    assert "Traceback" not in done.stderr


def docker(*words: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    argv = ["docker", *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
