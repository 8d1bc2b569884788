"""The identity of a process: its pid *and* its start time, written ``pid@start``; a pid alone may change hands.

One line of ``/proc/PID/stat`` gives pid, parent and start at one moment, which is why it is read here and not asked of
a library in three questions.
"""

from pathlib import Path

from msgspec import Struct

PROC = Path("/proc")


class Stat(Struct, frozen=True):
    """One line of ``/proc/PID/stat``, as far as it is needed. ``start_ticks`` count from the boot."""

    pid: int
    parent: int
    state: str
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
        start_ticks=int(fields[19]),
    )


def read_stat(pid: int) -> Stat | None:
    """The stat of a process, or None when there is none of this pid."""
    try:
        return parse_stat((PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None
