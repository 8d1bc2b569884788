"""CPU and memory of local replicas, by psutil.

The figures are ``approx``: counted in ticks of 10 ms, and the children of a program that ignores SIGCHLD leave no
account. Limits are those of the plan; nothing enforces them on local processes.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from msgspec.structs import replace

from cfscale.adapters.process.procfs import Stat, read_stat
from cfscale.adapters.process.tree import Table, cpu_seconds, memory_bytes, read_table
from cfscale.core.plan import Service
from cfscale.core.samples import Quality, Replica, Usage

SHORTEST_WINDOW_SECONDS = 0.2


class UsageReader:
    """Usage since the previous call; keeps its own previous readings, by replica id."""

    def __init__(self, services: Sequence[Service], folder: Path) -> None:
        """``folder`` is on the disk that the replicas share."""
        self._services = {service.name: service for service in services}
        self._folder = folder
        self._previous: dict[str, tuple[float, float]] = {}

    def read(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The usage of the replicas that still are the processes they were; the others are left out."""
        present = [(replica, stat) for replica in replicas if (stat := _verified(replica)) is not None]
        table, disk = read_table(), _disk_ratio(self._folder)
        self._previous = {
            replica.id: self._previous[replica.id] for replica, _ in present if replica.id in self._previous
        }
        return tuple(replace(self._usage(replica, stat, table), disk_ratio=disk) for replica, stat in present)

    def _usage(self, replica: Replica, stat: Stat, table: Table) -> Usage:
        # the shim is the parent: children that outlived their own parent are in its account
        now, seconds = time.monotonic(), cpu_seconds(stat.parent, table)
        window, cores = self._rate(replica.id, now, seconds)
        service = self._services[replica.service]
        memory = service.memory_limit_bytes or service.memory_request_bytes
        return Usage(
            replica=replica.id,
            source="psutil",
            taken_at=time.time(),
            window_seconds=window,
            quality=Quality.WARMING if cores is None else Quality.APPROX,
            cpu_cores=cores,
            memory_bytes=memory_bytes(stat.parent, table),
            cpu_limit_cores=(service.cpu_limit_millicores or service.cpu_request_millicores) / 1000,
            memory_limit_bytes=memory,
        )

    def _rate(self, replica: str, now: float, seconds: float) -> tuple[float, float | None]:
        """(window, cores); no cores yet for a first reading, a window too short for ticks, or a counter that ran back."""
        if replica not in self._previous:
            self._previous[replica] = (now, seconds)
            return 0.0, None
        then, before = self._previous[replica]
        window = now - then
        if window < SHORTEST_WINDOW_SECONDS or seconds < before:
            return window, None
        self._previous[replica] = (now, seconds)
        return window, (seconds - before) / window


def _disk_ratio(folder: Path) -> float | None:
    try:
        return psutil.disk_usage(str(folder)).percent / 100
    except OSError:
        return None


def _verified(replica: Replica) -> Stat | None:
    """The replica's process, if the pid is still its own."""
    stat = read_stat(replica.pid) if replica.pid else None
    return stat if stat is not None and stat.identity == replica.id else None
