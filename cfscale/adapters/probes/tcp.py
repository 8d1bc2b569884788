"""Whether a connection is accepted, and no more than that."""

from cfscale.adapters.probes.http import Answer, Dial
from cfscale.core.health import State, Target


async def probe_tcp(dial: Dial, _target: Target) -> Answer:
    """Connect; being accepted is the whole answer."""
    await dial()
    return State.UP, "connected"
