import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from cfscale.adapters.process.backoff import Backoff
from cfscale.adapters.process.health import Check, Pulse, judge_http, judge_redis
from cfscale.adapters.process.layout import Layout, cut_log, write_private
from cfscale.adapters.process.procfs import parse_stat, read_stat
from cfscale.adapters.process.protocol import Ping, Scale, ask, read_request
from cfscale.adapters.process.recipes import plan_recipes, publish_address
from cfscale.adapters.process.usage import UsageReader
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import InputError, UnavailableError
from tests.adapters.process_lab import mode, plan_of, service

STAT = "4711 (evil) (name) S 1 4711 4711 0 -1 4194560 100 200 0 0 10 5 30 7 20 0 1 0 987654 1000 50 0"


def test_a_stat_line_is_read_past_brackets_in_the_name() -> None:
    stat = parse_stat(STAT)
    assert (stat.pid, stat.state, stat.parent) == (4711, "S", 1)
    assert stat.identity == "4711@987654"


def test_a_pid_that_changed_hands_has_no_usage() -> None:
    own = read_stat(os.getpid())
    assert own is not None
    reader = UsageReader([service()], Path("/"))
    there = Replica(own.identity, "agents-1", "agents", ReplicaState.READY, 0.0, pid=own.pid)
    reused = Replica(f"{own.pid}@1", "agents-1", "agents", ReplicaState.READY, 0.0, pid=own.pid)
    assert [usage.replica for usage in reader.read([there, reused])] == [own.identity]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b'HTTP/1.1 200 OK\r\nA: b\r\n\r\n{"status": "ok", "n": 1}', (True, "HTTP 200")),
        (b'HTTP/1.1 503 No\r\n\r\n{"status": "ok"}', (False, "HTTP 503")),
        (b'HTTP/1.1 200 OK\r\n\r\n{"status": "bad"}', (False, "status is not ok")),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", (False, "the body is not a JSON object")),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", (False, "the body is not JSON")),
        (b"SSH-2.0-OpenSSH\r\n", (False, "not an HTTP answer")),
        (b"", (False, "not an HTTP answer")),
    ],
)
def test_http_verdicts(answer: bytes, verdict: tuple[bool, str]) -> None:
    assert judge_http(answer, Health(HealthKind.HTTP, json={"status": "ok"})) == verdict


@pytest.mark.parametrize(
    ("answer", "healthy"), [(b"+PONG\r\n", True), (b"-NOAUTH x\r\n", True), (b"-LOADING x\r\n", False), (b"", False)]
)
def test_redis_verdicts(answer: bytes, *, healthy: bool) -> None:
    assert judge_redis(answer)[0] is healthy


def test_an_address_that_answers_a_byte_at_a_time_is_late_as_a_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = Check(server.getsockname(), Health(HealthKind.HTTP, timeout_seconds=5), now=100.0)
        connection, _ = server.accept()
        with connection:
            check.advance()
            connection.sendall(b"H")
            check.advance()
            assert check.verdict is None
            assert check.deadline == 105.0
            check.expire()
        check.close()
    assert check.verdict == (False, "no answer within 5 s")


def test_a_refused_connection_is_a_verdict_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        check = Check(unused.getsockname(), Health(HealthKind.TCP), now=0.0)
        if check.verdict is None:
            check.advance()
        check.close()
    assert check.verdict == (False, "ECONNREFUSED")


def test_failures_while_starting_count_only_after_the_start_period() -> None:
    pulse = Pulse(Health(HealthKind.HTTP, rise=2, fall=2, start_period_seconds=30), started=0.0)
    state = ReplicaState.STARTING
    for now in (1.0, 2.0, 3.0):
        state = pulse.feel((False, "HTTP 503"), state, now)
    assert state is ReplicaState.STARTING
    assert pulse.feel((False, "HTTP 503"), state, 31.0) is ReplicaState.UNHEALTHY


def test_rise_and_fall_are_counted_in_a_row() -> None:
    pulse, state, seen = Pulse(Health(HealthKind.HTTP, rise=2, fall=2), started=0.0), ReplicaState.STARTING, []
    for good in (True, False, True, True, False, True, False, False, True, True):
        state = pulse.feel((good, ""), state, 60.0)
        seen.append(state.value[0])
    assert "".join(seen) == "sssrrrruur"


