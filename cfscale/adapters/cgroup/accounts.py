"""What the files of one cgroup say, the same figures from v1 and v2. A missing file makes its own figure None."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from cfscale.adapters.cgroup.files import Files
from cfscale.adapters.cgroup.layout import V2

Folders = Mapping[str, Path]
_NO_LIMIT = 2**62  # v1 says 9223372036854771712 where v2 says max


class Cpu(Struct, frozen=True):
    """CPU time since the cgroup was made, and the periods of its quota."""

    seconds: float | None
    periods: int
    throttled: int


class Memory(Struct, frozen=True):
    """The working set (usage less inactive page cache, as Docker counts), and what of it the kernel can take back."""

    working_set: int | None
    reclaimable: int
    oom_kills: int


class Limits(Struct, frozen=True):
    """None: no limit, the host is it."""

    cores: float | None = None
    memory_bytes: int | None = None


def cpu(files: Files, folders: Folders) -> Cpu:
    """CPU time and quota periods; v1 accounting where there is any, else the unified hierarchy."""
    stat = _read(files, folders, "cpu" if "cpu" in folders else V2, "cpu.stat")
    return Cpu(_cpu_seconds(files, folders), _value(stat, "nr_periods") or 0, _value(stat, "nr_throttled") or 0)


def _cpu_seconds(files: Files, folders: Folders) -> float | None:
    nanoseconds = _number(_read(files, folders, "cpuacct", "cpuacct.usage"))
    if nanoseconds is not None:
        return nanoseconds / 1e9
    microseconds = _value(_read(files, folders, V2, "cpu.stat"), "usage_usec")
    return None if microseconds is None else microseconds / 1e6


def memory(files: Files, folders: Folders) -> Memory:
    """Memory in use and processes killed for want of it."""
    if "memory" in folders:
        used = _number(_read(files, folders, "memory", "memory.usage_in_bytes"))
        stat = _read(files, folders, "memory", "memory.stat")
        kills = _value(_read(files, folders, "memory", "memory.oom_control"), "oom_kill")
        return _memory(used, _value(stat, "total_inactive_file"), _value(stat, "total_active_file") or 0, kills or 0)
    used = _number(_read(files, folders, V2, "memory.current"))
    stat = _read(files, folders, V2, "memory.stat")
    kills = _value(_read(files, folders, V2, "memory.events"), "oom_kill")
    reclaimable = (_value(stat, "active_file") or 0) + (_value(stat, "slab_reclaimable") or 0)
    return _memory(used, _value(stat, "inactive_file"), reclaimable, kills or 0)


def _memory(used: int | None, inactive: int | None, reclaimable: int, oom_kills: int) -> Memory:
    if used is None or inactive is None:
        return Memory(None, 0, oom_kills)
    working_set = max(0, used - inactive)
    return Memory(working_set, min(reclaimable, working_set), oom_kills)


def limits(files: Files, folders: Folders, cores: int) -> Limits:
    """The limits in force; a cpuset of all ``cores`` of the host is none."""
    candidates = (_quota(files, folders), _cpuset(files, folders, cores))
    lowest = min((limit for limit in candidates if limit is not None), default=None)
    if "memory" in folders:
        ceiling = _value(_once(files, folders, "memory", "memory.stat"), "hierarchical_memory_limit")
    else:
        ceiling = _number(_once(files, folders, V2, "memory.max"))
    return Limits(lowest, None if ceiling is None or ceiling >= _NO_LIMIT else ceiling)


def _quota(files: Files, folders: Folders) -> float | None:
    if "cpu" in folders:
        words = [_once(files, folders, "cpu", f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    else:
        words = (_once(files, folders, V2, "cpu.max") or "").split()
    quota, period = (_number(words[0]), _number(words[1])) if len(words) > 1 else (None, None)
    return quota / period if quota and quota > 0 and period else None


def _cpuset(files: Files, folders: Folders, cores: int) -> float | None:
    text = _once(files, folders, "cpuset", "cpuset.cpus") or _once(files, folders, V2, "cpuset.cpus.effective")
    count = _cpu_count((text or "").strip())
    return float(count) if 0 < count < cores else None


def _cpu_count(text: str) -> int:
    """How many CPUs a list such as ``0-3,8`` names; 0 for what is no list."""
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _number(first), _number(last or first)
        if begin is None or end is None:
            return 0
        count += end - begin + 1
    return count


def _read(files: Files, folders: Folders, controller: str, name: str) -> str | None:
    return files.read(folders[controller], name) if controller in folders else None


def _once(files: Files, folders: Folders, controller: str, name: str) -> str | None:
    return files.read_once(folders[controller], name) if controller in folders else None


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text else None
    except ValueError:
        return None


def _value(text: str | None, name: str) -> int | None:
    """The number behind a name in lines of ``name number``; looked for in place, for there are many lines."""
    if text is None:
        return None
    _, found, rest = f"\n{text}".partition(f"\n{name} ")
    return _number(rest.partition("\n")[0]) if found else None
