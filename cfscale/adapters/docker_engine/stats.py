"""Usage by the engine's own statistics: where cgroup files are out of reach, as on a remote engine.

One answer a container, all asked for at once, each compared with our own previous one. Engines before 23.0.8 take one
to two seconds for an answer: ``streams`` follows those instead.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
from msgspec import Struct

from cfscale.core.counters import Reading, usages
from cfscale.core.samples import Replica, Usage
from cfscale.errors import UnavailableError

_THREADS = 64


class CpuUsage(msgspec.Struct):
    """Nanoseconds since the container's start."""

    total_usage: int = 0


class Throttling(msgspec.Struct):
    """Periods of the quota."""

    periods: int = 0
    throttled_periods: int = 0


class CpuStats(msgspec.Struct):
    """CPU part of an answer."""

    cpu_usage: CpuUsage
    throttling_data: Throttling = msgspec.field(default_factory=Throttling)


class MemoryStats(msgspec.Struct):
    """Memory part of an answer; empty where there is no controller, or no process."""

    usage: int | None = None
    stats: dict[str, int] = {}


class Stats(msgspec.Struct):
    """One answer. Of a container that does not run it is empty, and ``read`` is in the year 1."""

    read: str
    cpu_stats: CpuStats
    memory_stats: MemoryStats = msgspec.field(default_factory=MemoryStats)

    @property
    def running(self) -> bool:
        """Whether these are figures of a process."""
        return not self.read.startswith("0001-")


class Measured(Struct, frozen=True):
    """An answer with the container's start and limits, which it does not tell, and when it came (None: just now)."""

    stats: Stats
    started_at: str
    cpu_limit_cores: float | None
    memory_limit_bytes: int | None
    at_seconds: float | None = None
    taken_at: float | None = None


class StatsReader:
    """Usage since the previous call, by replica, from ``measure`` (None: gone; may raise UnavailableError).

    ``keep`` is told whose statistics are still wanted.
    """

    def __init__(
        self,
        measure: Callable[[str], Measured | None],
        clock: Callable[[], float] = time.monotonic,
        keep: Callable[[Collection[str]], None] = lambda _: None,
    ) -> None:
        self._measure = measure
        self._clock = clock
        self._keep = keep
        self._previous: Mapping[str, Reading] = {}

    def read(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The usage of these replicas; one that is gone, does not run or does not answer is left out."""
        readings: list[Reading | None] = []
        self._keep([replica.id for replica in replicas])
        if replicas:
            with ThreadPoolExecutor(min(len(replicas), _THREADS)) as pool:
                readings = list(pool.map(self._reading, (replica.id for replica in replicas)))
        found, self._previous = usages(self._previous, (reading for reading in readings if reading is not None))
        return found

    def _reading(self, container: str) -> Reading | None:
        try:
            measured = self._measure(container)
        except UnavailableError:
            return None  # the others are not affected; no figure blocks shrinking
        if measured is None or not measured.stats.running:
            return None
        cpu, memory = measured.stats.cpu_stats, measured.stats.memory_stats
        working_set = working_set_of(memory)
        return Reading(
            replica=container,
            source="engine-api",
            at_seconds=self._clock() if measured.at_seconds is None else measured.at_seconds,
            taken_at=time.time() if measured.taken_at is None else measured.taken_at,
            life=measured.started_at,
            cpu_seconds=cpu.cpu_usage.total_usage / 1e9,
            memory_bytes=working_set,
            reclaimable_bytes=min(_reclaimable(memory.stats), working_set or 0),
            periods=cpu.throttling_data.periods,
            throttled_periods=cpu.throttling_data.throttled_periods,
            cpu_limit_cores=measured.cpu_limit_cores,
            memory_limit_bytes=measured.memory_limit_bytes,
        )


def working_set_of(memory: MemoryStats) -> int | None:
    """Usage less inactive page cache (the total of v1, the figure of v2); None where there is no usage."""
    if memory.usage is None:
        return None
    return max(0, memory.usage - memory.stats.get("total_inactive_file", memory.stats.get("inactive_file", 0)))


def _reclaimable(stats: Mapping[str, int]) -> int:
    if "total_active_file" in stats:
        return stats["total_active_file"]
    return stats.get("active_file", 0) + stats.get("slab_reclaimable", 0)
