import asyncio
import errno
import gzip
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.adapters.probes.ask import ask, probe_once
from cfscale.adapters.probes.http import Response, judge, request
from cfscale.adapters.probes.network import Network, Wire, forbidden
from cfscale.adapters.probes.url import parse_target, parse_targets
from cfscale.core.health import Attempt, State, Target
from cfscale.core.judging import Judging
from cfscale.core.plan import Health, HealthKind
from cfscale.errors import InputError
from cfscale.runtime.ports import Prober

JUDGING = Judging.of(load_catalogue().rules)
SHORT = 0.3
GENEROUS = 10.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def url(text: str, seconds: float = GENEROUS, password: str | None = None) -> Target:
    return parse_target(text, timeout_seconds=seconds, password=password)


def answered(
    serve: Serve, target: Callable[[int], Target], network: Callable[[], Network] = lambda: Network(JUDGING)
) -> Attempt:
    """What a target says that ``serve`` plays on loopback."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()

    async def main() -> Attempt:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        try:
            return await ask(target(server.sockets[0].getsockname()[1]), network())
        finally:
            server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await server.wait_closed()

    return asyncio.run(main())


def saying(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await writer.drain()

    return serve


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def http(port: int) -> Target:
    return url(f"http://127.0.0.1:{port}/")


def wanting(**members: str) -> Callable[[int], Target]:
    health = Health(HealthKind.HTTP, json=members, timeout_seconds=GENEROUS)
    return lambda port: Target("web", "127.0.0.1", port, health, "web")


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else can take."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def full_backlog() -> Iterator[int]:
    """A listener whose queue is full: connection requests to it are dropped."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def asked(target: Target) -> Attempt:
    async def main() -> Attempt:
        return await ask(target, Network(JUDGING))

    return asyncio.run(main())


def test_a_service_that_answers_is_up() -> None:
    attempt = answered(saying(http_answer(b"ok")), http)

    assert (attempt.state, attempt.reason) == (State.UP, "HTTP 200")
    assert attempt.latency_seconds is not None


def test_connection_refused_is_down() -> None:
    with closed_port() as port:
        attempt = asked(http(port))

    assert (attempt.state, attempt.reason) == (State.DOWN, "connection refused")


def test_a_black_hole_is_down_at_the_deadline() -> None:
    with full_backlog() as port:
        attempt = asked(url(f"http://127.0.0.1:{port}/", SHORT))

    assert (attempt.state, attempt.reason) == (State.DOWN, "no connection within 0.3 s")


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(SHORT / 10)


@pytest.mark.parametrize(
    ("serve", "scheme"),
    [(never, "http"), (never, "redis"), (never, "jsonrpc+http"), (drip, "http"), (drip, "jsonrpc+http")],
)
def test_the_deadline_covers_the_whole_answer(serve: Serve, scheme: str) -> None:
    attempt = answered(serve, lambda port: url(f"{scheme}://127.0.0.1:{port}", SHORT))

    assert (attempt.state, attempt.reason) == (State.DOWN, "connected, but no whole answer within 0.3 s")


def test_accept_then_close_is_down() -> None:
    attempt = answered(saying(b""), http)

    assert (attempt.state, attempt.reason) == (State.DOWN, "the connection was closed without an answer")


def test_a_reset_is_down() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    attempt = answered(reset, http)

    assert attempt.state is State.DOWN


@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail ESMTP\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"\x15\x03\x01\x00\x02",
    ],
)
def test_another_protocol_is_down(banner: bytes) -> None:
    attempt = answered(saying(banner), http)

    assert attempt.state is State.DOWN
    assert attempt.reason.startswith("not an HTTP answer")


def test_an_answer_cannot_steer_the_terminal() -> None:
    attempt = answered(saying(b"\x1b[31mred\x07\r\n"), http)

    assert attempt.reason == "not an HTTP answer: [31mred"


async def endless_headers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def flood_of_interim_answers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
        await writer.drain()


async def endless_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


@pytest.mark.parametrize("serve", [endless_headers, flood_of_interim_answers, endless_body])
def test_no_more_than_64_kib_are_read(serve: Serve) -> None:
    attempt = answered(serve, wanting(status="ok"))

    assert attempt.state is State.DOWN
    assert "64 KiB" in attempt.reason


def test_an_endless_body_that_nobody_asked_about_does_no_harm() -> None:
    assert answered(endless_body, http).state is State.UP


