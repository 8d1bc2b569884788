"""CPU and memory of a process with all its descendants, by psutil.

The CPU of a tree is what its living members used, plus what the children they reaped had used: a worker that forks
per request would look idle otherwise. The table of processes is read once for all trees.
"""

from collections.abc import Mapping

import psutil
from msgspec import Struct

_READINGS = 4


class Member(Struct, frozen=True):
    """A process as the table shows it; seconds of CPU, its own and those of children it has reaped."""

    process: psutil.Process
    parent: int
    own_seconds: float
    reaped_seconds: float


Table = Mapping[int, Member]


def read_table() -> dict[int, Member]:
    """Every process there is."""
    table = {}
    for process in psutil.process_iter(["ppid", "cpu_times"]):
        times = process.info["cpu_times"]
        if times is not None:
            own, reaped = times.user + times.system, times.children_user + times.children_system
            table[process.pid] = Member(process, process.info["ppid"], own, reaped)
    return table


def family(table: Table, root: int) -> tuple[Member, ...]:
    """The process and all its descendants, itself first; empty when it is gone."""
    children: dict[int, list[int]] = {}
    for pid, member in table.items():
        children.setdefault(member.parent, []).append(pid)
    found, queue = [], [root] if root in table else []
    while queue:
        pid = queue.pop()
        found.append(table[pid])
        queue.extend(children.get(pid, ()))
    return tuple(found)


def cpu_seconds(root: int, table: Table) -> float:
    """CPU seconds of a tree since it began, children that ended and were reaped included.

    A child that ends between two reads is either missed or counted twice, so the tree is read again until no
    account of reaped children moved; in a fork storm the error left is what such children used in a millisecond.
    """
    members = family(table, root)
    for _ in range(_READINGS):
        if all(_unmoved(member) for member in members):
            break
        members = family(read_table(), root)
    return sum(member.own_seconds + member.reaped_seconds for member in members)


def _unmoved(member: Member) -> bool:
    try:
        times = member.process.cpu_times()
    except psutil.Error:
        return False
    return bool(times.children_user + times.children_system == member.reaped_seconds)


def memory_bytes(root: int, table: Table) -> int:
    """Memory of the descendants, pages they share counted once (PSS); resident size where that is not readable."""
    return sum(_process_bytes(member.process) for member in family(table, root)[1:])


def _process_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
