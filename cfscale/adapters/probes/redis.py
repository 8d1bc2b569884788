"""PING to Redis or Valkey, after AUTH where the password is at hand."""

from cfscale.adapters.probes.network import Answer, AnswerError, Dialer, Wire
from cfscale.core.health import State, Target


async def probe_redis(dial: Dialer, target: Target) -> Answer:
    """+PONG is up, and so is a server that asks for a password nobody gave us; one that refuses ours is degraded."""
    wire = await dial()
    commands = [("PING",)] if target.secret is None else [("AUTH", target.secret), ("PING",)]
    await wire.send(b"".join(command(*words) for words in commands))
    *before, answer = await _lines(wire, len(commands))
    if not answer.startswith(("+PONG", "-NOAUTH")):
        return State.DOWN, answer.lstrip("-") if answer.startswith("-") else f"not a redis answer: {answer[:40]}"
    if before and before[0] != "+OK":
        return State.DEGRADED, f"alive, but refuses the password: {before[0].lstrip('-')}"
    return State.UP, "PONG" if answer.startswith("+PONG") else "alive; asks for a password"


def command(*words: str) -> bytes:
    """The bytes of one command."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


async def _lines(wire: Wire, count: int) -> list[str]:
    """So many lines; a server that closes after an error line has said enough."""
    data = b""
    while data.count(b"\r\n") < count:
        more = await wire.read()
        if not more:
            break
        data += more
    lines = data.split(b"\r\n")[:count]
    if not data:
        raise AnswerError("the connection was closed without an answer")
    return [line.decode("ascii", "replace") for line in lines]