def test_a_compressed_body_is_not_decompressed() -> None:
    bomb = gzip.compress(b'{"status": "ok"}' + b" " * 20_000_000)
    attempt = answered(saying(http_answer(bomb, headers="Content-Encoding: gzip\r\n")), wanting(status="ok"))

    assert (attempt.state, attempt.reason) == (State.DOWN, "the body is not a JSON object")


def test_an_interim_answer_is_not_the_answer() -> None:
    attempt = answered(saying(b"HTTP/1.1 100 Continue\r\n\r\n" + http_answer(b"", "204 No Content")), http)

    assert attempt.reason == "HTTP 204"


def test_redirects_are_not_followed() -> None:
    visits: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.readline())
        writer.write(http_answer(b"", "302 Found", "Location: /elsewhere\r\n"))
        await writer.drain()

    attempt = answered(redirect, http)

    assert (attempt.state, attempt.reason) == (State.DOWN, "HTTP 302: a redirect, which is not followed")
    assert visits == [b"GET / HTTP/1.1\r\n"]


def test_proxies_and_netrc_do_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_answer(b""))

    assert answered(serve, http).state is State.UP
    assert b"authorization" not in seen[0].lower()
    assert b"Accept-Encoding: identity" in seen[0]
    assert b"Connection: close" in seen[0]


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("200 OK", State.UP, "HTTP 200"),
        ("204 No Content", State.UP, "HTTP 204"),
        ("429 Too Many Requests", State.DEGRADED, "HTTP 429: rate limited"),
        ("404 Not Found", State.DOWN, "HTTP 404"),
        ("500", State.DOWN, "HTTP 500"),
        ("503 Service Unavailable", State.DOWN, "HTTP 503"),
    ],
)
def test_the_status_of_a_bare_url(status: str, state: State, reason: str) -> None:
    attempt = answered(saying(http_answer(b"", status)), http)

    assert (attempt.state, attempt.reason) == (state, reason)


def test_a_configured_status_is_the_only_one_that_is_up() -> None:
    target = Target("web", "h", 1, Health(HealthKind.HTTP, status=302), "web")

    assert judge(Response(302), target)[0] is State.UP
    assert judge(Response(200), target) == (State.DOWN, "HTTP 200 instead of 302")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"status": "ok", "ready": true, "n": 3}', "HTTP 200"),
        (b'{"status": "failing", "ready": true, "n": 3}', "JSON member status is failing instead of ok"),
        (b'{"status": "ok", "n": 3}', "JSON member ready is missing"),
        (b'{"status": "ok", "ready": true, "n": 4}', "JSON member n is 4 instead of 3"),
        (b"[1]", "the body is not a JSON object"),
        (b"<html>", "the body is not a JSON object"),
        (b"\xff\xfe", "the body is not a JSON object"),
        (b"[" * 60_000, "the body is not a JSON object"),
    ],
)
def test_json_content(body: bytes, reason: str) -> None:
    attempt = answered(saying(http_answer(body)), wanting(status="ok", ready="true", n="3"))

    assert attempt.reason == reason
    assert attempt.state is (State.UP if reason == "HTTP 200" else State.DOWN)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"sta\r\n0a;x=y\r\ntus":"ok"}\r\n0\r\n\r\n',
        b'HTTP/1.0 200 OK\r\n\r\n{"status":"ok"}',
        http_answer(b'{"status":"ok"}') + b"rubbish",
    ],
)
def test_every_framing_of_a_body_is_read(answer: bytes) -> None:
    assert answered(saying(answer), wanting(status="ok")).state is State.UP


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"5\r\n{}", b"-1\r\n0\r\n\r\n", b""])
def test_torn_chunks_are_down(chunks: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    attempt = answered(saying(answer), wanting(status="ok"))

    assert (attempt.state, attempt.reason) == (State.DOWN, "a torn chunked answer")


@given(st.binary(max_size=400))
def test_no_answer_whatsoever_is_a_defect(data: bytes) -> None:
    assert answered(saying(data), wanting(status="ok")).state in State


@given(st.text(max_size=60))
def test_a_path_stays_one_path(path: str) -> None:
    target = Target("web", "127.0.0.1", 80, Health(HealthKind.HTTP), "web")
    lines = request("GET", path.encode("utf-8", "ignore").decode(), target).split(b"\r\n")

    assert lines[0].count(b" ") == 2
    assert lines[1] == b"Host: 127.0.0.1:80"


def test_ipv6_literals_are_asked() -> None:
    target = url("http://[::1]:1/")

    assert (target.host, target.port) == ("::1", 1)
    assert b"Host: [::1]:1\r\n" in request("GET", "/", target)
    assert asked(target).state in (State.DOWN, State.UNKNOWN)  # unknown where the machine has no IPv6


def test_a_tcp_target_that_accepts_is_up() -> None:
    assert answered(never, lambda port: url(f"tcp://127.0.0.1:{port}")).state is State.UP


def test_plain_text_on_a_tls_port_is_down() -> None:
    attempt = answered(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), lambda port: url(f"https://127.0.0.1:{port}"))

    assert attempt.state is State.DOWN
    assert attempt.reason.startswith("TLS: ")


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (b"+PONG\r\n", State.UP, "PONG"),
        (b"-NOAUTH Authentication required.\r\n", State.UP, "alive; asks for a password"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", State.DOWN, "LOADING Redis is loading the dataset"),
        (b"HTTP/1.1 400 Bad Request\r\n", State.DOWN, "not a redis answer: HTTP/1.1 400"),
        (b"", State.DOWN, "the connection was closed without an answer"),
    ],
)
def test_redis_answers(answer: bytes, state: State, reason: str) -> None:
    attempt = answered(saying(answer), lambda port: url(f"redis://127.0.0.1:{port}"))

    assert attempt.state is state
    assert attempt.reason.startswith(reason)


