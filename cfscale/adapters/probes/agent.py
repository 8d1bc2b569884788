"""HAProxy's agent-check seen from the other side: a service that says of itself whether it wants work, and how much.

The answer is one line of words: a state (``up``, ``ready``, ``drain``, ``maint``, ``down``, ``stopped``, ``fail``), a
weight in percent, and anything after ``#`` for people. The last state wins, as it does in HAProxy.
"""

import re

from cfscale.adapters.probes.network import Answer, AnswerError, Dialer
from cfscale.core.health import State, Target

_STATES = {
    "up": State.UP,
    "ready": State.UP,
    "drain": State.DRAINING,
    "maint": State.MAINTENANCE,
    "down": State.DOWN,
    "failed": State.DOWN,
    "fail": State.DOWN,
    "stopped": State.DOWN,
}
_WEIGHT = re.compile(r"([0-9]{1,3})%", re.ASCII)
_CONNECTIONS = re.compile(r"maxconn:[0-9]+", re.ASCII)


async def probe_agent(dial: Dialer, _target: Target) -> Answer:
    """Connect and read the line that is sent without being asked for."""
    wire, data = await dial(), b""
    while b"\n" not in data and (more := await wire.read()):
        data += more
    if not data.strip():
        raise AnswerError("the connection was closed without an answer")
    return judge(data.partition(b"\n")[0].decode("ascii", "replace").strip())


def judge(line: str) -> Answer:
    """The verdict on an agent's line; a weight of 0 % takes no new work, which is what draining is."""
    said = line.partition("#")[0]
    state, weight = State.UP, ""
    for word in re.split(r"[\s,]+", said.strip().lower()):
        if word in _STATES:
            state = _STATES[word]
        elif match := _WEIGHT.fullmatch(word):
            weight = match[1]
        elif word and not _CONNECTIONS.fullmatch(word):
            raise AnswerError(f"not an agent's answer: {line[:40]}")
    if state is State.UP and weight and int(weight) == 0:
        state = State.DRAINING
    return state, f"agent says {line}" if said.strip() else "agent says nothing of its state"
