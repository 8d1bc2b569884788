import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cfscale.adapters.process import ProcessEngine
from cfscale.adapters.process.fleet import UNLISTED_SECONDS
from cfscale.adapters.process.protocol import Ping, ask
from cfscale.core.plan import Drain, Health, HealthKind
from cfscale.core.samples import Quality, ReplicaState
from cfscale.errors import ActionError, InputError, LockedError, UnavailableError
from tests.adapters.process_lab import (
    Lab,
    daemon_pid,
    get,
    is_gone,
    mode,
    ready,
    service,
    supervisor_pid,
    wait_for,
    wait_gone,
    wait_ready,
)

pytestmark = pytest.mark.process


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def test_up_returns_when_replicas_run_and_they_become_ready(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 2})
    first, second = wait_ready(engine, 2)
    assert first.id == f"{first.pid}@{first.id.partition('@')[2]}"
    assert first.address != second.address
    assert {first.name, second.name} == {"agents-1", "agents-2"}


def test_a_replica_gets_its_port_its_name_and_the_profile_s_directory(lab: Lab) -> None:
    engine = lab.engine(service("agents", "--port={port}", env={"GREETING": "hello {port}"}))
    engine.up({"agents": 1})
    [replica] = wait_ready(engine, 1)
    assert replica.address is not None
    found, port = get(replica.address, "/"), replica.address.partition(":")[2]
    assert found["args"] == [f"--port={port}"]
    assert found["directory"] == str(lab.base_dir)
    expected = {
        "PORT": port,
        "CFSCALE_SERVICE": "agents",
        "CFSCALE_REPLICA": "1",
        "GREETING": "hello {port}",
        "PATH": os.environ["PATH"],
    }
    assert {name: found["env"][name] for name in expected} == expected


def test_state_is_for_its_owner_alone(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    assert mode(lab.layout.state) == mode(lab.layout.logs) == 0o700
    assert mode(lab.layout.socket) == 0o600
    assert {
        path.name: mode(path) for path in lab.layout.state.rglob("*") if path.is_file() and mode(path) != 0o600
    } == {}
    assert mode(lab.layout.logs / "agents-1.log") == 0o600


def test_up_is_idempotent_and_a_second_up_only_changes_counts(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    before = wait_ready(engine, 1)
    engine.up({"agents": 1})
    assert [item.id for item in engine.replicas()] == [item.id for item in before]
    engine.up({"agents": 2})
    assert before[0].id in [item.id for item in wait_ready(engine, 2)]


def test_up_with_other_commands_is_refused_while_the_old_ones_run(lab: Lab) -> None:
    lab.engine(service()).up({"agents": 1})
    with pytest.raises(ActionError, match="'cfscale down' first"):
        lab.engine(service(env={"A": "1"})).up({"agents": 1})


class Load:
    """Clients that spread over the addresses listed, and list them anew ten times a second.

    One that asks by an older list than a client may have, as on a machine that let nobody list meanwhile, may meet nobody.
    """

    def __init__(self, engine: ProcessEngine) -> None:
        self.answered, self.failures = Counter[str](), list[str]()
        self._engine, self._finished = engine, threading.Event()
        self._listed = self._look()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)] + [threading.Thread(target=self._list)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._finished.is_set():
            listed_at, addresses = self._listed
            for address in addresses:
                young = time.monotonic() - listed_at < UNLISTED_SECONDS / 2
                try:
                    self.answered[str(get(address, "/work?ms=30")["replica"])] += 1
                except (OSError, AssertionError) as error:
                    if young:
                        self.failures.append(f"{address}: {error!r}")

    def _list(self) -> None:
        while not self._finished.wait(0.1):
            self._listed = self._look()

    def _look(self) -> tuple[float, list[str]]:
        return time.monotonic(), [str(item.address) for item in ready(self._engine)]


def test_scaling_one_to_three_to_one_loses_no_request(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    wait_ready(engine, 1)
    with Load(engine) as load:
        engine.grow(service(), 3)
        replicas = wait_ready(engine, 3)
        wait_for(lambda: len(load.answered) == 3, "an answer of each replica")
        engine.shrink(service(), 1, replicas[:2])
        before = load.answered["3"]
        wait_for(lambda: load.answered["3"] > before + 5, "answers of the replica that stays")
    assert load.failures == []
    assert [item.id for item in engine.replicas()] == [replicas[2].id]


def test_shrinking_stops_exactly_the_victims_and_is_idempotent(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 3})
    first, second, third = wait_ready(engine, 3)
    engine.shrink(service(), 2, [second])
    engine.shrink(service(), 2, [second])
    assert [item.id for item in engine.replicas()] == [first.id, third.id]


def test_a_victim_at_work_is_stopped_when_it_says_that_it_is_done(lab: Lab) -> None:
    engine = lab.engine(
        agents := service(drain=Drain(60.0, Health(HealthKind.HTTP, path="/tasks", json={"active": "0"})))
    )
    engine.up({"agents": 2})
    one, two = wait_ready(engine, 2)
    assert one.address
    assert two.address
    get(two.address, "/tasks?begin=1")
    with ThreadPoolExecutor(1) as pool:
        shrinking = pool.submit(engine.shrink, agents, 1, [two])
        wait_for(lambda: any(item.state is ReplicaState.DRAINING for item in engine.replicas()), "draining")
        assert wait_for(lambda: get(two.address or "", "/tasks"), "an answer while it drains") == {"active": 1}
        assert not shrinking.done()
        get(two.address, "/tasks?end=1")
        shrinking.result()
    assert [item.name for item in engine.replicas()] == [one.name]


def test_a_victim_that_never_finishes_is_stopped_at_its_limit(lab: Lab) -> None:
    engine = lab.engine(
        agents := service(drain=Drain(1.5, Health(HealthKind.HTTP, path="/tasks", json={"active": "0"})))
    )
    engine.up({"agents": 2})
    _, two = wait_ready(engine, 2)
    assert two.address
    get(two.address, "/tasks?begin=1")
    engine.shrink(agents, 1, [two])
    assert len(engine.replicas()) == 1


def test_a_victim_that_was_restarted_meanwhile_is_not_stopped(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 2})
    first, _ = wait_ready(engine, 2)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_for(lambda: first.id not in [item.id for item in engine.replicas()], "another process in its place")
    with pytest.raises(ActionError, match="no longer there"):
        engine.shrink(service(), 1, [first])
    assert len(wait_ready(engine, 2)) == 2


