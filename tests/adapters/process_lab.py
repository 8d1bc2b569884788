"""Plans, engines and waiting for the tests of the process engine."""

import http.client
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.adapters.process import ProcessEngine
from cfscale.adapters.process.layout import Layout, wait_until_gone
from cfscale.adapters.process.procfs import read_stat
from cfscale.core.plan import (
    PLAN_SCHEMA,
    Amounts,
    Demand,
    DeploymentPlan,
    Health,
    HealthKind,
    Nodes,
    Service,
)
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.settings import scaling_of
from cfscale.core.workload import Profile
from tests.render.plans import settings_of

T = TypeVar("T")
WORKER = Path(__file__).with_name("process_worker.py")
HEALTH = Health(
    HealthKind.HTTP,
    path="/health",
    json={"status": "ok"},
    interval_seconds=0.5,
    start_period_seconds=20,
    rise=1,
    fall=2,
)


def service(name: str = "agents", *modes: str, **changes: Any) -> Service:
    base = Service(
        name=name,
        image="local/test:1",
        replicas=1,
        min_replicas=1,
        max_replicas=6,
        cpu_request_millicores=500,
        cpu_limit_millicores=1000,
        memory_request_bytes=64 << 20,
        memory_limit_bytes=128 << 20,
        storage_bytes=0,
        driver="agents",
        rules=(),
        port=8080,
        health=HEALTH,
        command=(sys.executable, str(WORKER), *modes),
        stop_grace_seconds=5.0,
    )
    return replace(base, **changes)


def plan_of(*services: Service) -> DeploymentPlan:
    nothing = Amounts(0, 0, 0)
    return DeploymentPlan(
        schema=PLAN_SCHEMA,
        name="lab",
        environment="development",
        tier="single-user",
        phase="foundation",
        cells=1,
        users=1,
        agents=1,
        tasks=1,
        admitted_agents=1,
        demand=Demand(0, 0, 0, None),
        totals=nothing,
        nodes=Nodes(1, 1000, 1 << 30),
        services=services,
        settings=settings_of("lab", None, "info", (600, 0, 600, 1, 1)),
        scaling=replace(scaling_of(Profile(), load_catalogue().rules), interval_seconds=1.0),
        ledger=(),
        conflicts=(),
        warnings=(),
    )


class Lab:
    """One state directory, and the engines that drive it; ``close`` leaves nothing behind."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "state")
        self.base_dir = root
        self._engines: list[ProcessEngine] = []

    def engine(self, *services: Service) -> ProcessEngine:
        engine = ProcessEngine(plan_of(*services), self.layout.state, self.base_dir)
        self._engines.append(engine)
        return engine

    def log(self, name: str) -> str:
        path = self.layout.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        for engine in self._engines:
            engine.down(volumes=True)
        assert wait_until_gone(self.layout.replicas_lock, 0)


def wait_for(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return result


def ready(engine: ProcessEngine, service_name: str = "agents") -> list[Replica]:
    return [item for item in engine.replicas() if item.service == service_name and item.state is ReplicaState.READY]


def wait_ready(engine: ProcessEngine, count: int, service_name: str = "agents") -> list[Replica]:
    wait_for(lambda: len(ready(engine, service_name)) == count, f"{count} ready replicas of {service_name}")
    return ready(engine, service_name)


def is_gone(pid: int, start: str | None = None) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.state == "Z" or (start is not None and stat.identity != start)


def wait_gone(pids: Sequence[int]) -> None:
    wait_for(lambda: all(is_gone(pid) for pid in pids), f"the end of {pids}")


def get(address: str, path: str, timeout: float = 10.0) -> Any:
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{address}{path}: {answer.status} {body!r}"
        return json.loads(body)
    finally:
        connection.close()


def supervisor_pid(lab: Lab) -> int:
    return int(lab.layout.supervisor_lock.read_text().removeprefix("pid "))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def daemon_pid(lab: Lab, name: str = "agents-1") -> int:
    """The process that the replica has left behind, once it has said which."""
    lines = wait_for(
        lambda: [line for line in lab.log(name).splitlines() if line.startswith("daemon ")], "the daemon's process id"
    )
    return int(lines[-1].split()[1])
