"""Processes as ``/proc`` shows them: identity, family, CPU and memory of a whole tree.

A process is known by its pid *and* its start time, written ``pid@start``: a pid alone may have changed hands. The
CPU of a tree is what its living members used, plus what the children they reaped had used: a worker that forks
per request would look idle otherwise.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READINGS = 4


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of ``/proc/PID/stat``, as far as it is needed. Ticks are of ``TICKS_PER_SECOND``."""

    pid: int
    parent: int
    state: str
    own_ticks: int
    reaped_ticks: int
    start_ticks: int

    @property
    def identity(self) -> str:
        """``pid@start``: the name that no other process of this boot can have."""
        return f"{self.pid}@{self.start_ticks}"


def parse_stat(line: str) -> Stat:
    """The fields of a stat line; the command's name may hold blanks and brackets."""
    head, _, tail = line.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=int(head.partition(" ")[0]),
        state=fields[0],
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        reaped_ticks=int(fields[13]) + int(fields[14]),
        start_ticks=int(fields[19]),
    )


def read_stat(pid: int) -> Stat | None:
    """The stat of a process, or None when there is none of this pid."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_table() -> dict[int, Stat]:
    """The stat of every process there is."""
    pids = (int(name) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208 - Path objects cost twice the time
    return {pid: stat for pid in pids if (stat := read_stat(pid)) is not None}


def family(table: Mapping[int, Stat], root: int) -> tuple[Stat, ...]:
    """The process and all its descendants, itself first; empty when it is gone."""
    children: dict[int, list[int]] = {}
    for stat in table.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found, queue = [], [root] if root in table else []
    while queue:
        pid = queue.pop()
        found.append(table[pid])
        queue.extend(children.get(pid, ()))
    return tuple(found)


def cpu_seconds(root: int, table: Mapping[int, Stat]) -> float:
    """CPU seconds of a tree since it began, children that ended and were reaped included.

    A child that ends between two reads is either missed or counted twice, so the tree is read again until no
    account of reaped children moved; in a fork storm the error left is what such children used in a millisecond.
    """
    members = family(table, root)
    for _ in range(_READINGS):
        if all(_unmoved(stat) for stat in members):
            break
        members = family(read_table(), root)
    return sum(stat.own_ticks + stat.reaped_ticks for stat in members) / TICKS_PER_SECOND


def _unmoved(stat: Stat) -> bool:
    again = read_stat(stat.pid)
    return again is not None and again.reaped_ticks == stat.reaped_ticks


def memory_bytes(members: Iterable[Stat]) -> int:
    """Memory of these processes, pages they share counted once (PSS); resident size where that is not readable."""
    return sum(_process_bytes(stat.pid) for stat in members)


def _process_bytes(pid: int) -> int:
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return int((PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return 0