def test_counts_beyond_the_plan_s_bounds_are_refused(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    with pytest.raises(ActionError, match="within 0 and 6"):
        engine.grow(service(), 7)


def test_a_killed_replica_is_started_again_at_the_same_address(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    [before] = wait_ready(engine, 1)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: [item for item in ready(engine) if item.id != before.id], "a new process")
    [after] = ready(engine)
    assert (after.address, after.restarts) == (before.address, 1)


def test_a_crash_loop_backs_off_and_ends_with_its_reason(lab: Lab) -> None:
    engine = lab.engine(service("agents", "crash"))
    engine.up({"agents": 1})
    [replica] = wait_for(
        lambda: [item for item in engine.replicas() if item.reason.startswith("crash loop")], "the crash loop"
    )
    assert replica.state is ReplicaState.UNHEALTHY
    assert replica.pid is None
    assert "exited with 3, 5 times" in replica.reason
    delays = [line.rpartition("again in ")[2] for line in lab.log("supervisor").splitlines() if "again in" in line]
    assert delays == ["0.25 s", "0.5 s", "1 s", "2 s"]
    assert lab.log("agents-1").count("cannot go on") == 5


def test_up_gives_a_crash_loop_another_try_and_scale_does_not(lab: Lab) -> None:
    flag = lab.base_dir / "works"
    command = ("/bin/sh", "-c", f'test -e {flag} && exec "$0" "$@"; exit 3', *service().command)
    agents = service(command=command)
    engine = lab.engine(agents)
    engine.up({"agents": 1})
    wait_for(lambda: "crash loop" in engine.replicas()[0].reason, "the crash loop")
    flag.touch()
    engine.grow(agents, 1)
    assert "crash loop" in engine.replicas()[0].reason
    engine.up({"agents": 1})
    wait_ready(engine, 1)


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace_period(lab: Lab) -> None:
    agents = service("agents", "ignore-term", stop_grace_seconds=0.3)
    engine = lab.engine(agents)
    engine.up({"agents": 1})
    [replica] = wait_ready(engine, 1)
    assert replica.pid is not None
    engine.shrink(agents, 0, [replica])
    assert is_gone(replica.pid)
    assert "SIGTERM" in lab.log("agents-1")


def test_nothing_outlives_a_supervisor_that_was_killed(lab: Lab) -> None:
    engine = lab.engine(service("agents", "orphan", stop_grace_seconds=0.5))
    engine.up({"agents": 2})
    pids = [item.pid for item in wait_ready(engine, 2) if item.pid] + [
        daemon_pid(lab, "agents-1"),
        daemon_pid(lab, "agents-2"),
    ]
    assert not any(is_gone(pid) for pid in pids)
    os.kill(supervisor_pid(lab), signal.SIGKILL)
    wait_gone(pids)


def test_up_after_a_killed_supervisor_waits_for_its_replicas_and_replaces_its_socket(lab: Lab) -> None:
    engine = lab.engine(service("agents", "ignore-term", stop_grace_seconds=0.5))
    engine.up({"agents": 1})
    [before] = wait_ready(engine, 1)
    assert before.pid is not None
    killed = supervisor_pid(lab)
    os.kill(killed, signal.SIGKILL)
    wait_gone([killed])
    assert lab.layout.socket.exists()
    with pytest.raises(UnavailableError, match="the supervisor is gone"):
        engine.replicas()
    engine.up({"agents": 1})
    assert is_gone(before.pid, before.id)
    wait_ready(engine, 1)


def test_a_killed_shim_takes_its_replica_and_daemons_with_it(lab: Lab) -> None:
    engine = lab.engine(service("agents", "orphan"))
    engine.up({"agents": 1})
    [before] = wait_ready(engine, 1)
    assert before.pid is not None
    daemon = daemon_pid(lab)
    os.kill(int(Path(f"/proc/{before.pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    wait_gone([before.pid, daemon])
    wait_for(lambda: [item for item in ready(engine) if item.id != before.id], "a new process")


def test_a_replica_whose_main_process_ended_is_unhealthy_while_its_children_are_stopped(lab: Lab) -> None:
    engine = lab.engine(service("agents", "orphan", stop_grace_seconds=3.0))
    engine.up({"agents": 1})
    [before] = wait_ready(engine, 1)
    assert before.pid is not None
    daemon = daemon_pid(lab)
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: "its main process ended" in engine.replicas()[0].reason, "the verdict")
    wait_gone([daemon])
    wait_for(lambda: [item for item in ready(engine) if item.id != before.id], "a new process")


def test_down_leaves_no_process_and_is_idempotent(lab: Lab) -> None:
    engine = lab.engine(service("coordinator", "orphan", stop_grace_seconds=0.5), service())
    engine.up({"coordinator": 1, "agents": 2})
    wait_ready(engine, 2)
    wait_ready(engine, 1, "coordinator")
    pids = [item.pid for item in engine.replicas() if item.pid] + [
        supervisor_pid(lab),
        daemon_pid(lab, "coordinator-1"),
    ]
    engine.down(volumes=False)
    assert all(is_gone(pid) for pid in pids)
    assert not lab.layout.socket.exists()
    engine.down(volumes=False)
    log = lab.log("supervisor")
    assert log.index("agents-1 stopped") < log.index("coordinator-1 stopped")


def test_down_ends_a_deployment_that_is_still_starting(lab: Lab) -> None:
    never_ready = service(health=Health(HealthKind.HTTP, path="/no-such-json", json={"status": "ok"}))
    engine = lab.engine(never_ready)
    engine.up({"agents": 2})
    pids = [item.pid for item in engine.replicas() if item.pid]
    engine.down(volumes=False)
    assert all(is_gone(pid) for pid in pids)


def test_a_second_supervisor_for_the_same_state_is_refused_naming_the_first(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    with pytest.raises(LockedError, match=f"pid {supervisor_pid(lab)}"):
        engine.supervise({"agents": 1}, lambda _text: None)
    assert len(wait_ready(engine, 1)) == 1


def test_without_a_supervisor_there_is_no_verdict(lab: Lab) -> None:
    with pytest.raises(UnavailableError, match="no supervisor is running"):
        lab.engine(service()).replicas()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"command": ("no-such-command-here",)}, UnavailableError, "services.agents.command: 'no-such-command-here'"),
        ({"command": ("./missing.sh",)}, UnavailableError, "services.agents.command: './missing.sh'"),
        ({"command": ()}, InputError, "give services.agents.command for --engine process"),
    ],
)
def test_a_missing_command_is_refused_before_anything_starts(
    lab: Lab, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    engine = lab.engine(service("coordinator"), service(**changes))
    with pytest.raises(error, match=words):
        engine.up({"coordinator": 1, "agents": 1})
    assert not lab.layout.state.exists()


def test_a_replica_that_turns_unhealthy_leaves_ready_and_comes_back(lab: Lab) -> None:
    engine = lab.engine(
        service(
            health=Health(
                HealthKind.TCP, interval_seconds=0.2, timeout_seconds=0.2, start_period_seconds=5, rise=1, fall=2
            )
        )
    )
    engine.up({"agents": 1})
    [replica] = wait_ready(engine, 1)
    assert replica.pid is not None
    os.kill(replica.pid, signal.SIGSTOP)
    wait_for(lambda: engine.replicas()[0].state is ReplicaState.PAUSED, "a paused replica")
    os.kill(replica.pid, signal.SIGCONT)
    assert wait_ready(engine, 1)[0].id == replica.id


def test_an_unanswered_health_check_makes_unhealthy_with_a_reason(lab: Lab) -> None:
    health = Health(
        HealthKind.HTTP,
        path="/work?ms=5000",
        interval_seconds=0.2,
        timeout_seconds=0.1,
        start_period_seconds=3,  # nobody listens yet while it starts
        rise=1,
        fall=2,
    )
    engine = lab.engine(service(health=health))
    engine.up({"agents": 1})

    def unanswered() -> bool:
        """On a busy machine its port may be closed for longer than the start period: that is another reason."""
        [replica] = engine.replicas()
        return (replica.state, replica.reason) == (ReplicaState.UNHEALTHY, "no answer within 0.1 s")

    wait_for(unanswered, "an unhealthy replica")


def test_usage_is_warming_first_and_leaves_out_what_is_gone(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 2})
    first, second = wait_ready(engine, 2)
    warming = engine.usage([first, second])
    assert [(item.quality, item.cpu_cores) for item in warming] == [(Quality.WARMING, None)] * 2
    assert all(item.memory_bytes and item.memory_bytes > 1 << 20 for item in warming)
    assert (warming[0].cpu_limit_cores, warming[0].memory_limit_bytes) == (1.0, 128 << 20)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_gone([first.pid])
    found = wait_for(
        lambda: [item for item in engine.usage([first, second]) if item.cpu_cores is not None], "a second reading"
    )
    assert [item.replica for item in found] == [second.id]
    assert found[0].quality is Quality.APPROX


