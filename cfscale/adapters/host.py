"""What this host uses as a whole, for deployments that no engine runs. An approximation: others live here too."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from cfscale.core.counters import Reading, usages
from cfscale.core.samples import Quality, Usage
from cfscale.errors import UnavailableError

HOST = "host"


class HostReader:
    """Usage of the host since the previous call; the disk is the one that holds ``path``."""

    def __init__(self, path: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._previous: Mapping[str, Reading] = {}

    def read(self) -> Usage:
        """CPU, memory and disk of the host; raises UnavailableError where the system does not tell."""
        import psutil

        try:
            times, memory, disk = psutil.cpu_times(), psutil.virtual_memory(), psutil.disk_usage(str(self._path))
        except (OSError, psutil.Error) as exc:
            raise UnavailableError(f"{self._path}: the host's totals cannot be read: {exc}") from exc
        reading = Reading(
            replica=HOST,
            source="psutil",
            at_seconds=self._clock(),
            taken_at=time.time(),
            life="",
            cpu_seconds=_busy(times._asdict()),
            memory_bytes=memory.total - memory.available,
            cpu_limit_cores=float(psutil.cpu_count() or 1),
            memory_limit_bytes=memory.total,
        )
        (usage,), self._previous = usages(self._previous, (reading,))
        return _approximate(usage, disk.percent / 100)


def _busy(times: Mapping[str, float]) -> float:
    """CPU seconds at work: not idle, not waiting for a disk, not another guest's; guests of ours are within user."""
    return sum(times.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))


def _approximate(usage: Usage, disk_ratio: float) -> Usage:
    quality = Quality.APPROX if usage.quality is Quality.OK else usage.quality
    return replace(usage, quality=quality, disk_ratio=disk_ratio)