@pytest.mark.parametrize(
    ("answer", "state"),
    [(b"+OK\r\n+PONG\r\n", State.UP), (b"-WRONGPASS invalid\r\n-NOAUTH no\r\n", State.DEGRADED)],
)
def test_redis_is_given_its_password(answer: bytes, state: State) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"PING\r\n"))
        writer.write(answer)

    attempt = answered(serve, lambda port: url(f"redis://127.0.0.1:{port}", password="pä ss\r\n"))

    assert attempt.state is state
    assert seen == [b"*2\r\n$4\r\nAUTH\r\n$8\r\np\xc3\xa4 ss\r\n\r\n*1\r\n$4\r\nPING\r\n"]
    assert "ss" not in attempt.reason.replace("password", "").replace("pass", "").replace("WRONGPASS", "")


class Coordinator:
    """A JSON-RPC server that keeps one session for all, as the reference coordinator does."""

    def __init__(self, health: object, *, initialized: bool = False) -> None:
        self.health, self.initialized = health, initialized
        self.calls: list[str] = []
        self.status = "200 OK"
        self.error: dict[str, object] | None = None
        self.refusal = ""
        self.failing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        call = json.loads(await reader.readexactly(length))
        self.calls.append(call["method"])
        writer.write(
            http_answer(json.dumps({"jsonrpc": "2.0", "id": 1, **self.reply(call["method"])}).encode(), self.status)
        )

    def reply(self, method: str) -> dict[str, object]:
        if self.error is not None:
            return {"error": self.error}
        if method == "initialize" and self.refusal:
            return {"error": {"code": -32603, "message": self.refusal}}
        if method == "initialize":
            self.initialized = True
            return {"result": {"protocolVersion": "2025-11-25"}}
        if not self.initialized:
            return {"error": {"code": -32002, "message": "Server not initialized"}}
        return {"result": {"content": [{"type": "text", "text": json.dumps(self.health)}], "isError": self.failing}}

    def probed(self) -> Attempt:
        return answered(self.serve, lambda port: url(f"jsonrpc+http://127.0.0.1:{port}/rpc"))


FRESH = {
    "overall": "unhealthy",
    "score": 33,
    "checks": [
        {"name": "memory", "status": "degraded", "message": "Memory store not found"},
        {"name": "mcp", "status": "healthy"},
        {"name": "swarm", "status": "unknown", "message": "not monitored"},
    ],
}


def test_a_healthy_coordinator_is_up_after_one_request() -> None:
    coordinator = Coordinator({"overall": "healthy", "score": 100}, initialized=True)
    attempt = coordinator.probed()

    assert (attempt.state, attempt.reason) == (State.UP, "system_health: healthy, score 100")
    assert coordinator.calls == ["tools/call"]


def test_initialize_is_sent_only_where_it_is_asked_for() -> None:
    coordinator = Coordinator({"overall": "healthy", "score": 100})
    coordinator.probed()
    coordinator.probed()

    assert coordinator.calls == ["tools/call", "initialize", "tools/call", "tools/call"]


def test_a_fresh_coordinator_is_degraded_and_says_why() -> None:
    attempt = Coordinator(FRESH).probed()

    assert attempt.state is State.DEGRADED
    assert attempt.reason == "system_health: unhealthy, score 33 (memory: Memory store not found)"