def test_cpu_counts_children_that_ended_in_a_fork_storm(lab: Lab) -> None:
    engine = lab.engine(service("agents", "storm"))
    engine.up({"agents": 1})
    [replica] = wait_ready(engine, 1)
    assert replica.address is not None
    # what the worker says of itself before and after each of our readings brackets what we may find
    early = get(replica.address, "/cpu")["cpu"]
    engine.usage([replica])
    late = get(replica.address, "/cpu")
    wait_for(lambda: get(str(replica.address), "/cpu")["cpu"] > late["cpu"] + 1.0, "a second of CPU")
    least = get(replica.address, "/cpu")
    [usage] = engine.usage([replica])
    most = get(replica.address, "/cpu")["cpu"] - early
    assert least["reaped"] - late["reaped"] > 0.5 * most
    assert usage.cpu_cores is not None
    assert 0.95 * (least["cpu"] - late["cpu"]) <= usage.cpu_cores * usage.window_seconds <= 1.05 * most


def test_a_malformed_request_is_answered_and_harms_nobody(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    for line in (
        b"{",
        b"[]",
        b'{"do": "fly"}',
        b'{"do": "scale", "service": "agents", "count": "two"}',
        b"\xff\xfe",
        b'{"do": "status", "x": 1}',
    ):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(lab.layout.socket))
            client.sendall(line + b"\n")
            assert json.loads(client.makefile("rb").readline())["error"].startswith("not a request")
    wait_ready(engine, 1)


