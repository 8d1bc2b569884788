"""HTTP/1.1, as much of it as a health question needs: one request a connection, no redirect, no decompression.

Proxies and ``.netrc`` do not exist here. The body is read only where its content matters.
"""

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from cfscale.adapters.probes.network import Answer, AnswerError, Dialer, Wire
from cfscale.core.health import State, Target
from cfscale.core.plan import Health

SUCCESS, REDIRECT = range(200, 300), range(300, 400)
TOO_MANY_REQUESTS = 429
_FIRST_SUCCESS, _FIRST_REDIRECT = SUCCESS.start, REDIRECT.start
UP = State.UP  # looked up once: this is asked ten thousand times a round
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] +([0-9]{3})(?: [^\r]*)?(?:\r|\Z)")
_PATH_SAFE = "/?&=%:@!$'()*+,;~-._[]"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/?&=._-]*", re.ASCII)
_FIELDS = "User-Agent: cfscale\r\nAccept: application/json, */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_LINE_END = b"\r\n"
_END_OF_CHUNKS = b"0\r\n\r\n"


class Response(Struct, frozen=True):
    """A status and, where it was asked for, a body."""

    status: int
    body: bytes = b""


async def probe_http(dial: Dialer, target: Target) -> Answer:
    """GET the health path; the status decides, and the JSON members where some are expected."""
    wire = await dial()
    response = await exchange(wire, request("GET", target.health.path, target), with_body=bool(target.health.json))
    dial.status = response.status
    return judge(response, target)


def judge(response: Response, target: Target) -> Answer:
    """The verdict on a response. 429 comes from a service at work, so it is never down."""
    status, wanted = response.status, target.health.status
    if (_FIRST_SUCCESS <= status < _FIRST_REDIRECT) if target.any_success else status == wanted:
        wrong = wrong_member(response.body, target.health) if target.health.json else None
        return (State.DOWN, wrong) if wrong else (UP, f"HTTP {status}")
    if status == TOO_MANY_REQUESTS:
        return State.DEGRADED, "HTTP 429: rate limited"
    if status in REDIRECT:
        return State.DOWN, f"HTTP {status}: a redirect, which is not followed"
    return State.DOWN, f"HTTP {status}" + ("" if target.any_success else f" instead of {wanted}")


def wrong_member(body: bytes, health: Health) -> str | None:
    """The first expected top-level member that is missing or different, in words."""
    if not health.json:
        return None
    found = parse_json(body)
    if not isinstance(found, dict):
        return "the body is not a JSON object"
    for name, wanted in health.json.items():
        if name not in found:
            return f"JSON member {name} is missing"
        member = found[name]
        text = member if isinstance(member, str) else json.dumps(member)
        if text != wanted:
            return f"JSON member {name} is {text} instead of {wanted}"
    return None


def parse_json(body: bytes) -> object:
    """The JSON value of a body, None where it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def request(method: str, path: str, target: Target, body: bytes = b"") -> bytes:
    """The bytes of one request; whatever a path holds, it stays one path."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    plain = path if _PLAIN_PATH.fullmatch(path) else quote(path, safe=_PATH_SAFE)
    head = f"{method} {plain} HTTP/1.1\r\nHost: {host}:{target.port}\r\n{_FIELDS}"
    if target.secret is not None:
        head += f"Authorization: Basic {b64encode(target.secret.encode()).decode()}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode("ascii") + body


async def exchange(wire: Wire, question: bytes, *, with_body: bool) -> Response:
    """Send a request and read its response; raises AnswerError for anything that is not HTTP."""
    await wire.send(question)
    return await received(wire, b"", with_body=with_body)


async def received(wire: Wire, data: bytes, *, with_body: bool) -> Response:
    """The response of which ``data`` has come already; raises AnswerError for anything that is not HTTP."""
    head, rest = await _read_head(wire, data)
    while head.status < _FIRST_SUCCESS:  # interim; the cap of the wire ends a flood of them
        head, rest = await _read_head(wire, rest)
    if not with_body:
        return Response(head.status)
    return Response(head.status, await _read_body(wire, head.fields, rest))


def complete_status(data: bytes) -> int:
    """The final status where all of the head is there, else 0: then there is more to be read, or to be refused."""
    match = _STATUS_LINE.match(data)
    status = int(match[1]) if match and _END_OF_HEAD in data else 0
    return status if status >= _FIRST_SUCCESS else 0


class _Head(Struct, frozen=True):
    status: int
    text: bytes

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """The header fields, names in small letters."""
        fields = (line.partition(b":") for line in self.text.split(b"\r\n")[1:])
        return {name.strip().lower(): value.strip() for name, _, value in fields}


async def _read_head(wire: Wire, data: bytes = b"") -> tuple[_Head, bytes]:
    searched = 0
    while (end := data.find(_END_OF_HEAD, searched)) < 0:
        if not b"HTTP/1.".startswith(data[:7]):
            raise AnswerError(f"not an HTTP answer: {data[:40].decode('ascii', 'replace')}")
        searched = max(0, len(data) - len(_END_OF_HEAD) + 1)
        more = await wire.read()
        if not more:
            raise AnswerError("the connection was closed in the middle of the answer" if data else _SILENT)
        data += more
    return _parse_head(data[:end]), data[end + len(_END_OF_HEAD) :]


_SILENT = "the connection was closed without an answer"


def _parse_head(head: bytes) -> _Head:
    match = _STATUS_LINE.match(head)
    if match is None:
        raise AnswerError(f"not an HTTP answer: {head.partition(_LINE_END)[0][:40].decode('ascii', 'replace')}")
    return _Head(int(match[1]), head)


async def _read_body(wire: Wire, fields: Mapping[bytes, bytes], data: bytes) -> bytes:
    chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
    length = fields.get(b"content-length", b"")
    wanted = int(length) if length.isdigit() and not chunked else None
    while wanted is None or len(data) < wanted:
        if chunked and data.endswith(_END_OF_CHUNKS):
            break
        more = await wire.read()
        if not more:
            break
        data += more
    return _joined(data) if chunked else data[:wanted]


def _joined(data: bytes) -> bytes:
    """The body of a chunked transfer; raises AnswerError where it is torn."""
    body = b""
    while True:
        line, found, data = data.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise AnswerError("a torn chunked answer") from error
        if not found or size < 0 or len(data) < size:
            raise AnswerError("a torn chunked answer")
        if size == 0:
            return body
        body, data = body + data[:size], data[size + 2 :]