def test_a_rate_limited_coordinator_is_degraded() -> None:
    coordinator = Coordinator(FRESH)
    coordinator.status = "429 Too Many Requests"

    attempt = coordinator.probed()

    assert (attempt.state, attempt.reason) == (State.DEGRADED, "rate limited")


def test_a_rate_limit_inside_the_protocol_is_degraded_too() -> None:
    coordinator = Coordinator(FRESH)
    coordinator.error = {"code": -32000, "message": "Rate limit exceeded"}

    assert coordinator.probed().state is State.DEGRADED


def test_a_json_rpc_error_is_down() -> None:
    coordinator = Coordinator(FRESH)
    coordinator.error = {"code": -32603, "message": "Maximum sessions (100) reached"}
    attempt = coordinator.probed()

    assert attempt.state is State.DOWN
    assert attempt.reason == "system_health: error -32603: Maximum sessions (100) reached"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"jsonrpc": "2.0"}', b'{"result": {"content": [{"text": "{}"}]}}']
)
def test_a_json_rpc_answer_that_says_nothing_is_down(body: bytes) -> None:
    attempt = answered(saying(http_answer(body)), lambda port: url(f"jsonrpc+http://127.0.0.1:{port}/rpc"))

    assert attempt.state is State.DOWN


def test_dead_names_do_not_hold_up_literal_addresses() -> None:
    release = threading.Event()

    def stuck(_host: str, _port: int) -> list[str]:
        release.wait(GENEROUS)
        return []

    async def main() -> tuple[list[Attempt], Attempt]:
        network = Network(JUDGING, stuck, lookups=4)
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            dead = [asyncio.create_task(ask(url(f"http://dead-{n}.test/", SHORT), network)) for n in range(12)]
            alive = await ask(url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), network)
            return await asyncio.gather(*dead), alive

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(http_answer(b""))(reader, writer)
        writer.close()

    dead, alive = asyncio.run(main())
    release.set()

    assert alive.state is State.UP
    assert {attempt.state for attempt in dead} == {State.UNKNOWN}


@pytest.mark.parametrize(
    ("problem", "state", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), State.DOWN, "the name does not resolve"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), State.UNKNOWN, "the name lookup failed: try again"),
        (OSError(errno.EMFILE, "too many files"), State.UNKNOWN, "the name lookup failed"),
    ],
)
def test_failed_lookups(problem: OSError, state: State, reason: str) -> None:
    def fail(_host: str, _port: int) -> list[str]:
        raise problem

    async def main() -> Attempt:
        return await ask(url("http://name.test/"), Network(JUDGING, fail))

    attempt = asyncio.run(main())

    assert attempt.state is state
    assert attempt.reason.startswith(reason)


def test_a_name_that_leads_to_the_metadata_service_is_refused() -> None:
    async def main() -> Attempt:
        return await ask(
            url("http://innocent.test/"), Network(JUDGING, lambda _host, _port: ["127.0.0.1", "169.254.169.254"])
        )

    attempt = asyncio.run(main())

    assert attempt.state is State.UNKNOWN
    assert "refused" in attempt.reason


def test_the_next_address_of_a_name_is_tried() -> None:
    def two(_host: str, _port: int) -> list[str]:
        return ["127.0.0.9", "127.0.0.1"]

    attempt = answered(
        saying(http_answer(b"")), lambda port: url(f"http://name.test:{port}/"), lambda: Network(JUDGING, two)
    )

    assert attempt.state is State.UP


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENOBUFS])
def test_faults_of_this_host_are_unknown(code: int) -> None:
    class Broken(Network):
        direct = False

        async def connect(self, _wire: Wire, _target: Target, _addresses: list[str]) -> None:
            raise OSError(code, "x")

    async def main() -> Attempt:
        return await ask(url("http://127.0.0.1:1/"), Broken(JUDGING))

    assert asyncio.run(main()).state is State.UNKNOWN


def test_a_deadline_noticed_far_too_late_is_the_fault_of_this_host() -> None:
    async def main(port: int) -> Attempt:
        question = asyncio.create_task(ask(url(f"http://127.0.0.1:{port}/", SHORT), Network(JUDGING)))
        await asyncio.sleep(0)
        time.sleep(SHORT + JUDGING.late_seconds + 0.2)  # what SIGSTOP or a blocked event loop does
        return await question

    with full_backlog() as port:
        attempt = asyncio.run(main(port))

    assert attempt.state is State.UNKNOWN


