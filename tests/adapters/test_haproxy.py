import http.server
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from cfscale.adapters.haproxy import HaproxyBalancer, runtime_api_argv, unix_socket
from cfscale.errors import UnavailableError
from tests.ports import free_port

STATE_HEADER = "# srv_name be_name srv_port srv_addr srv_extra srv_admin_state srv_uweight"
STAT_HEADER = "# pxname,svname,scur,extra,qcur,"


class FakeHaproxy:
    """Slots by name: address, administrative bits, queued and current sessions. Columns in an order of its own."""

    def __init__(self, **slots: tuple[str, int, int, int]) -> None:
        self.slots = {name.replace("__", "/"): list(slot) for name, slot in slots.items()}
        self.healthy = dict.fromkeys(self.slots, True)
        self.weights = dict.fromkeys(self.slots, 100)
        self.lines: list[str] = []

    def __call__(self, line: str) -> str:
        self.lines.append(line)
        return "".join(self._answer(command.strip()) for command in line.split(";")) + "\n"

    def _answer(self, command: str) -> str:
        if command == "show servers state":
            rows = [
                f"{n.split('/')[1]} {n.split('/')[0]} {a.split(':')[1]} {a.split(':')[0]} - {s} {self.weights[n]}"
                for n, a, s in self._all()
            ]
            return "\n".join(["1", STATE_HEADER, *rows, ""])
        if command == "show stat -1 2 -1":
            up = {name.split("/")[0] for name in self.slots if self.healthy[name]}
            backends = {name.split("/")[0] for name in self.slots}
            rows = [f"{name},BACKEND,{'UP' if name in up else 'DOWN'}," for name in sorted(backends)]
            return "\n".join(["# pxname,svname,status,", *rows, ""])
        if command.startswith("show stat"):
            rows = [f"{n.replace('/', ',')},{slot[3]},x,{slot[2]}," for n, slot in self.slots.items()]
            return "\n".join([STAT_HEADER, *rows, ""])
        match = re.fullmatch(r"set server (\S+) (state|health|weight) (\S+)", command)
        if match is None or match[1] not in self.slots:
            return "No such server.\n"
        if match[2] == "health":
            self.healthy[match[1]] = match[3] == "up"
        elif match[2] == "weight":
            self.weights[match[1]] = int(match[3])
        else:
            state = int(str(self.slots[match[1]][1])) & ~0x09
            self.slots[match[1]][1] = state | {"maint": 1, "drain": 8, "ready": 0}[match[3]]
        return "\n"

    def _all(self) -> list[tuple[str, str, int]]:
        return [(name, str(slot[0]), int(str(slot[1]))) for name, slot in self.slots.items()]

    def state(self, name: str) -> int:
        return int(str(self.slots[name][1]))


def balancer(*haproxies: Callable[[str], str]) -> HaproxyBalancer:
    return HaproxyBalancer(lambda: haproxies)


def test_an_address_is_taken_out_of_every_backend_of_every_balancer() -> None:
    one = FakeHaproxy(agents__a1=("10.0.0.1:80", 0, 0, 0), agents__a2=("10.0.0.2:80", 0, 0, 0))
    two = FakeHaproxy(all__s1=("10.0.0.9:80", 0, 0, 0), all__s2=("10.0.0.1:80", 0, 0, 0), b__1=("10.0.0.1:80", 0, 0, 0))
    balancer(one, two).drain(["10.0.0.1:80"])
    assert [one.state(name) for name in one.slots] == [1, 0]
    assert [two.state(name) for name in two.slots] == [0, 1, 1]


def test_an_address_with_another_port_is_another_server() -> None:
    haproxy = FakeHaproxy(agents__a1=("10.0.0.1:81", 0, 0, 0))
    balancer(haproxy).drain(["10.0.0.1:80"])
    assert haproxy.state("agents/a1") == 0


def test_sessions_are_those_in_work_and_those_queued_of_all_balancers() -> None:
    one = FakeHaproxy(agents__a1=("10.0.0.1:80", 1, 2, 3), agents__a2=("10.0.0.2:80", 0, 50, 60))
    two = FakeHaproxy(agents__a1=("10.0.0.1:80", 1, 0, 1))
    assert balancer(one, two).sessions(["10.0.0.1:80"]) == 6
    assert balancer(one, two).sessions([]) == 0