def test_a_client_that_says_nothing_holds_up_no_other(lab: Lab) -> None:
    engine = lab.engine(service())
    engine.up({"agents": 1})
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as half:
        for client in (silent, half):
            client.settimeout(10)
            client.connect(str(lab.layout.socket))
        half.sendall(b'{"do": "sta')
        errors = list[Exception]()

        def poll() -> None:
            try:
                for _ in range(20):
                    ask(lab.layout.socket, Ping())
            except UnavailableError as error:
                errors.append(error)

        threads = [threading.Thread(target=poll) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert half.recv(1) == b""


def test_a_state_directory_too_long_for_a_socket_works_too(tmp_path: Path) -> None:
    lab = Lab(tmp_path / ("x" * 100))
    lab.base_dir.mkdir()
    try:
        engine = lab.engine(service())
        engine.up({"agents": 1})
        wait_ready(engine, 1)
        assert lab.layout.socket.parent != lab.layout.state
        assert mode(lab.layout.socket.parent) == 0o700
    finally:
        lab.close()
        lab.layout.sockets.rmdir()


def test_notes_say_where_to_connect_without_a_balancer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lab.base_dir))
    balancer, queue = service("loadbalancer", command=(), routes=("/",)), service("queue", command=())
    engine = lab.engine(balancer, queue, service(routes=("/",)))
    engine.up({"loadbalancer": 1, "queue": 1, "agents": 1})
    [replica] = wait_ready(engine, 1)
    notes = " | ".join(engine.notes)
    assert "no haproxy on the PATH" in notes
    assert "no valkey-server or redis-server on the PATH" in notes
    assert f"connect to the agents directly: {replica.address}" in notes
    assert {item.service for item in engine.replicas()} == {"agents"}


def test_secrets_of_the_environment_are_in_no_log(lab: Lab) -> None:
    engine = lab.engine(service(env={"TOKEN": "canary-4711"}))
    engine.up({"agents": 1})
    [replica] = wait_ready(engine, 1)
    assert b"canary-4711" not in Path(f"/proc/{replica.pid}/cmdline").read_bytes()
    assert "canary-4711" not in lab.log("supervisor") + lab.log("agents-1")
    assert sys.executable in Path(f"/proc/{replica.pid}/cmdline").read_text()