def test_a_thousand_healthy_targets_at_once_are_all_up() -> None:
    from cfscale.runtime.probing import Survey

    class Now:
        def now(self) -> float:
            return 0.0

        def monotonic(self) -> float:
            return 0.0

        def wait(self, _seconds: float) -> bool:
            return False

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(http_answer(b""))(reader, writer)
        writer.close()

    async def main() -> int:
        server = await asyncio.start_server(talk, "0.0.0.0", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        async with server:
            targets = [url(f"http://127.0.{n // 250}.{n % 250 + 1}:{port}/") for n in range(1000)]
            network = Network(JUDGING)
            found = await Survey(lambda target: ask(target, network), Now(), JUDGING, confirm_seconds=None).round(
                targets
            )
        return found.report.summary.up

    assert asyncio.run(main()) == 1000


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254"]
)
def test_link_local_and_metadata_addresses_are_forbidden(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00::1", "8.8.8.8"])
def test_private_networks_are_what_this_is_for(address: str) -> None:
    assert forbidden(address) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host", (HealthKind.HTTP, "host", 80, "/", False)),
        ("https://host/a?b=c", (HealthKind.HTTP, "host", 443, "/a?b=c", True)),
        ("HTTP://Host:8080/#part", (HealthKind.HTTP, "host", 8080, "/", False)),
        ("tcp://10.0.0.1:5432", (HealthKind.TCP, "10.0.0.1", 5432, "/", False)),
        ("redis://queue", (HealthKind.REDIS, "queue", 6379, "/", False)),
        ("http://bücher.example/", (HealthKind.HTTP, "xn--bcher-kva.example", 80, "/", False)),
    ],
)
def test_urls(text: str, expected: tuple[HealthKind, str, int, str, bool]) -> None:
    target = url(text)

    assert (target.health.kind, target.host, target.port, target.health.path, target.tls) == expected


@pytest.mark.parametrize(("text", "path"), [("jsonrpc+http://host", "/rpc"), ("jsonrpc+http://host/mcp", "/mcp")])
def test_the_path_of_a_deep_probe(text: str, path: str) -> None:
    assert url(text).health.rpc_path == path


@pytest.mark.parametrize(
    "text",
    [
        "http://host:0/",
        "http://host:99999/",
        "http://host:-1/",
        "http://host:abc/",
        "http://host/\r\nX: y",
        "http://host/a b",
        "http://host\t/",
        "http:///path",
        "http://[::1/",
        "http://[host]/",
        "http://ho st/",
        "http://host<script>/",
        "http://169.254.169.254/latest",
        "http://[fe80::1%25eth0]/",
        "tcp://host",
        "tcp://host:1/path",
        "redis://:pa55@host",
        "redis://host/0",
        "ftp://host",
        "file:///etc/passwd",
        "://host",
    ],
)
def test_bad_urls_are_refused_at_the_door(text: str) -> None:
    with pytest.raises(InputError):
        url(text)


@pytest.mark.parametrize(
    "text", ["http://me:pa55@host:0/", "redis://me:pa55@host", "http://me:pa55/x@host/", "http://me:pa55@ho st"]
)
def test_a_password_in_a_wrong_url_is_not_echoed(text: str) -> None:
    with pytest.raises(InputError) as caught:
        url(text)

    assert "pa55" not in str(caught.value)


def test_a_password_in_a_url_is_used_and_never_shown() -> None:
    target = url("http://me:pa55%40@host/x@y")

    assert target.name == "http://host/x@y"
    assert "pa55" not in repr(target)
    assert b"Authorization: Basic bWU6cGE1NUA=\r\n" in request("GET", "/", target)


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        target = url("http://" + text)

        assert 1 <= target.port <= 65535
        assert request("GET", target.health.path, target).count(b"\r\n\r\n") == 1


def test_target_files_take_comments_and_name_a_bad_line() -> None:
    lines = ["# all of them", "", "  http://a/  ", "tcp://b:1", "http://c:0/"]

    assert [target.name for target in parse_targets(lines[:4], "urls.txt", timeout_seconds=1.0)] == [
        "http://a/",
        "tcp://b:1",
    ]
    with pytest.raises(InputError, match=r"^urls\.txt:5: 'http://c:0/'"):
        parse_targets(lines, "urls.txt", timeout_seconds=1.0)


def test_one_question_for_callers_without_an_event_loop() -> None:
    prober: Prober = partial(probe_once, judging=JUDGING)
    with closed_port() as port:
        healthy, latency, reason = prober(f"127.0.0.1:{port}", Health(HealthKind.TCP))

    assert (healthy, reason) == (False, "connection refused")
    assert latency >= 0
