"""What containers of this host use, from their cgroup files: v1, v2 and both at once (then v1 controllers win).

    /proc/PID/cgroup ─▶ path ─▶ (/proc/self/mountinfo) directory per controller ─▶ pread of cached descriptors ─▶ Reading

A container counts as readable only if the path that its process is in names the container's id: on a remote engine
the same process id may be somebody else here. What cannot be read is left out, for another source to answer.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from cfscale.adapters.cgroup.accounts import Limits, cpu, limits, memory
from cfscale.adapters.cgroup.files import Files, descriptor_budget
from cfscale.adapters.cgroup.layout import Mounts, directories, read_mounts
from cfscale.core.counters import Reading, usages
from cfscale.core.samples import Replica, Usage

LIMITS_SECONDS = 30.0


class _Place(Struct, frozen=True):
    """Where the counters of one container are, one directory a controller, and its limits as last read."""

    pid: int
    folders: Mapping[str, Path]
    limits: Limits
    limits_at: float
    life: str = ""


class CgroupReader:
    """Usage since the previous call, by replica. ``root`` is where ``/proc`` and the cgroup mounts are found.

    At most ``descriptors`` files are kept open (half of what this process may open, where not given); what is beyond
    is opened for each reading.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        cores: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        descriptors: int | None = None,
    ) -> None:
        self._root = root
        self._cores = cores or os.cpu_count() or 1
        self._clock = clock
        self._files = Files(descriptor_budget() if descriptors is None else descriptors)
        self._mounts: Mounts = {}
        self._places: dict[str, _Place] = {}
        self._previous: dict[str, Reading] = {}

    def read(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The usage of the replicas whose counters are readable here; those that are not asked for are forgotten."""
        for gone in self._places.keys() - {replica.id for replica in replicas}:
            self._forget(gone)
        readings = [reading for replica in replicas if (reading := self._reading(replica)) is not None]
        found, self._previous = usages(self._previous, readings)
        return found

    def close(self) -> None:
        """Close every descriptor; the reader may be used again."""
        for replica in tuple(self._places):
            self._forget(replica)

    def _reading(self, replica: Replica) -> Reading | None:
        known = self._places.get(replica.id)
        if known is not None and known.pid == replica.pid and (reading := self._measure(replica.id, known)):
            return reading
        self._forget(replica.id)
        place = self._find(replica)
        return None if place is None else self._measure(replica.id, place)

    def _forget(self, replica: str) -> None:
        place = self._places.pop(replica, None)
        if place is not None:
            self._files.close(place.folders.values())

    def _find(self, replica: Replica) -> _Place | None:
        """Where the replica's counters are; None where they are not on this host, or not mounted."""
        if not replica.pid:
            return None
        try:
            membership = (self._root / f"proc/{replica.pid}/cgroup").read_text(encoding="utf-8", errors="replace")
            self._mounts = self._mounts or read_mounts(self._root)
        except OSError:
            return None
        folders = directories(membership, replica.id, self._mounts, self._root)
        return _Place(replica.pid, folders, Limits(), float("-inf")) if folders else None

    def _measure(self, replica: str, place: _Place) -> Reading | None:
        """One reading, or None where the cgroup is gone or nothing of it can be read."""
        place = self._refreshed(replica, place)
        now = self._clock()
        spent, used = cpu(self._files, place.folders), memory(self._files, place.folders)
        life = self._life(place)
        if life is None or (spent.seconds is None and used.working_set is None):
            return None
        return Reading(
            replica=replica,
            source="cgroup",
            at_seconds=now,
            taken_at=time.time(),
            life=life,
            cpu_seconds=spent.seconds,
            memory_bytes=used.working_set,
            reclaimable_bytes=used.reclaimable,
            periods=spent.periods,
            throttled_periods=spent.throttled,
            oom_kills=used.oom_kills,
            cpu_limit_cores=place.limits.cores,
            memory_limit_bytes=place.limits.memory_bytes,
        )

    def _life(self, place: _Place) -> str | None:
        """What a container that is started again has not in common with its last life: process and inode."""
        folder = next(iter(place.folders.values()))
        if place.life and any(map(self._files.holds, place.folders.values())):
            return place.life
        try:
            return f"{place.pid}.{os.stat(folder).st_ino}"  # noqa: PTH116 - pathlib takes as long as the call itself
        except OSError:
            return None

    def _refreshed(self, replica: str, place: _Place) -> _Place:
        """The place with limits that are not old: they rarely change, so they are not part of every reading."""
        now = self._clock()
        if now - place.limits_at >= LIMITS_SECONDS:
            found = limits(self._files, place.folders, self._cores)
            place = _Place(place.pid, place.folders, found, now, self._life(place) or "")
        self._places[replica] = place
        return place
