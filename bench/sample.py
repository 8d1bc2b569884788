"""CPU time of one sample of N containers: cgroup files and the Engine API against ``docker stats --no-stream``.

    python bench/sample.py [N] [IMAGE]

Counted are the client and, where their processes can be seen, the daemon, containerd and the shims; those are shared,
so the figures are clean only on an engine that does nothing else. Asserts nothing. Removes its containers.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from cfscale.adapters.cgroup import CgroupReader
from cfscale.adapters.docker_engine import DockerEngine, StatsReader

PROJECT = "cfscale-bench-sample"
DAEMONS = ("dockerd", "containerd", "containerd-shim")
GOAL = 100


class Cost(Struct, frozen=True):
    """Milliseconds of one sample."""

    wall: float
    client: float
    daemon: float

    @property
    def total(self) -> float:
        """CPU of both sides."""
        return self.client + self.daemon


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    image = sys.argv[2] if len(sys.argv) > 2 else "python:3.13-slim"
    docker = DockerEngine()
    try:
        ids = start(count, image)
        measure(docker, ids)
    finally:
        remove()
        docker.close()


def measure(docker: DockerEngine, ids: list[str]) -> None:
    replicas = docker.replicas(PROJECT, {"sleeper": 80}, ())
    opened, cached, stats = CgroupReader(descriptors=0), CgroupReader(), StatsReader(docker.measure)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "docker stats --no-stream": (lambda: run("docker", "stats", "--no-stream", *ids), 3),
        "Engine API, one-shot": (lambda: stats.read(replicas), 3),
        "list of containers": (lambda: docker.replicas(PROJECT, {"sleeper": 80}, ()), 50),
        "cgroup files, opened each time": (lambda: opened.read(replicas), 200),
        "cgroup files, kept open": (lambda: cached.read(replicas), 200),
    }
    costs = {name: cost(*case) for name, case in cases.items()}
    cached.close()
    yardstick = next(iter(costs.values())).total
    print(f"{len(replicas)} containers, ms a sample")
    print(f"{'source':<32}{'wall':>9}{'client':>9}{'daemon':>9}{'CPU':>9}{'less CPU':>10}")
    for name, found in costs.items():
        ratio = f"{yardstick / found.total:.0f}x" if found.total else "-"
        print(f"{name:<32}{found.wall:9.2f}{found.client:9.2f}{found.daemon:9.2f}{found.total:9.2f}{ratio:>10}")
    print(f"goal for cgroup files: {GOAL}x less CPU than docker stats")


def cost(sample: Callable[[], object], rounds: int) -> Cost:
    """The mean of some rounds, after one that warms up."""
    sample()
    wall, client, daemon = time.monotonic(), client_seconds(), daemon_seconds()
    for _ in range(rounds):
        sample()
    spent = (time.monotonic() - wall, client_seconds() - client, daemon_seconds() - daemon)
    return Cost(*(1000 * seconds / rounds for seconds in spent))


def client_seconds() -> float:
    """CPU of this process and of the children it has waited for."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def daemon_seconds() -> float:
    """CPU of the daemons as far as they can be seen, in ticks."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition(" (")[2].rpartition(") ")
        except OSError:
            continue
        if name.startswith(DAEMONS):
            ticks += sum(int(field) for field in rest.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def start(count: int, image: str) -> list[str]:
    labels = {"project": PROJECT, "service": "sleeper", "oneoff": "False"}
    flags = [f"--label=com.docker.compose.{name}={value}" for name, value in labels.items()]
    argv = ("docker", "run", "-d", "--cpus=0.5", "--memory=64m", *flags, image, "sleep", "86400")
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: run(*argv).strip(), range(count)))


def remove() -> None:
    ids = run("docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}").split()
    if ids:
        run("docker", "rm", "-f", *ids)


def run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
