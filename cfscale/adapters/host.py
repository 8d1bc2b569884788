"""The ``host`` engine: what this host uses as a whole, for deployments that something else runs.

It only recommends. The planned replicas are taken to share the host evenly, which is an approximation: others live
here too.
"""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from cfscale.core.counters import Reading, usages
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.errors import InputError, UnavailableError

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


class HostEngine:
    """Stands for the planned replicas, each as busy as the host; whatever would change something raises InputError."""

    def __init__(self, plan: DeploymentPlan) -> None:
        self._plan = plan
        self._reader = HostReader()

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return HOST

    @property
    def target(self) -> str:
        """The host and the deployment; nothing is ever locked for it."""
        return f"host:{socket.gethostname()}:{self._plan.name}"

    def replicas(self) -> tuple[Replica, ...]:
        """As many ready replicas of every service as the plan says."""
        return tuple(
            Replica(f"{service.name}-{number}", f"{service.name}-{number}", service.name, ReplicaState.READY, 0.0)
            for service in self._plan.services
            for number in range(1, service.replicas + 1)
        )

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The host's own usage, for each of them."""
        usage = self._reader.read()
        return tuple(replace(usage, replica=replica.id) for replica in replicas)

    def up(self, counts: Mapping[str, int]) -> None:
        """Nothing can be started here."""
        raise _only_recommends()

    def down(self, *, volumes: bool) -> None:
        """Nothing can be stopped here."""
        raise _only_recommends()

    def grow(self, service: Service, count: int) -> None:
        """Nothing can be started here."""
        raise _only_recommends()

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Nothing can be stopped here."""
        raise _only_recommends()


def _only_recommends() -> InputError:
    return InputError("--engine host only recommends: choose process or compose to act")
