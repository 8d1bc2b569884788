"""Health questions to local replicas, asked without ever blocking the supervisor's loop.

``Check`` is one question in flight: connect, send, read, judge. One deadline covers all of it, so that an address
that answers a byte at a time is as late as one that does not answer at all.
"""

import errno
import json
import selectors
import socket
from collections.abc import Mapping
from urllib.parse import quote

from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import ReplicaState

STARTING_INTERVAL_SECONDS = 0.2
DOUBT_INTERVAL_SECONDS = 1.0
_ANSWER_BYTES = 64 * 1024
_PATH_SAFE = "/?&=%:@!$'()*+,;~-._[]"


class Check:
    """One question to one address; ``verdict`` is (healthy, reason) once there is one."""

    def __init__(self, address: tuple[str, int], health: Health, now: float) -> None:
        self.health = health
        self.deadline = now + health.timeout_seconds
        self.verdict: tuple[bool, str] | None = None
        self._answer = b""
        self._question = _question(health, address)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)  # noqa: FBT003 - the socket API's own signature
        self.events = selectors.EVENT_WRITE
        self._conclude_on_error(self.socket.connect_ex(address))

    def advance(self) -> None:
        """Go on after the socket became ready; never blocks."""
        try:
            if self.events == selectors.EVENT_WRITE:
                self._send()
            else:
                self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._conclude_on_error(error.errno or errno.EIO)

    def expire(self) -> None:
        """Conclude that no answer came in time."""
        self.verdict = (False, f"no answer within {self.health.timeout_seconds:g} s")

    def close(self) -> None:
        """Give the socket back; every check ends with it."""
        self.socket.close()

    def _conclude_on_error(self, code: int) -> None:
        if code not in (0, errno.EINPROGRESS):
            self.verdict = (False, errno.errorcode.get(code, str(code)))

    def _send(self) -> None:
        self._conclude_on_error(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        if self.verdict is None and not self._question:
            self.verdict = (True, "connected")
        if self.verdict is None:
            self._question = self._question[self.socket.send(self._question) :]
            if not self._question:
                self.events = selectors.EVENT_READ

    def _receive(self) -> None:
        chunk = self.socket.recv(_ANSWER_BYTES)
        self._answer += chunk
        complete = not chunk or len(self._answer) > _ANSWER_BYTES
        if self.health.kind is HealthKind.REDIS and (complete or b"\n" in self._answer):
            self.verdict = judge_redis(self._answer)
        elif complete:
            self.verdict = judge_http(self._answer, self.health)


class Pulse:
    """Verdicts in a row and the state they amount to: ``rise`` good ones make ready, ``fall`` bad ones unhealthy."""

    def __init__(self, health: Health, started: float) -> None:
        self._health, self._started = health, started
        self._good = self._bad = 0

    def feel(self, verdict: tuple[bool, str], state: ReplicaState, now: float) -> ReplicaState:
        """The state after this verdict; failures do not count against a replica that is still starting."""
        self._good, self._bad = (self._good + 1, 0) if verdict[0] else (0, self._bad + 1)
        patient = state is ReplicaState.STARTING and now - self._started < self._health.start_period_seconds
        if self._good >= self._health.rise:
            return ReplicaState.READY
        if self._bad >= self._health.fall and not patient:
            return ReplicaState.UNHEALTHY
        return state

    def interval(self, state: ReplicaState) -> float:
        """Seconds until the next question: short at the start, and while the state may be about to change."""
        interval = self._health.interval_seconds
        if state is ReplicaState.STARTING:
            return min(interval, STARTING_INTERVAL_SECONDS)
        in_doubt = self._bad > 0 or state is not ReplicaState.READY
        return min(interval, DOUBT_INTERVAL_SECONDS) if in_doubt else interval


def _question(health: Health, address: tuple[str, int]) -> bytes:
    match health.kind:
        case HealthKind.HTTP | HealthKind.JSONRPC:
            host, port = address
            return f"GET {quote(health.path, safe=_PATH_SAFE)} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode()
        case HealthKind.REDIS:
            return b"PING\r\n"
        case HealthKind.TCP | HealthKind.POSTGRES | HealthKind.NONE:  # to be connected to says enough of a local one
            return b""


def judge_redis(answer: bytes) -> tuple[bool, str]:
    """A server that asks for a password is up, one that still loads its data is not."""
    line = answer.partition(b"\r\n")[0].decode("ascii", errors="replace")
    return line.startswith(("+PONG", "-NOAUTH")), line[:80] or "connection closed without an answer"


def judge_http(answer: bytes, health: Health) -> tuple[bool, str]:
    """Whether the status is the expected one and the body has the expected members."""
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if not words[1:] or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return False, "not an HTTP answer"
    status = int(words[1])
    if status != health.status:
        return False, f"HTTP {status}"
    wrong = _wrong_members(body, health.json)
    return wrong is None, wrong or f"HTTP {status}"


def _wrong_members(body: bytes, expected: Mapping[str, str]) -> str | None:
    if not expected:
        return None
    try:
        found = json.loads(body)
    except ValueError:
        return "the body is not JSON"
    if not isinstance(found, dict):
        return "the body is not a JSON object"
    for name, value in expected.items():
        member = found.get(name)
        if (member if isinstance(member, str) else json.dumps(member)) != value:
            return f"{name} is not {value}"
    return None
