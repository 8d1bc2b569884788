"""Erlang C, exactly: how many servers keep the share of waiting arrivals below a target."""

from cfscale.errors import RefusedError

_MAX_LOAD = 1_000_000.0


def wait_probability(servers: int, load: float) -> float:
    """P(wait) of an M/M/n queue with ``load`` in erlangs (arrival rate x service time); 1.0 where it is not stable."""
    if servers <= load:
        return 1.0
    blocking = 1.0
    for n in range(1, servers + 1):
        blocking = load * blocking / (n + load * blocking)
    return _waiting(blocking, servers, load)


def minimal_servers(load: float, target: float) -> int:
    """The least number of servers with P(wait) <= target: it holds the target, one fewer does not.

    Takes O(load) steps. Raises RefusedError past a million erlangs.
    """
    if load > _MAX_LOAD:
        raise RefusedError(f"slo: {load:.0f} busy agents on average are beyond one deployment: split the workload")
    blocking, n = 1.0, 0
    while n <= load or _waiting(blocking, n, load) > target:
        n += 1
        blocking = load * blocking / (n + load * blocking)
    return n


def _waiting(blocking: float, servers: int, load: float) -> float:
    return servers * blocking / (servers - load * (1 - blocking))