def test_a_state_in_doubt_is_asked_again_soon() -> None:
    pulse = Pulse(Health(HealthKind.HTTP, interval_seconds=10), started=0.0)
    assert pulse.interval(ReplicaState.STARTING) == 0.2
    assert pulse.interval(ReplicaState.READY) == 10
    pulse.feel((False, ""), ReplicaState.READY, 60.0)
    assert pulse.interval(ReplicaState.READY) == 1.0


def test_quick_exits_in_a_row_double_the_delay_until_they_are_a_crash_loop() -> None:
    backoff = Backoff()
    assert [backoff.after(9.9) for _ in range(5)] == [0.25, 0.5, 1.0, 2.0, None]


def test_a_process_that_lasted_is_no_crash_loop_however_often_it_ends() -> None:
    backoff = Backoff()
    assert [backoff.after(lived) for lived in (1, 1, 1, 10, 10, 10, 1)] == [0.25, 0.5, 1.0, 0.25, 0.25, 0.25, 0.5]


def test_requests_are_read_strictly() -> None:
    assert read_request(b'{"do": "scale", "service": "agents", "count": 2}') == Scale("agents", 2)
    with pytest.raises(ValueError, match="not a request"):
        read_request(b'{"do": "scale", "service": "agents", "count": 2, "force": true}')


def test_a_supervisor_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfscale.adapters.process.protocol.REQUEST_SECONDS", 0.1)
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(UnavailableError, match="did not answer within"):
            ask(path, Ping())


def test_an_answer_that_drips_is_late_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfscale.adapters.process.protocol.REQUEST_SECONDS", 0.2)
    path, stop = tmp_path / "s.sock", threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def drip() -> None:
            client, _ = server.accept()
            with client:
                while not stop.wait(0.02):
                    try:
                        client.send(b" ")
                    except OSError:
                        return

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(UnavailableError, match="did not answer within"):
            ask(path, Ping())
        stop.set()
        dripping.join()


def test_a_foreign_directory_in_the_place_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnavailableError, match="not a directory of this user"):
        Layout(tmp_path / "state").create()


def test_a_state_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be used"):
        Layout(tmp_path / "file" / "state").create()


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old and open")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(), mode(path), [item.name for item in tmp_path.iterdir()]) == ("new", 0o600, ["file"])


def test_a_log_is_cut_at_ten_megabytes_and_its_last_part_kept(tmp_path: Path) -> None:
    log = tmp_path / "agents-1.log"
    log.write_bytes(b"x" * (10 << 20))
    cut_log(log)
    assert log.stat().st_size == 10 << 20
    with log.open("ab") as file:
        file.write(b"y")
        file.flush()
        cut_log(log)
        file.write(b"after")
    assert log.read_bytes() == b"after"
    assert (tmp_path / "agents-1.log.1").stat().st_size == (10 << 20) + 1
    assert mode(tmp_path / "agents-1.log.1") == 0o600


@pytest.mark.parametrize("publish", ["8080", "host:0", "host:99999", "a b:80", "x:80\n    bind *:1"])
def test_a_publish_address_that_is_none_is_refused(publish: str) -> None:
    with pytest.raises(InputError, match=r"services\.loadbalancer\.publish"):
        publish_address(service("loadbalancer", publish=publish))


def test_the_first_port_of_a_range_is_published() -> None:
    assert publish_address(service("loadbalancer", publish="127.0.0.1:8080-8082")) == ("127.0.0.1", 8080)


def test_plans_that_differ_in_size_only_run_the_same_processes(tmp_path: Path) -> None:
    def fingerprint(**changes: Any) -> str:
        return plan_recipes(plan_of(service(**changes)), Layout(tmp_path), tmp_path).fingerprint

    assert fingerprint() == fingerprint(replicas=4, cpu_limit_millicores=2000, rules=("a",))
    assert fingerprint() != fingerprint(env={"A": "1"})


def test_limits_that_are_not_enforced_are_noted(tmp_path: Path) -> None:
    notes = plan_recipes(plan_of(service()), Layout(tmp_path), tmp_path).notes
    assert any("not enforced" in note for note in notes)
