"""A service that obeys: load ÷ replicas, a start-up delay, faults on request, on a clock of its own.

It satisfies the Protocols of the scaler, so that tests assert that the loop settles and not that a call was made.
"""
# ruff: noqa: ARG002 - a fake needs the parameters of its Protocol, not all of their values

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.decision import Entry
from cfscale.core.foresight import Loads
from cfscale.core.history import History, Remembered
from cfscale.core.plan import (
    Band,
    Damping,
    DeploymentPlan,
    Forecasting,
    Health,
    HealthKind,
    Policy,
    Pool,
    Predictive,
    Safety,
    Scaling,
    Service,
)
from cfscale.core.policy import Pause
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.sizing import size
from cfscale.core.units import GIB
from cfscale.core.workload import Profile
from cfscale.errors import ActionError, LockedError, UnavailableError

AGENTS = Service(
    name="agents",
    image="worker:1",
    replicas=2,
    min_replicas=1,
    max_replicas=10,
    cpu_request_millicores=1000,
    cpu_limit_millicores=1000,
    memory_request_bytes=GIB,
    memory_limit_bytes=GIB,
    storage_bytes=0,
    driver="memory",
    rules=(),
    port=8080,
    health=Health(HealthKind.HTTP),
    routes=("/",),
    stop_grace_seconds=10.0,
)
SCALING = Scaling(
    interval_seconds=10.0,
    policies=(Policy("resource"),),
    tolerance_ratio=0.1,
    scale_up=Damping(0.0, 30.0, 100, 4),
    scale_down=Damping(300.0, 300.0, 50, None),
    cpu=Band(0.8, 0.3),
    memory=Band(0.85, 0.4),
    disk=Band(0.9, 0.5),
    critical_ratio=0.95,
    target_ratio=0.8,
    pool=Pool(0.8, 0.3, 2),
    predictive=Predictive(0.7, 0.3, 600.0, 0.5),
    forecast=Forecasting(
        goal_ratio=0.005,
        startup_seconds=120.0,
        least_history_seconds=3600.0,
        memory_seconds=172_800.0,
        recent_seconds=3600.0,
        volatility_seconds=600.0,
        weight_power=9.0,
        floor_ratio=0.05,
        cap_ratio=1.0,
        worth_ratio=0.1,
        least_factor=0.2,
        most_factor=4.0,
        steering=0.06,
        hidden_ratio=0.3,
        hidden_most_ratio=0.9,
        worse_ratio=1.25,
    ),
    safety=Safety(3, 15.0, 0.7, 0.5, 5, 3, 600.0),
)
UNDAMPED = replace(
    SCALING, tolerance_ratio=0.0, scale_up=Damping(0.0, 0.0, 10_000, None), scale_down=Damping(0.0, 0.0, 100, None)
)


def a_plan(service: Service = AGENTS, scaling: Scaling = SCALING) -> DeploymentPlan:
    plan = size(Profile(users=3, agents=20, tasks=40), load_catalogue())
    return replace(plan, services=(service,), scaling=scaling)


def a_replica(number: int, state: ReplicaState = ReplicaState.READY) -> Replica:
    return Replica(
        id=f"id-{number}",
        name=f"agents-{number}",
        service="agents",
        state=state,
        started_at=float(number),
        address=f"10.0.0.{number}:8080",
    )


def a_usage(number: int, cpu: float | None = 0.5, memory: float = 0.5, time: float = 0.0) -> Usage:
    return Usage(
        replica=f"id-{number}",
        source="fake",
        taken_at=time,
        window_seconds=1.0,
        quality=Quality.OK if cpu is not None else Quality.WARMING,
        cpu_cores=cpu,
        memory_bytes=int(memory * GIB),
        cpu_limit_cores=1.0,
        memory_limit_bytes=GIB,
    )


@dataclass(slots=True)
class VirtualClock:
    """Time that passes only by waiting, on a clock that can be set; ``stop_at`` is when the operator asks to stop."""

    time: float = 1_000_000.0
    stop_at: float = float("inf")
    set_by: float = 0.0

    def set_forward(self, seconds: float) -> None:
        self.time += seconds
        self.set_by += seconds

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - self.set_by

    def wait(self, seconds: float) -> bool:
        self.time = min(self.time + max(0.0, seconds), max(self.time, self.stop_at))
        return self.time >= self.stop_at