def test_a_slot_given_back_has_to_pass_its_health_check_first() -> None:
    haproxy = FakeHaproxy(agents__a1=("10.0.0.1:80", 1, 0, 0))
    balancer(haproxy).ready(["10.0.0.1:80"])
    assert (haproxy.state("agents/a1"), haproxy.healthy["agents/a1"]) == (0, False)


def test_a_slot_that_lost_its_address_while_taken_out_is_given_back_too() -> None:
    haproxy = FakeHaproxy(agents__a1=("10.0.0.1:80", 0x21, 0, 0), agents__a2=("10.0.0.1:80", 0x28, 0, 0))
    balancer(haproxy).ready(["10.0.0.7:80"])
    assert [haproxy.state(name) for name in haproxy.slots] == [0x20, 0x20]


def test_what_somebody_else_took_out_and_slots_in_use_are_left_alone() -> None:
    haproxy = FakeHaproxy(agents__a1=("10.0.0.1:80", 1, 0, 0), agents__a2=("10.0.0.2:80", 0, 0, 0))
    balancer(haproxy).ready(["10.0.0.2:80"])
    assert (haproxy.state("agents/a1"), haproxy.healthy["agents/a2"]) == (1, True)


def test_many_slots_are_ordered_in_few_commands() -> None:
    slots = {f"agents__a{n}": (f"10.0.0.{n}:80", 0, 0, 0) for n in range(100)}
    haproxy = FakeHaproxy(**slots)
    balancer(haproxy).drain([f"10.0.0.{n}:80" for n in range(100)])
    assert all(haproxy.state(name) == 1 for name in haproxy.slots)
    assert len(haproxy.lines) < 6


def test_only_backends_for_requests_that_start_agents_are_weighed_and_only_what_differs_is_said() -> None:
    haproxy = FakeHaproxy(**{
        "agents__a1": ("10.0.0.1:80", 0, 0, 0),
        "agents.spawn__a1": ("10.0.0.1:80", 0, 0, 0),
        "agents.spawn__a2": ("10.0.0.2:80", 0, 0, 0),
        "agents.spawn__a3": ("10.0.0.1:80", 0x20, 0, 0),
    })  # fmt: skip
    balancer(haproxy).weigh({"10.0.0.1:80": 40, "10.0.0.2:80": 100, "10.0.0.9:80": 7})

    assert haproxy.weights == {"agents/a1": 100, "agents.spawn/a1": 40, "agents.spawn/a2": 100, "agents.spawn/a3": 100}
    assert haproxy.lines == ["show servers state", "set server agents.spawn/a1 weight 40"]


def test_a_backend_is_idle_where_one_of_the_balancers_has_no_healthy_server_for_it() -> None:
    slots = dict.fromkeys(("agents__a1", "agents.task__a1", "queue__q"), ("10.0.0.1:80", 0, 0, 0))
    first, second = FakeHaproxy(**slots), FakeHaproxy(**slots)
    assert balancer(first, second).idle(["agents"]) == ()

    second.healthy["agents.task/a1"] = first.healthy["queue/q"] = False

    assert balancer(first, second).idle(["agents", "coordinator"]) == ("agents.task",)


def test_a_balancer_out_of_reach_is_said_and_the_others_are_told_all_the_same() -> None:
    def dead(_: str) -> str:
        raise UnavailableError("it is gone")

    alive = FakeHaproxy(agents__a1=("10.0.0.1:80", 0, 0, 0))
    with pytest.raises(UnavailableError, match="1 of 2 load balancers out of reach: it is gone"):
        balancer(dead, alive).drain(["10.0.0.1:80"])
    assert alive.state("agents/a1") == 1


def test_without_any_balancer_nothing_can_be_drained() -> None:
    with pytest.raises(UnavailableError, match="no load balancer runs"):
        balancer().sessions([])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("", "not understood"),
        ("Unknown command", "not understood: 'Unknown command'"),
        ("1\n# be_name srv_name srv_addr srv_port\n", "no column srv_admin_state"),
    ],
)
def test_an_answer_that_is_no_table_is_no_state(answer: str, message: str) -> None:
    with pytest.raises(UnavailableError, match=message):
        balancer(lambda _: answer).drain(["10.0.0.1:80"])


