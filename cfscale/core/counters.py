"""From running totals to rates: what a replica used between two readings of its counters.

    reading ─▶ is it the same life as the previous one, and is the window long enough? ─▶ Usage

A first reading, a counter that ran backwards and a window too short to divide by give no figure (``warming``):
never a zero, which would look idle.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from cfscale.core.samples import Quality, Usage

SHORTEST_WINDOW_SECONDS = 0.2


class Reading(Struct, frozen=True):
    """The totals of one replica at one moment. None: that controller is missing or cannot be read.

    ``at_seconds`` is on a clock that nobody sets; ``life`` differs where the counters have begun anew.
    """

    replica: str
    source: str
    at_seconds: float
    taken_at: float
    life: str
    cpu_seconds: float | None
    memory_bytes: int | None
    reclaimable_bytes: int = 0
    periods: int = 0
    throttled_periods: int = 0
    oom_kills: int = 0
    cpu_limit_cores: float | None = None
    memory_limit_bytes: int | None = None


def usages(
    previous: Mapping[str, Reading], readings: Iterable[Reading]
) -> tuple[tuple[Usage, ...], dict[str, Reading]]:
    """The usage of each reading against the previous ones, and the readings to compare with next time.

    A replica that is not read this time is forgotten: were it back later, its window would span what nobody saw.
    """
    found: list[Usage] = []
    kept: dict[str, Reading] = {}
    for reading in readings:
        before = _baseline(previous.get(reading.replica), reading)
        found.append(_usage(before, reading))
        kept[reading.replica] = before if before is not None and _too_short(before, reading) else reading
    return tuple(found), kept


def _baseline(before: Reading | None, reading: Reading) -> Reading | None:
    """The previous reading, if the counters went on from it."""
    if before is None or before.life != reading.life or before.source != reading.source:
        return None
    backwards = (reading.cpu_seconds or 0.0) < (before.cpu_seconds or 0.0) or reading.periods < before.periods
    return None if backwards else before


def _too_short(before: Reading, reading: Reading) -> bool:
    return reading.at_seconds - before.at_seconds < SHORTEST_WINDOW_SECONDS


def _usage(before: Reading | None, reading: Reading) -> Usage:
    usable = None if before is None or _too_short(before, reading) else before
    window = 0.0 if before is None else reading.at_seconds - before.at_seconds
    return Usage(
        replica=reading.replica,
        source=reading.source,
        taken_at=reading.taken_at,
        window_seconds=window,
        quality=_quality(usable, reading),
        cpu_cores=_cores(usable, reading),
        memory_bytes=reading.memory_bytes,
        reclaimable_bytes=reading.reclaimable_bytes,
        cpu_limit_cores=reading.cpu_limit_cores,
        memory_limit_bytes=reading.memory_limit_bytes,
        throttled_ratio=_throttled(usable, reading),
        oom_kills=max(0, reading.oom_kills - before.oom_kills) if before else 0,
    )


def _quality(before: Reading | None, reading: Reading) -> Quality:
    if reading.cpu_seconds is None or reading.memory_bytes is None:
        return Quality.PARTIAL
    return Quality.WARMING if before is None else Quality.OK


def _cores(before: Reading | None, reading: Reading) -> float | None:
    if before is None or before.cpu_seconds is None or reading.cpu_seconds is None:
        return None
    return (reading.cpu_seconds - before.cpu_seconds) / (reading.at_seconds - before.at_seconds)


def _throttled(before: Reading | None, reading: Reading) -> float:
    """The share of quota periods in which the replica was held back."""
    periods = reading.periods - before.periods if before else 0
    return (reading.throttled_periods - before.throttled_periods) / periods if before and periods > 0 else 0.0
