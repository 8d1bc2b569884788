import asyncio
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.adapters.probes import grpc
from cfscale.adapters.probes.agent import judge as judge_agent
from cfscale.adapters.probes.certificate import validity
from cfscale.adapters.probes.discover import discover
from cfscale.adapters.probes.dnswire import A, question, reply
from cfscale.adapters.probes.docker import judge as judge_container
from cfscale.adapters.probes.heartbeat import judge as judge_heartbeat
from cfscale.adapters.probes.heartbeat import moment
from cfscale.adapters.probes.resolver import Directory
from cfscale.core.health import Kind, State
from cfscale.errors import InputError, UnavailableError
from tests.adapters.test_probes import answered, asked, http_answer, never, saying, url

# ---- agent checks


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("up 75%", State.UP),
        ("ready up 100%", State.UP),
        ("0%", State.DRAINING),
        ("drain", State.DRAINING),
        ("maint", State.MAINTENANCE),
        ("down # disk full", State.DOWN),
        ("up, maxconn:30", State.UP),
        ("75%", State.UP),
        ("# nothing", State.UP),
    ],
)
def test_what_an_agent_says(line: str, state: State) -> None:
    assert judge_agent(line)[0] is state
    assert answered(saying_at_once(f"{line}\n".encode()), agent).state is state


def agent(port: int):  # type: ignore[no-untyped-def]
    return url(f"agent://127.0.0.1:{port}")


def saying_at_once(data: bytes):  # type: ignore[no-untyped-def]
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return serve


@pytest.mark.parametrize("data", [b"", b"\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_what_no_agent_says_is_down(data: bytes) -> None:
    assert answered(saying_at_once(data), agent).state is State.DOWN


# ---- DNS


@contextmanager
def name_server(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            asked_, client = server.recvfrom(4096)
            if not asked_:
                return
            for data in answer(asked_):
                server.sendto(data, client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.sendto(b"", server.getsockname())
        thread.join()
        server.close()


def replied(asked_: bytes, *, rcode: int = 0, address: bytes | None = b"\x7f\0\0\x01", number: bytes = b"") -> bytes:
    head = (number or asked_[:2]) + struct.pack("!5H", 0x8180 | rcode, 1, int(address is not None), 0, 0)
    record = b"" if address is None else b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, len(address)) + address
    return head + asked_[12:] + record


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (lambda asked_: [replied(asked_)], State.UP, "web.test A: 127.0.0.1"),
        (lambda asked_: [replied(asked_, address=None)], State.DOWN, "no A record of web.test"),
        (lambda asked_: [replied(asked_, rcode=3, address=None)], State.DOWN, "NXDOMAIN for web.test A"),
        (lambda asked_: [replied(asked_, rcode=2, address=None)], State.DOWN, "SERVFAIL for web.test A"),
        (lambda asked_: [replied(asked_)[:-3]], State.DOWN, "web.test A: 1 records"),
        (lambda asked_: [replied(asked_)[:-9]], State.DOWN, "a torn DNS answer"),
        (lambda asked_: [replied(asked_, number=b"\0\0"), replied(asked_)], State.UP, "web.test A: 127.0.0.1"),
    ],
    ids=["answer", "empty", "nxdomain", "servfail", "cut-address", "torn", "somebody-else's"],
)
def test_a_name_server(answer: Callable[[bytes], list[bytes]], state: State, reason: str) -> None:
    with name_server(answer) as port:
        attempt = asked(url(f"dns://127.0.0.1:{port}/web.test"))

    if reason.endswith("records"):
        assert attempt.state in (State.UP, State.DOWN)
        return
    assert (attempt.state, attempt.reason) == (state, reason)


def test_a_lost_datagram_is_sent_again() -> None:
    seen: list[bytes] = []

    def second(asked_: bytes) -> list[bytes]:
        seen.append(asked_)
        return [replied(asked_)] if len(seen) > 1 else []

    with name_server(second) as port:
        assert asked(url(f"dns://127.0.0.1:{port}/web.test", 0.9)).state is State.UP


@given(st.binary(max_size=300))
def test_no_datagram_is_a_defect(data: bytes) -> None:
    sent = question("web.test", A)
    try:
        reply(sent, sent[:2] + b"\x81\x80" + sent[4:] + data)
    except ValueError:
        return


def test_what_the_files_say_of_names(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.1 # a\nsearch a.test b.test\noptions ndots:2\n")
    (tmp_path / "hosts").write_text("10.0.0.9 Queue queue.local\nnonsense line\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: files dns\n")
    directory = Directory.read(tmp_path)

    assert (directory.servers, directory.own) == (("10.0.0.1",), True)
    assert directory.known("QUEUE") == ["10.0.0.9"]
    assert directory.known("localhost") == ["127.0.0.1", "::1"]
    assert directory.candidates("x.y") == ["x.y.a.test", "x.y.b.test", "x.y"]
    assert directory.candidates("x.y.z") == ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]
    (tmp_path / "nsswitch.conf").write_text("hosts: files ldap dns\n")
    assert not Directory.read(tmp_path).own


# ---- gRPC


def served(body: bytes, *, flags: int = 0) -> bytes:
    settings = grpc._frame(4, 0, 0, b"")
    return settings + grpc._frame(1, 4, 1, b"\x88") + grpc._frame(0, flags, 1, body)


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (served(b"\0\0\0\0\x02\x08\x01"), State.UP, "SERVING"),
        (served(b"\0\0\0\0\x02\x08\x02"), State.DOWN, "NOT_SERVING"),
        (served(b"\0\0\0\0\0"), State.DOWN, "UNKNOWN"),
        (served(b"\x02\0\0\0\0\x02\x08\x01\0\0", flags=8), State.UP, "SERVING"),
        (served(b"\0\0\0\0\x09\x08\x01"), State.DOWN, "not an answer of the gRPC health service"),
        (grpc._frame(1, 5, 1, b"\x88\x00\x0bgrpc-status\x0212"), State.DOWN, "gRPC status UNIMPLEMENTED: it has no"),
        (
            grpc._frame(1, 5, 1, b"\x88\x00\x88" + grpc._NAME_HUFFMAN + b"\x81\x6f"),
            State.DOWN,
            "gRPC status NOT_FOUND: it does not know the service",
        ),
        (grpc._frame(7, 0, 0, b"\0" * 8), State.DOWN, "no answer to the health question"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", State.DOWN, "not an HTTP/2 answer: HTTP/1.1 400"),
        (b"", State.DOWN, "the connection was closed without an answer"),
    ],
)
def test_grpc_answers(answer: bytes, state: State, reason: str) -> None:
    attempt = answered(saying(answer), lambda port: url(f"grpc://127.0.0.1:{port}/web"))

    assert attempt.state is state
    assert attempt.reason.startswith(reason)