@dataclass(slots=True)
class FakeService:
    """An engine with one service under a load of CPU cores that changes with time."""

    clock: VirtualClock
    load: Callable[[float], float] = lambda _time: 1.0
    memory: float = 0.3
    startup_seconds: float = 20.0
    members: list[Replica] = field(default_factory=list)
    born: int = 0
    grows_at_most: int = 1_000
    unreachable: bool = False
    blind: bool = False
    calls: list[str] = field(default_factory=list)
    name: str = "process"
    target: str = "process:test"

    def start(self, count: int) -> "FakeService":
        self.grow(AGENTS, count)
        self.members = [replace(member, started_at=0.0) for member in self.members]
        self.calls.clear()
        return self

    def up(self, counts: Mapping[str, int]) -> None:
        raise NotImplementedError

    def down(self, *, volumes: bool) -> None:
        raise NotImplementedError

    def replicas(self) -> tuple[Replica, ...]:
        if self.unreachable:
            raise UnavailableError("engine: connection refused")
        return tuple(self._seen(member) for member in self.members)

    def _seen(self, member: Replica) -> Replica:
        young = self.clock.time - member.started_at < self.startup_seconds
        return replace(member, state=ReplicaState.STARTING) if young else member

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        if self.blind or not replicas:
            return ()
        cores = min(1.0, self.load(self.clock.time) / len(replicas))
        return tuple(
            replace(a_usage(1, cores, self.memory, self.clock.time), replica=replica.id) for replica in replicas
        )

    def grow(self, service: Service, count: int) -> None:
        self.calls.append(f"grow {count}")
        for _ in range(min(count - len(self.members), self.grows_at_most)):
            self.born += 1
            self.members.append(replace(a_replica(self.born), started_at=self.clock.time))
        if len(self.members) < count:
            raise ActionError("no room for more")

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        self.calls.append(f"shrink {count} {' '.join(victim.name for victim in victims)}")
        gone = {victim.id for victim in victims}
        self.members = [member for member in self.members if member.id not in gone]


@dataclass(slots=True)
class FakeBalancer:
    """A balancer whose sessions end after a while; records what it was told."""

    clock: VirtualClock
    busy_seconds: float = 3.0
    unreachable: bool = False
    deaf: bool = False
    calls: list[str] = field(default_factory=list)
    drained_at: float | None = None
    weights: dict[str, int] = field(default_factory=dict)
    finds_after: float = 0.0

    def drain(self, addresses: Sequence[str]) -> None:
        if self.deaf:
            raise UnavailableError("balancer: drain was not answered")
        self.calls.append(f"drain {' '.join(addresses)}")
        self.drained_at = self.clock.time

    def sessions(self, addresses: Sequence[str]) -> int:
        if self.unreachable:
            raise UnavailableError("balancer: connection refused")
        return int(self.drained_at is None or self.clock.time - self.drained_at < self.busy_seconds)

    def ready(self, addresses: Sequence[str]) -> None:
        self.calls.append(f"ready {' '.join(addresses)}")

    def weigh(self, weights: Mapping[str, int]) -> None:
        if self.unreachable:
            raise UnavailableError("balancer: connection refused")
        self.weights = dict(weights)

    def idle(self, services: Sequence[str]) -> tuple[str, ...]:
        return tuple(services) if self.clock.monotonic() < self.finds_after else ()


@dataclass(slots=True)
class FakeJournal:
    """A journal in memory that can be full."""

    lines: list[Entry] = field(default_factory=list)
    full: bool = False

    def write(self, entry: Entry) -> None:
        if self.full:
            raise ActionError("journal: no space left on device")
        self.lines.append(entry)


@dataclass(slots=True)
class FakeMemory:
    """What a state folder would keep."""

    stored: dict[str, History] = field(default_factory=dict)
    stored_clock: float | None = None
    stored_loads: dict[str, Loads] = field(default_factory=dict)
    pause: Pause = field(default_factory=Pause)
    full: bool = False

    def recall(self) -> Remembered:
        return Remembered(self.stored, self.stored_clock)

    def remember(self, remembered: Remembered) -> None:
        if self.full:
            raise ActionError("state: no space left on device")
        self.stored, self.stored_clock = dict(remembered.histories), remembered.clock_ahead

    def loads(self) -> Mapping[str, Loads]:
        return self.stored_loads

    def remember_loads(self, loads: Mapping[str, Loads]) -> None:
        if self.full:
            raise ActionError("state: no space left on device")
        self.stored_loads = dict(loads)

    def pauses_of(self, services: Iterable[str]) -> Mapping[str, Pause]:
        return dict.fromkeys(services, self.pause)


@dataclass(slots=True)
class FakeLock:
    """A lock that can be lost."""

    lost: bool = False

    def check(self) -> None:
        if self.lost:
            raise LockedError("the lock was replaced")
