"""CPU time to read many cgroups, on real ones without containers; needs root and a writable cgroup hierarchy.

    python bench/cgroups.py [N...]

Each cgroup is made below ``cfscale-bench`` of every controller that is read, holds no process, and is removed after.
Prints the best and the median of the rounds. Asserts nothing.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from cfscale.adapters.cgroup import CgroupReader
from cfscale.adapters.cgroup.layout import V2, read_mounts
from cfscale.core.samples import Replica, ReplicaState

CONTROLLERS = ("cpuacct", "cpu", "memory", "cpuset")
ROUNDS = 30
PARENT = "cfscale-bench"
GOALS = {100: 6.0, 1000: 50.0}


def main() -> None:
    counts = [int(word) for word in sys.argv[1:]] or [100, 1000]
    print(f"{'cgroups':>8}{'files':>16}{'best ms CPU':>14}{'median':>10}{'us each':>10}{'goal':>10}")
    for count in counts:
        root = Path(tempfile.mkdtemp(prefix="cfscale-bench-"))
        made: list[Path] = []
        try:
            replicas = [make(root, number, made) for number in range(count)]
            (root / "sys").symlink_to("/sys")
            for name, descriptors in (("opened each time", 0), ("kept open", 100_000)):
                best, middle = measured(CgroupReader(root, descriptors=descriptors), replicas)
                goal = f"{GOALS[count]:.0f} ms" if count in GOALS else "-"
                print(f"{count:8}{name:>16}{best:14.2f}{middle:10.2f}{1000 * best / count:10.1f}{goal:>10}")
        finally:
            for folder in reversed(made):
                folder.rmdir()
            shutil.rmtree(root)


def make(root: Path, number: int, made: list[Path]) -> Replica:
    """One cgroup in every hierarchy, and a process table that says somebody is in it."""
    identity = f"{number:064x}"
    mounts = read_mounts(Path("/"))
    names = [name for name in CONTROLLERS if name in mounts] or [V2]
    for name in dict.fromkeys(mounts[name].point for name in names):
        for folder in (Path(name) / PARENT, Path(name) / PARENT / identity):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
    process = root / f"proc/{number + 1}"
    process.mkdir(parents=True)
    lines = [f"{2 + at}:{name}:{top(mounts, name)}/{PARENT}/{identity}" for at, name in enumerate(names) if name != V2]
    lines += [f"0::{top(mounts, V2)}/{PARENT}/{identity}"] if V2 in names else []
    (process / "cgroup").write_text("\n".join(lines) + "\n")
    own = root / "proc/self"
    if not own.exists():
        own.mkdir()
        shutil.copy("/proc/self/mountinfo", own / "mountinfo")
    return Replica(identity, identity, "bench", ReplicaState.READY, 0.0, pid=number + 1)


def top(mounts, name: str) -> str:  # type: ignore[no-untyped-def]
    return mounts[name].top.rstrip("/")


def measured(reader: CgroupReader, replicas: list[Replica]) -> tuple[float, float]:
    """Best and median milliseconds of CPU of one reading of all of them."""
    found = reader.read(replicas)
    if len(found) != len(replicas):
        sys.exit(f"only {len(found)} of {len(replicas)} cgroups can be read here")
    spent = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        reader.read(replicas)
        spent.append(1000 * (time.process_time() - begin))
    reader.close()
    return min(spent), median(spent)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("needs root: cgroups are made and removed")
    main()
