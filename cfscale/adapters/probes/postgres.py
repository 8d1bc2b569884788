"""PostgreSQL's start-up message, and a query where that needs no password.

AuthenticationOk              up         after a query, which tells primary from standby
asks for a password           up         it serves; nobody gave us one
too many connections          degraded   it serves, but not us
starting up, shutting down    down
any other error               up         it refuses us (no such user, no such database): it is there to do so
"""

import struct

from cfscale.adapters.probes.network import Answer, AnswerError, Dialer, Wire
from cfscale.core.health import State, Target

_PROTOCOL = 196_608  # 3.0
_QUERY = "SELECT pg_is_in_recovery()"
_AUTH, _ERROR, _READY, _ROW, _END_OF_CODE = b"R", b"E", b"Z", b"D", 0
_TERMINATE = b"X\0\0\0\4"
_AUTH_OK = 0
_DOWN_CODES = {"57P01", "57P02", "57P03"}
_TOO_MANY = "53300"
_LONGEST = 64 * 1024
_ASKED = {3: "a password", 5: "a password (MD5)", 7: "GSSAPI", 9: "SSPI", 10: "a password (SCRAM)"}


async def probe_postgres(dial: Dialer, target: Target) -> Answer:
    """Begin a session as the target's user in its database; see above for what the answers mean."""
    messages = _Messages(await dial())
    await messages.wire.send(startup(target.user or "postgres", target.about[0] if target.about else "postgres"))
    kind, body = await messages.next()
    if kind == _ERROR:
        return refused(body)
    if kind != _AUTH or len(body) < struct.calcsize("!I"):
        raise AnswerError("not a PostgreSQL answer")
    (wanted,) = struct.unpack_from("!I", body)
    if wanted != _AUTH_OK:
        return State.UP, f"alive; asks for {_ASKED.get(wanted, 'authentication')}"
    return await _queried(messages)


async def _queried(messages: "_Messages") -> Answer:
    await _until_ready(messages)
    text = _QUERY.encode() + b"\0"
    await messages.wire.send(b"Q" + struct.pack("!I", len(text) + 4) + text)
    rows = await _until_ready(messages)
    await messages.wire.send(_TERMINATE)
    standby = any(row.endswith(b"t") for row in rows)
    return State.UP, f"answers queries; {'standby' if standby else 'primary'}"


async def _until_ready(messages: "_Messages") -> list[bytes]:
    """The rows up to the next ReadyForQuery; raises AnswerError for an error."""
    rows: list[bytes] = []
    while True:
        kind, body = await messages.next()
        if kind == _READY:
            return rows
        if kind == _ERROR:
            raise AnswerError(refused(body)[1])
        if kind == _ROW:
            rows.append(body)


def startup(user: str, database: str) -> bytes:
    """The first message of a session."""
    words = ("user", user, "database", database, "application_name", "cfscale")
    body = struct.pack("!I", _PROTOCOL) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def refused(body: bytes) -> Answer:
    """The verdict on an error."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    code, message = fields.get(b"C", ""), fields.get(b"M", "an error without a message")
    if code in _DOWN_CODES:
        return State.DOWN, message
    if code == _TOO_MANY:
        return State.DEGRADED, f"alive, but {message}"
    return State.UP, f"alive; refuses this user: {message}"


class _Messages:
    """The messages of a session, one after the other."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self._data = wire, b""

    async def next(self) -> tuple[bytes, bytes]:
        """Type and body; raises AnswerError for what cannot be one."""
        await self._fill(5)
        kind, length = self._data[:1], struct.unpack_from("!I", self._data, 1)[0]
        if not kind.isalpha() or not 4 <= length <= _LONGEST:  # noqa: PLR2004 - the length counts itself
            raise AnswerError(f"not a PostgreSQL answer: {self._data[:40].decode('ascii', 'replace')}")
        await self._fill(length + 1)
        body, self._data = self._data[5 : length + 1], self._data[length + 1 :]
        return kind, body

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:
            more = await self.wire.read()
            if not more:
                raise AnswerError("the connection was closed without an answer")
            self._data += more