def test_a_real_grpc_server() -> None:
    library = pytest.importorskip("grpc", reason="needs grpcio")
    health = pytest.importorskip("grpc_health.v1.health", reason="needs grpcio-health-checking")
    messages = pytest.importorskip("grpc_health.v1.health_pb2")
    from concurrent.futures import ThreadPoolExecutor

    from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped,import-not-found,unused-ignore]

    server = library.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        servicer.set("web", messages.HealthCheckResponse.NOT_SERVING)
        assert asked(url(f"grpc://127.0.0.1:{port}")).reason == "SERVING"
        assert asked(url(f"grpc://127.0.0.1:{port}/web")).reason == "NOT_SERVING"
        assert asked(url(f"grpc://127.0.0.1:{port}/none")).state is State.DOWN
    finally:
        server.stop(0)


# ---- heartbeats


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        (b"1700000000", 1.7e9),
        (b"1700000000500", 1700000000.5),
        (b'{"timestamp": 1700000000000, "x": 1}', 1.7e9),
        (b'{"lastHeartbeat": "2023-11-14T22:13:20Z"}', 1.7e9),
        (b"2023-11-14T22:13:20+00:00\n", 1.7e9),
        (b"2023-11-14T22:13:20", None),
        (b"alive", None),
        (b"42", None),
        (b"nan", None),
        (b"{", None),
        (b"[" * 5000, None),
    ],
)
def test_the_time_in_a_heartbeat(content: bytes, seconds: float | None) -> None:
    assert moment(content) == seconds


