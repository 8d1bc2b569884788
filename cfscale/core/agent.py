"""What an agent-check tells HAProxy of one server: how much more it can take, and whether it is there at all.

    up          the weight is what is free of the scarcer resource, in percent of the configured weight, never below 1
    draining    drain        paused   maint        down   down        unknown, starting   nothing: all stays as it is

``ready`` ends a drain or a maintenance that this agent began, and only such a one: an operator's, or the scaler's own,
must not be undone by a weight.
"""

from cfscale.core.health import Result, State
from cfscale.core.samples import Quality, Usage

_OUT = {State.DRAINING: "drain", State.MAINTENANCE: "maint"}
_TRUSTED = (Quality.OK, Quality.APPROX)


def free_percent(usage: Usage | None) -> int | None:
    """What is free of the scarcer of CPU and memory, 1 to 100; None where it is not known."""
    if usage is None or usage.quality not in _TRUSTED:
        return None
    taken = []
    if usage.cpu_cores is not None and usage.cpu_limit_cores:
        taken.append(usage.cpu_cores / usage.cpu_limit_cores)
    if usage.memory_bytes is not None and usage.memory_limit_bytes:
        taken.append((usage.memory_bytes - usage.reclaimable_bytes) / usage.memory_limit_bytes)
    return max(1, min(100, round(100 * (1 - max(taken))))) if taken else None


def agent_line(result: Result, free: int | None, before: str) -> str:
    """The line for a server that was told ``before``; empty leaves everything as it is."""
    if result.state in _OUT:
        return _OUT[result.state]
    if result.state is State.DOWN:
        return f"down #{result.reason}"
    if result.state not in (State.UP, State.DEGRADED):
        return ""
    back = "ready " if before in _OUT.values() else ""
    return f"{back}up" + ("" if free is None else f" {free}%")