def test_a_refused_command_is_not_taken_for_done() -> None:
    haproxy = FakeHaproxy(agents__a1=("10.0.0.1:80", 0, 0, 0))

    def send(line: str) -> str:
        return haproxy(line) if line.startswith("show") else "Permission denied\n"

    with pytest.raises(UnavailableError, match="refused a command: Permission denied"):
        balancer(send).drain(["10.0.0.1:80"])


def test_a_socket_without_haproxy_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="HAProxy does not answer"):
        unix_socket(str(tmp_path / "none.sock"))("show info")


def test_the_command_for_a_container_takes_the_api_line_as_an_argument() -> None:
    argv = runtime_api_argv("show info; $(reboot)")
    assert argv[-1] == "show info; $(reboot)"
    assert "reboot" not in argv[2]


# --- a real HAProxy

CONFIG = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
frontend public
    bind 127.0.0.1:{port}
    default_backend agents
backend agents
    balance roundrobin
    stick-table type string len 32 size 1k
    stick match req.hdr(X-Session)
    stick store-response res.hdr(X-Session)
    default-server check inter 100ms rise 2 fall 2
    server a1 127.0.0.1:{first}
    server a2 127.0.0.1:{second}
backend others
    server o1 127.0.0.1:{second} check inter 100ms
"""


class Worker(http.server.ThreadingHTTPServer):
    """Answers with its own port; ``/slow`` waits until told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked, self.go_on = threading.Event(), threading.Event()


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Worker

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.asked.set()
            self.server.go_on.wait(10)
        body = str(self.server.server_port).encode()
        self.send_response(200)
        self.send_header("X-Session", body.decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def workers() -> Iterator[tuple[Worker, Worker]]:
    both = Worker(), Worker()
    threads = [threading.Thread(target=worker.serve_forever, args=(0.05,)) for worker in both]
    for thread in threads:
        thread.start()
    yield both
    for worker, thread in zip(both, threads, strict=True):
        worker.go_on.set()
        worker.shutdown()
        thread.join()
        worker.server_close()


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.process
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on the PATH")
def test_a_real_haproxy_finishes_what_is_in_flight_and_sends_nothing_new(
    tmp_path: Path, workers: tuple[Worker, Worker]
) -> None:
    stays, goes = workers
    path, port = tmp_path / "s.sock", free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(socket=path, port=port, first=stays.server_port, second=goes.server_port))
    address = f"127.0.0.1:{goes.server_port}"
    balancer = HaproxyBalancer(lambda: [unix_socket(str(path))])

    def ask(where: str = "/") -> str:
        request = Request(f"http://127.0.0.1:{port}{where}", headers={"X-Session": str(goes.server_port)})
        with urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    with subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.DEVNULL) as haproxy:
        try:
            eventually(path.exists)
            eventually(lambda: ask() == str(goes.server_port))  # the session sticks from here on
            answers: list[str] = []
            slow = threading.Thread(target=lambda: answers.append(ask("/slow")))
            slow.start()
            assert goes.asked.wait(10)
            balancer.drain([address])
            assert balancer.sessions([address]) == 1
            assert {ask() for _ in range(6)} == {str(stays.server_port)}
            goes.go_on.set()
            slow.join()
            assert answers == [str(goes.server_port)]
            eventually(lambda: balancer.sessions([address]) == 0)
            balancer.ready([address])
            eventually(lambda: ask() in (str(goes.server_port), str(stays.server_port)))
            eventually(lambda: f"{goes.server_port}" in {plain(port) for _ in range(4)})
        finally:
            haproxy.terminate()


def plain(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.process
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on the PATH")
def test_a_real_haproxy_is_idle_until_a_server_has_passed_its_check(tmp_path: Path) -> None:
    path, port, later = tmp_path / "s.sock", free_port(), free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(socket=path, port=port, first=later, second=later))
    real = HaproxyBalancer(lambda: [unix_socket(str(path))])

    with subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.DEVNULL) as haproxy:
        try:
            eventually(path.exists)
            eventually(lambda: real.idle(["agents"]) == ("agents",))
            with http.server.ThreadingHTTPServer(("127.0.0.1", later), Answering) as worker:
                serving = threading.Thread(target=worker.serve_forever, args=(0.05,))
                serving.start()
                eventually(lambda: real.idle(["agents"]) == ())
                worker.shutdown()
                serving.join()
        finally:
            haproxy.terminate()