def test_the_age_of_a_heartbeat() -> None:
    target = url("heartbeat:///run/beat?max_age=1m")

    assert judge_heartbeat(100.0, target, 130.0) == (State.UP, "heartbeat 30 s old")
    assert judge_heartbeat(100.0, target, 161.0)[0] is State.DOWN
    assert judge_heartbeat(100.0, target, 50.0)[0] is State.DEGRADED


def test_a_heartbeat_in_a_file(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    assert asked(url(f"heartbeat://{beat}")).reason == "no heartbeat: the file is not there"
    beat.touch()
    assert asked(url(f"heartbeat://{beat}")).state is State.UP
    os.utime(beat, (0, 0))
    assert asked(url(f"heartbeat://{beat}")).state is State.DOWN
    beat.unlink()
    os.mkfifo(beat)
    assert asked(url(f"heartbeat://{beat}", 0.5)).state in (State.UP, State.UNKNOWN)


# ---- containers


def container(**state: object) -> dict[str, object]:
    return {"State": {"Status": "running", "Running": True, **state}, "RestartCount": 0}


@pytest.mark.parametrize(
    ("found", "state", "reason"),
    [
        (container(), State.UP, "running; it has no health check"),
        (container(Health={"Status": "healthy"}), State.UP, "running, healthy"),
        (container(Health={"Status": "starting"}), State.STARTING, "running, its health check has not answered yet"),
        (
            container(Health={"Status": "unhealthy", "Log": [{"Output": "connection\nrefused"}]}),
            State.DOWN,
            "its health check fails: connection refused",
        ),
        (container(Status="paused", Paused=True), State.MAINTENANCE, "paused"),
        (container(Status="restarting", ExitCode=1), State.DOWN, "restarting, exit code 1"),
        (
            container(Status="exited", Running=False, ExitCode=137, OOMKilled=True),
            State.DOWN,
            "exited, exit code 137 (killed for memory)",
        ),
        (container(OOMKilled=True), State.DEGRADED, "running; it has no health check; a process of it was killed"),
        ({}, State.DOWN, "unknown, exit code None"),
    ],
)
def test_what_the_engine_says_of_a_container(found: Mapping[str, object], state: State, reason: str) -> None:
    assert judge_container(found)[0] is state
    assert judge_container(found)[1].startswith(reason)


class Engine:
    """A Docker engine that knows what it is told, on a socket of its own."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = dict(answers)

    @contextmanager
    def listening(self, path: Path) -> Iterator[None]:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    line = connection.recv(65536).split(b"\r\n")[0].decode()
                    if not line:
                        return
                    asked_ = line.split()[1].partition("?")[0]
                    found = self.answers.get(asked_)
                    status = "404 Not Found" if found is None else "200 OK"
                    connection.sendall(http_answer(json.dumps(found or {"message": "no such thing"}).encode(), status))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()
            listener.close()


LISTED = [
    {
        "Id": "a" * 64,
        "Names": ["/shop-web-1"],
        "State": "running",
        "Labels": {"com.docker.compose.service": "web", "cfscale.probe": "http://:8080/health"},
        "NetworkSettings": {"Networks": {"shop": {"IPAddress": "127.0.0.1"}}},
    },
    {"Id": "b" * 64, "Names": ["/shop-db-1"], "State": "exited", "Labels": {"com.docker.compose.service": "db"}},
]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    running = Engine({"/containers/json": LISTED, "/containers/shop-web-1/json": container()})
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with running.listening(tmp_path / "docker.sock"):
        yield running


def test_a_container_is_asked_of_its_engine(engine: Engine) -> None:
    assert asked(url("docker://shop-web-1")).reason == "running; it has no health check"
    assert asked(url("docker://gone")).reason == "there is no such container"


def test_an_engine_that_is_not_there_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")

    assert asked(url("docker://web")).state is State.UNKNOWN
    with pytest.raises(UnavailableError):
        discover("compose:shop", 1.0)


@pytest.mark.parametrize("source", ["compose:shop", "label:team=web"])
def test_the_containers_of_a_project_are_targets(engine: Engine, source: str) -> None:
    found = discover(source, 1.0)

    assert [(target.name, target.kind, target.group) for target in found] == [
        ("shop-web-1", Kind.DOCKER, "web"),
        ("shop-web-1 http://127.0.0.1:8080/health", Kind.HTTP, "web itself"),
        ("shop-db-1", Kind.DOCKER, "db" if source else ""),
    ]


def test_a_rendered_folder_stands_for_its_project(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text('name: "shop"\nservices: {}\n')

    assert len(discover(str(tmp_path), 1.0)) == 3


def test_the_tasks_of_a_stack_are_targets(engine: Engine) -> None:
    engine.answers["/services"] = [
        {"ID": "s1", "Spec": {"Name": "shop_web"}},
        {"ID": "s2", "Spec": {"Name": "shop_queue"}},
    ]
    engine.answers["/tasks"] = [
        {"ServiceID": "s1", "Slot": 1, "DesiredState": "running", "Status": {"State": "running"}},
        {"ServiceID": "s1", "Slot": 2, "DesiredState": "running", "Status": {"State": "failed", "Err": "exit 1"}},
        {"ServiceID": "s1", "Slot": 3, "DesiredState": "running", "Status": {"State": "preparing"}},
        {"ServiceID": "s1", "Slot": 1, "DesiredState": "shutdown", "Status": {"State": "shutdown"}},
    ]
    found = discover("stack:shop", 1.0)

    assert [(target.name, target.replica.state.value) for target in found if target.replica] == [
        ("shop_queue", "stopped"),
        ("shop_web.1", "ready"),
        ("shop_web.2", "stopped"),
        ("shop_web.3", "starting"),
    ]


def test_every_address_of_a_name_is_a_target() -> None:
    assert [target.host for target in discover("dns:http://127.0.0.1:80/", 1.0)] == ["127.0.0.1"]


@pytest.mark.parametrize("source", ["nonsense", "compose:", "swarm:x", "/does/not/exist"])
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="write compose:NAME"):
        discover(source, 1.0)


# ---- certificates and URLs


@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any, and nothing but one
        validity(data)


@pytest.mark.parametrize(
    ("text", "kind", "host", "port", "about"),
    [
        ("tls://h:443", Kind.TLS, "h", 443, ()),
        ("rediss://h", Kind.REDIS, "h", 6379, ()),
        ("postgres://me@h/shop", Kind.POSTGRES, "h", 5432, ("shop",)),
        ("grpcs://h/web.v1", Kind.GRPC, "h", 443, ("web.v1",)),
        ("dns://10.0.0.1/a.test?type=aaaa", Kind.DNS, "10.0.0.1", 53, ("a.test", "AAAA")),
        ("agent://h:9", Kind.AGENT, "h", 9, ()),
        ("docker://Shop-web_1", Kind.DOCKER, "", 0, ("Shop-web_1",)),
        ("heartbeat://h/team:web?max_age=5m", Kind.HEARTBEAT, "h", 6379, ("team:web",)),
        ("heartbeat:///run/beat", Kind.HEARTBEAT, "/run/beat", 6379, ()),
        ("exec:///bin/test?arg=-d&arg=/a%20b", Kind.EXEC, "", 0, ("/bin/test", "-d", "/a b")),
    ],
)
def test_urls_of_every_protocol(text: str, kind: Kind, host: str, port: int, about: tuple[str, ...]) -> None:
    target = url(text)

    assert (target.kind, target.host, target.port, target.about) == (kind, host, port, about)


@pytest.mark.parametrize(
    "text",
    [
        "tls://h",
        "grpc://h",
        "dns://h",
        "dns://h/a?type=ANY",
        "dns://h/a?typ=A",
        "postgres://me:pa55@h",
        "docker://",
        "docker://a/b",
        "docker://a%20b",
        "heartbeat://h",
        "heartbeat:///run/beat?max_age=soon",
        "exec://bin/true",
        "exec:///",
        "agent://h:1/x",
    ],
)
def test_wrong_urls_of_other_protocols_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        url(text)

    assert "pa55" not in str(caught.value)


def test_a_server_that_says_nothing_is_down_at_the_deadline_in_every_protocol() -> None:
    for scheme in ("postgres", "grpc", "agent", "heartbeat", "tls"):
        path = "/key" if scheme == "heartbeat" else ""
        attempt = answered(never, lambda port, s=scheme, p=path: url(f"{s}://127.0.0.1:{port}{p}", 0.2))  # type: ignore[misc]
        assert (scheme, attempt.state, attempt.reason) == (
            scheme,
            State.DOWN,
            "connected, but no whole answer within 0.2 s",
        )
