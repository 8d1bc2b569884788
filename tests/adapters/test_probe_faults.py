"""The faults that a prober must survive, each by its number: none of them may become a false alarm or a false all-clear."""

import asyncio
import errno
import gzip
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from cfscale.adapters.probes.ask import ask
from cfscale.adapters.probes.network import Network, Wire
from cfscale.adapters.probes.url import parse_target, parse_targets
from cfscale.core.health import Attempt, State, Target
from cfscale.errors import InputError
from cfscale.runtime.probing import Round, Survey
from tests.adapters.test_probes import (
    JUDGING,
    Serve,
    answered,
    asked,
    closed_port,
    drip,
    endless_body,
    endless_headers,
    flood_of_interim_answers,
    full_backlog,
    http,
    http_answer,
    saying,
    url,
    wanting,
)
from tests.conftest import ROOT


class Real:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        time.sleep(max(0.0, seconds))
        return False


def surveyed(targets: list[Target], network: type[Network] = Network) -> Round:
    async def main() -> Round:
        return await Survey(partial(ask, network=network(JUDGING)), Real(), JUDGING, confirm_seconds=0.01).round(
            targets
        )

    return asyncio.run(main())


class Unreachable(Network):
    """No way to any address but loopback, unless it is 203.0.113.7, which answers."""

    direct, answering = False, False

    async def connect(self, wire: Wire, _target: Target, addresses: list[str]) -> None:
        if self.answering and addresses == ["203.0.113.7"]:
            wire.marks.connected = time.monotonic()
            raise ConnectionResetError(errno.ECONNRESET, "x")
        raise OSError(errno.ENETUNREACH, "x")


class PartlyUnreachable(Unreachable):
    answering = True


def test_fault_16_refused_is_down_and_no_network_at_all_is_unknown() -> None:
    with closed_port() as port:
        assert asked(http(port)).reason == "connection refused"
    everywhere = surveyed([url(f"http://203.0.113.{n}/") for n in range(1, 4)], Unreachable)
    assert everywhere.report.summary.unknown == 3

    somewhere = surveyed([url(f"http://203.0.113.{n}/") for n in (1, 2, 7)], PartlyUnreachable)
    assert somewhere.report.summary.down == 3
    assert somewhere.report.results[0].reason == "network is unreachable"


def test_fault_17_a_black_hole_is_down_at_the_deadline() -> None:
    with full_backlog() as port:
        attempt = asked(url(f"http://127.0.0.1:{port}/", 0.3))

    assert (attempt.state, attempt.reason) == (State.DOWN, "no connection within 0.3 s")
    assert attempt.latency_seconds is not None
    assert attempt.latency_seconds >= 0.3


def test_fault_18_an_answer_that_drips_is_down_at_the_deadline() -> None:
    attempt = answered(drip, lambda port: url(f"http://127.0.0.1:{port}/", 0.3))

    assert (attempt.state, attempt.reason) == (State.DOWN, "connected, but no whole answer within 0.3 s")


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (saying(b""), "the connection was closed without an answer"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), "not an HTTP answer: SSH-2.0-OpenSSH_9.2"),
        (flood_of_interim_answers, "an answer of more than 64 KiB; the rest was not read"),
        (endless_headers, "an answer of more than 64 KiB; the rest was not read"),
    ],
    ids=["closed", "banner", "interim", "headers"],
)
def test_fault_19_whatever_is_not_http_is_down(serve: Serve, reason: str) -> None:
    attempt = answered(serve, http)

    assert (attempt.state, attempt.reason.rstrip()) == (State.DOWN, reason)


def test_fault_20_a_bomb_and_an_endless_body_cost_no_memory() -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packed = answered(saying(http_answer(bomb, headers="Content-Encoding: gzip\r\n")), wanting(status="ok"))
    endless = answered(endless_body, wanting(status="ok"))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert (packed.state, endless.state) == (State.DOWN, State.DOWN)
    assert grown < 5 * 1024  # KiB


