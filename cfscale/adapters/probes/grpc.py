"""grpc.health.v1.Health/Check over a bare HTTP/2 connection: one request, whose few frames are written and read here.

    SERVING   up        NOT_SERVING, SERVICE_UNKNOWN, a status instead of an answer   down

HTTP/2 libraries decompress headers for us, but the verdict is in the data frame; only where there is none do headers
matter, and there a status code is one of few numbers.
"""

import struct

from cfscale.adapters.probes.network import Answer, AnswerError, Dialer, Wire
from cfscale.core.health import State, Target

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_LONGEST = 16_384
_STREAM = 1
_SERVING = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_NAME = b"grpc-status"
# the same in the Huffman code of HPACK, and its digits
_NAME_HUFFMAN = bytes.fromhex("9acac8b21234da8f")
_STATUS = {5: "NOT_FOUND: it does not know the service", 12: "UNIMPLEMENTED: it has no health service"}
_DIGITS = {"00000": 0, "00001": 1, "00010": 2, "011001": 3, "011010": 4, "011011": 5, "011100": 6, "011101": 7}
_DIGITS |= {"011110": 8, "011111": 9}


async def probe_grpc(dial: Dialer, target: Target) -> Answer:
    """Check the service ``about``, the server as a whole where that is empty."""
    wire = await dial()
    await wire.send(question(target, target.about[0] if target.about else ""))
    frames, status = _Frames(wire), None
    while True:
        kind, flags, stream, body = await frames.next()
        if kind == _SETTINGS and not flags & _ACK:
            await wire.send(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            await wire.send(_frame(_PING, _ACK, 0, body))
        elif kind == _DATA and stream == _STREAM and body:
            return judge(body[1 : -body[0]] if flags & _PADDED else body)
        elif kind == _HEADERS:
            status = grpc_status(body)
        if (kind == _HEADERS and flags & _END_STREAM) or kind in (_RESET, _GOAWAY):
            return State.DOWN, _refusal(status)


def _refusal(status: int | None) -> str:
    return "no answer to the health question" if status is None else f"gRPC status {_STATUS.get(status, status)}"


def question(target: Target, service: str) -> bytes:
    """Everything that is sent to ask: the preface, settings, one request and its message."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    headers = b"".join(
        [
            b"\x83",  # :method POST
            b"\x87" if target.tls else b"\x86",  # :scheme
            _literal(4, b"/grpc.health.v1.Health/Check"),  # :path
            _literal(1, f"{host}:{target.port}".encode()),  # :authority
            _named(b"te", b"trailers"),
            _literal(31, b"application/grpc"),  # content-type
            _named(b"user-agent", b"cfscale"),
        ]
    )
    return b"".join(
        [
            _PREFACE,
            _frame(_SETTINGS, 0, 0, b""),
            _frame(_HEADERS, _END_HEADERS, _STREAM, headers),
            _frame(_DATA, _END_STREAM, _STREAM, struct.pack("!BI", 0, len(message)) + message),
        ]
    )


def judge(data: bytes) -> Answer:
    """The verdict in a message: its first field is the status, which is left out where it is 0."""
    (length,) = struct.unpack_from("!I", data, 1) if len(data) >= 5 else (-1,)  # noqa: PLR2004 - flag and length
    message = data[5 : 5 + length]
    if length < 0 or len(message) != length or (message and message[:1] != b"\x08"):
        raise AnswerError("not an answer of the gRPC health service")
    status = message[1] if len(message) > 1 else 0
    word = _SERVING.get(status, f"status {status}")
    return (State.UP if word == "SERVING" else State.DOWN), word


def grpc_status(block: bytes) -> int | None:
    """The status in a block of headers or trailers, None where none is found."""
    for name in (_NAME, _NAME_HUFFMAN):
        place = block.find(name)
        if place >= 0:
            rest = block[place + len(name) :]
            return _number(rest[1 : 1 + (rest[0] & 0x7F)], huffman=bool(rest[0] & 0x80)) if rest else None
    return None


def _number(text: bytes, *, huffman: bool) -> int | None:
    if not huffman:
        return int(text) if text.isdigit() else None
    bits, found = "".join(f"{byte:08b}" for byte in text), ""
    while bits and set(bits) != {"1"}:
        size = next((n for n in (5, 6) if bits[:n] in _DIGITS), 0)
        if not size:
            return None
        found, bits = found + str(_DIGITS[bits[:size]]), bits[size:]
    return int(found) if found else None


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body


def _literal(index: int, value: bytes) -> bytes:
    """A header whose name is the static table's, not to be remembered."""
    head = bytes([index]) if index < 15 else bytes([15, index - 15])  # noqa: PLR2004 - four bits of a prefix
    return head + _varint7(len(value)) + value


def _named(name: bytes, value: bytes) -> bytes:
    return b"\0" + _varint7(len(name)) + name + _varint7(len(value)) + value


def _varint7(number: int) -> bytes:
    if number < 127:  # noqa: PLR2004 - seven bits of a prefix
        return bytes([number])
    return b"\x7f" + _varint(number - 127)


def _varint(number: int) -> bytes:
    encoded = b""
    while number >= 128:  # noqa: PLR2004 - seven bits a byte
        encoded, number = encoded + bytes([number % 128 | 128]), number // 128
    return encoded + bytes([number])


class _Frames:
    """The frames of a connection, one after the other."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._data = wire, b""

    async def next(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and body; raises AnswerError for what is none."""
        await self._fill(9)
        length = int.from_bytes(self._data[:3], "big")
        kind, flags, stream = struct.unpack_from("!BBI", self._data, 3)
        if length > _LONGEST:
            raise AnswerError(f"not an HTTP/2 answer: {self._data[:40].decode('ascii', 'replace')}")
        await self._fill(9 + length)
        body, self._data = self._data[9 : 9 + length], self._data[9 + length :]
        return kind, flags, stream & 0x7FFFFFFF, body

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:
            more = await self._wire.read()
            if not more:
                raise AnswerError("the connection was closed without an answer")
            self._data += more