@pytest.mark.process
def test_fault_21_ten_thousand_healthy_targets_at_once_are_all_up(tmp_path: Path) -> None:
    """In two processes, as it is in life; no matter how long it takes on this machine."""
    script = tmp_path / "server.py"
    script.write_text(
        "import asyncio, sys\n"
        "class Answer(asyncio.Protocol):\n"
        "    def connection_made(self, t): self.t = t\n"
        "    def data_received(self, d):\n"
        "        self.t.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n'); self.t.close()\n"
        "async def main():\n"
        "    s = await asyncio.get_running_loop().create_server(Answer, '0.0.0.0', 0, backlog=4096)\n"
        "    print(s.sockets[0].getsockname()[1], flush=True)\n"
        "    await s.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        targets = tmp_path / "targets.txt"
        targets.write_text(
            "".join(f"http://127.{n // 2500}.{n // 250 % 10}.{n % 250 + 1}:{port}/\n" for n in range(10_000))
        )
        argv = [sys.executable, "-m", "cfscale", "probe", "--targets", str(targets), "-o", "nagios"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
        server.terminate()

    assert (done.returncode, done.stdout.split(" | ")[0]) == (0, "PROBE OK - 10000 up"), done.stderr


def test_fault_22_a_dozen_dead_names_leave_fifty_healthy_ones_up() -> None:
    release = threading.Event()

    def lookup(host: str, _port: int) -> list[str]:
        if host.startswith("dead"):
            release.wait(10)
        return ["127.0.0.1"]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(http_answer(b""))(reader, writer)
        writer.close()

    async def main() -> Round:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dead = [url(f"http://dead-{n}.test:{port}/", 0.5) for n in range(12)]
        healthy = [url(f"http://host-{n}.test:{port}/") for n in range(50)]
        async with server:
            return await Survey(
                partial(ask, network=Network(JUDGING, lookup)), Real(), JUDGING, confirm_seconds=0.01
            ).round(dead + healthy)

    found = asyncio.run(main())
    release.set()

    assert (found.report.summary.up, found.report.summary.unknown) == (50, 12)


def test_fault_22_a_silent_name_server_does_not_hold_up_the_hosts_file(tmp_path: Path) -> None:
    from cfscale.adapters.probes.resolver import Directory, Resolver
    from cfscale.adapters.probes.wire import AnswerError

    class OwnFiles(Resolver):
        directory = Directory(servers=("127.0.0.77",), hosts=(("known.test", ("127.0.0.1",)),))

    async def main() -> tuple[list[str], list[object]]:
        resolver, deadline = OwnFiles(), time.monotonic() + 0.3
        dead = [resolver.addresses(f"dead-{n}.test", 80, deadline) for n in range(300)]
        waiting = asyncio.gather(*dead, return_exceptions=True)
        known = await resolver.addresses("known.test", 80, deadline)
        return known, list(await waiting)

    known, dead = asyncio.run(main())

    assert known == ["127.0.0.1"]
    assert all(isinstance(problem, Exception) and not isinstance(problem, AnswerError) for problem in dead)


def test_fault_23_proxies_and_netrc_of_the_environment_are_ignored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password sesame\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_answer(b""))

    assert answered(serve, http).state is State.UP
    assert b"authorization" not in seen[0].lower()


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest", "file:///etc/passwd", "http://elsewhere.test/"])
def test_fault_24_a_redirect_is_not_followed(location: str) -> None:
    attempt = answered(saying(http_answer(b"", "302 Found", f"Location: {location}\r\n")), http)

    assert (attempt.state, attempt.reason) == (State.DOWN, "HTTP 302: a redirect, which is not followed")


def test_fault_26_a_target_that_flaps_changes_its_verdict_rarely_and_is_called_flaky() -> None:
    from cfscale.core.health import Track, advance, result

    target, track, states = url("http://127.0.0.1/"), Track(), []
    for number in range(60):
        answer = State.DOWN if number % 2 else State.UP
        track = advance(track, Attempt(answer, answer.value, 0.01), target.health)
        states.append(track.settled)
    found = result(target, track, 0.0, JUDGING)

    assert sum(after is not before for before, after in pairwise(states)) <= 1
    assert (found.state, found.flaky) == (State.UP, True)
    assert "flaky: 8 of the latest 16 answers were failures" in found.reason


def test_fault_27_most_of_a_group_down_at_once_is_panic_and_no_action_follows() -> None:
    from cfscale.core.samples import Replica, ReplicaState
    from cfscale.runtime.readiness import judged

    class World:
        up = True

        async def ask(self, target: Target) -> Attempt:
            down = not self.up and target.name.endswith(("0/", "1/", "2/", "3/", "4/", "5/"))
            return Attempt(State.DOWN if down else State.UP, "x", 0.01)

    async def main() -> Round:
        world = World()
        targets = [url(f"http://127.0.0.1:8{n}/") for n in range(10, 20)]
        survey = Survey(world.ask, Real(), JUDGING, confirm_seconds=0.0)
        first = await survey.round(targets)
        world.up = False
        return await survey.round(targets, first)

    found = asyncio.run(main())
    replicas = tuple(Replica(str(n), f"http://127.0.0.1:8{n}/", "urls", ReplicaState.READY, 0.0) for n in range(10, 20))

    assert found.report.summary.down == 6
    assert found.report.panic == ("urls",)
    assert judged(replicas, found) == replicas


def test_fault_28_a_blocked_event_loop_is_not_held_against_the_targets() -> None:
    async def main(port: int) -> Round:
        survey = Survey(partial(ask, network=Network(JUDGING)), Real(), JUDGING, confirm_seconds=None)
        round_ = survey.round([url(f"http://127.0.0.1:{port}/", 0.2)])
        question = asyncio.create_task(round_)
        await asyncio.sleep(0.01)
        time.sleep(0.2 + JUDGING.late_seconds + 0.3)  # what SIGSTOP does, too
        return await question

    with full_backlog() as port:
        found = asyncio.run(main(port))

    assert found.report.results[0].state is State.UNKNOWN
    assert "too busy to look" in found.report.results[0].reason


@pytest.mark.process
def test_fault_28_a_stopped_prober_does_not_wake_up_to_false_alarms(tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    stopping, port = threading.Event(), server.getsockname()[1]

    def answer() -> None:
        while not stopping.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(http_answer(b""))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    argv = [sys.executable, "-m", "cfscale", "probe", f"http://127.0.0.1:{port}/", "--watch", "--interval", "400ms"]
    try:
        with subprocess.Popen(
            [*argv, "--timeout", "200ms", "--for", "4s", "-o", "json"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as watching:
            assert watching.stdout is not None
            lines = [watching.stdout.readline()]
            os.kill(watching.pid, signal.SIGSTOP)
            time.sleep(1.5)  # the fault itself, not a way to wait for something
            os.kill(watching.pid, signal.SIGCONT)
            lines += watching.stdout.readlines()
    finally:
        stopping.set()
        server.close()

    assert lines[0]
    assert not [line for line in lines if '"state":"down"' in line]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "check"
    path.touch(0o755)
    yield path
    left = (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []
    for pid in map(int, left):
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]


def executed(path: Path, script: str, seconds: float = 5.0, options: str = "") -> Attempt:
    path.write_text(f"#!/bin/bash\n{script}\n")
    return asked(url(f"exec://{path}{options}", seconds))


@pytest.mark.process
@pytest.mark.parametrize(
    "script",
    ["sleep 60", "trap '' TERM INT HUP; sleep 60", 'sleep 60 & echo $! >> "$(dirname "$0")/pids"; sleep 60'],
    ids=["hangs", "ignores-signals", "forks"],
)
def test_fault_29_a_check_that_hangs_is_killed_with_all_it_started(program: Path, script: str) -> None:
    attempt = executed(program, f'echo $$ >> "$(dirname "$0")/pids"; {script}', 0.5)

    assert (attempt.state, attempt.reason) == (State.DOWN, "did not end within 0.5 s")


@pytest.mark.process
def test_fault_29_of_a_gigabyte_of_output_four_kib_are_kept(program: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt = executed(program, "head -c 1000000000 /dev/zero | tr '\\0' x", 60.0)

    assert attempt.state is State.UP
    assert attempt.reason.startswith("exit code 0: xxx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "plain", "nagios"),
    [(0, "up", "up"), (1, "down", "degraded"), (2, "down", "down"), (3, "down", "unknown"), (77, "down", "down")],
)
def test_exit_codes_of_a_check(program: Path, code: int, plain: str, nagios: str) -> None:
    script = f'echo "DISK OK - free space | /=2643MB"; exit {code}'

    assert executed(program, script).state.value == plain
    attempt = executed(program, script, options="?codes=nagios")
    assert (attempt.state.value, attempt.reason) == (nagios, f"exit code {code}: DISK OK - free space")


@pytest.mark.process
def test_arguments_of_a_check_are_not_read_by_a_shell(program: Path) -> None:
    attempt = executed(program, 'echo "$# $1"', options="?arg=%24%28id%29%3B%20x&arg=b")

    assert attempt.reason == "exit code 0: 2 $(id); x"


def test_a_check_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    attempt = asked(url(f"exec://{tmp_path}/none"))

    assert attempt.state is State.UNKNOWN
    assert attempt.reason.endswith("cannot be started: no such file or directory")


@pytest.mark.parametrize(
    "text",
    [
        "http://[fe80::1%25eth0]/",
        "http://h:0/",
        "http://h:99999/",
        "http://h/\rHost: x",
        "http://h/\nx",
        "http://[::1]x/",
        "http://999.1.1.1.:99999/",
    ],
)
def test_fault_30_a_wrong_url_is_refused_with_its_line(text: str) -> None:
    lines = ["# targets", "http://127.0.0.1/", text]
    with pytest.raises(InputError, match=r"^targets\.txt:3: "):
        parse_targets(lines, "targets.txt", timeout_seconds=1.0)


@pytest.mark.parametrize(
    ("text", "host"), [("http://[::1]:80/", "::1"), ("http://bücher.example/", "xn--bcher-kva.example")]
)
def test_fault_30_literals_and_international_names_are_understood(text: str, host: str) -> None:
    assert parse_target(text, timeout_seconds=1.0).host == host
