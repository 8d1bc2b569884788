"""Unit tests of a policy: a load with faults, and what must come of it, run through the live decision on virtual time.

    Scenario ──tick by tick──▶ Observation ▸ decide ▸ take effect ──▶ Outcome ──▶ what was not as expected

The service is a model: replicas share the load evenly, take a start-up time to be ready, and obey at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from cfscale.core.autoscale import decide
from cfscale.core.decision import Action, Decision
from cfscale.core.foresight import Foresight
from cfscale.core.history import History
from cfscale.core.laws import laws_of, needs_outlook, promise_of
from cfscale.core.plan import Health, HealthKind, Scaling, Service
from cfscale.core.policies import DEFAULT, named
from cfscale.core.policy import Observation
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.situation import situation_of
from cfscale.core.units import GIB, share_of
from cfscale.core.workload import Amount, Replicas, duration

_BEGIN = 1_000_000.0
Cores = Annotated[float, Meta(ge=0, le=1e6)]


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """From when on the service is asked for so many cores; a replica has one."""

    at: str
    cores: Cores


class Wave(Struct, frozen=True, forbid_unknown_fields=True):
    """A load that is high for the first half of each period, and low for the second."""

    period: str
    high: Cores
    low: Cores


class Fault(Struct, frozen=True, forbid_unknown_fields=True, rename={"lasts": "for"}):
    """What goes wrong: no metrics, no engine, or somebody who scales by hand."""

    kind: Literal["blind", "unreachable", "by_hand"]
    at: str
    lasts: str = "0s"
    replicas: Replicas | None = None


class Expectation(Struct, frozen=True, forbid_unknown_fields=True):
    """What must hold; what is left out is not looked at."""

    settles_at: int | None = None
    at_most_actions: int | None = None
    never_below: int | None = None
    never_above: int | None = None
    short_at_most: Amount | None = None


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, rename={"lasts": "for"}):
    """One test of a policy: ``cfscale simulate --assert`` reads it from YAML."""

    start: Replicas
    load: list[Step] | Wave
    lasts: str
    expect: Expectation
    faults: list[Fault] = []
    startup: str = "20s"
    interval: str = "10s"
    policy: str = "default"
    min: Replicas = 1
    max: Replicas = 10
    memory: Annotated[float, Meta(ge=0, le=10)] = 0.3


class Outcome(Struct, frozen=True):
    """What came of a scenario: the decisions that took effect, the counts after each tick, how much of it was short."""

    actions: tuple[Decision, ...]
    counts: tuple[int, ...]
    short_ratio: float


@dataclass(slots=True)
class _World:
    """The modelled service and what is remembered of it."""

    scenario: Scenario
    scaling: Scaling
    service: Service
    startup: float
    members: list[Replica]
    born: int = 0
    history: History = field(default_factory=History)
    foresight: Foresight | None = None

    def set(self, count: int, now: float) -> None:
        """Start or stop until there are so many, the newest going first."""
        while len(self.members) < count:
            self.born += 1
            name = f"replica-{self.born}"
            self.members.append(Replica(name, name, self.service.name, ReplicaState.STARTING, now))
        del self.members[count:]

    def observe(self, now: float, load: float, *, blind: bool) -> Observation:
        """What a tick sees."""
        replicas = tuple(self._seen(member, now) for member in self.members)
        ready = [replica.id for replica in replicas if replica.state is ReplicaState.READY]
        busy = min(1.0, load / len(ready)) if ready else 0.0
        usages = [] if blind else [_usage(replica, busy, self.scenario.memory, now) for replica in ready]
        return Observation(self.service, "scenario", now, replicas, tuple(usages))

    def _seen(self, member: Replica, now: float) -> Replica:
        ready = now - member.started_at >= self.startup
        return replace(member, state=ReplicaState.READY) if ready else member

    def decide(self, observation: Observation) -> Decision:
        """The decision of the live loop; it takes effect at once."""
        situation = situation_of(observation, self.scaling)
        if self.foresight is not None:
            situation = replace(situation, outlook=self.foresight.see(situation, self.history.startup_seconds))
        laws = laws_of(self.scaling)
        decision, self.history = decide(observation, self.scaling, self.history, laws, situation)
        if decision.action is not Action.HOLD:
            self.set(decision.desired, observation.time)
            self.history = self.history.succeeded(decision.desired, observation.time)
        return decision


def _usage(replica: str, busy: float, memory: float, now: float) -> Usage:
    return Usage(replica, "scenario", now, 1.0, Quality.OK, busy, int(memory * GIB), cpu_limit_cores=1.0)


def run(scenario: Scenario, scaling: Scaling) -> Outcome:
    """Play a scenario; ``scaling`` is that of the catalogue. Raises InputError for what cannot be read."""
    world = _world(scenario, scaling)
    world.set(scenario.start, _BEGIN - 1e6)
    actions: list[Decision] = []
    counts: list[int] = []
    short = ticks = 0
    done: set[int] = set()
    for now in _ticks(scenario):
        faults = _active(scenario, now, done)
        for fault in faults:
            if fault.kind == "by_hand":
                world.set(fault.replicas or scenario.start, now)
        kinds = {fault.kind for fault in faults}
        load = load_at(scenario.load, now - _BEGIN)
        if "unreachable" not in kinds:
            observation = world.observe(now, load, blind="blind" in kinds)
            decision = world.decide(observation)
            actions += [decision] if decision.action is not Action.HOLD else []
            short += load > observation.count(ReplicaState.READY) + 1e-9
        ticks += 1
        counts.append(len(world.members))
    return Outcome(tuple(actions), tuple(counts), short / ticks if ticks else 0.0)


def _world(scenario: Scenario, scaling: Scaling) -> _World:
    policy = DEFAULT if scenario.policy == "default" else named(scenario.policy)
    interval = max(1.0, duration(scenario.interval, 10.0, "interval"))
    scaling = replace(scaling, policies=(policy,), interval_seconds=interval)
    foresight = None
    if needs_outlook(scaling):
        goal, strict = promise_of(scaling)
        foresight = Foresight(scaling.forecast, goal, strict=strict)
    service = Service(
        name="scenario",
        image="",
        replicas=scenario.start,
        min_replicas=scenario.min,
        max_replicas=scenario.max,
        cpu_request_millicores=1000,
        cpu_limit_millicores=1000,
        memory_request_bytes=GIB,
        memory_limit_bytes=GIB,
        storage_bytes=0,
        driver="",
        rules=(),
        port=1,
        health=Health(HealthKind.NONE),
    )
    return _World(scenario, scaling, service, duration(scenario.startup, 20.0, "startup"), [], foresight=foresight)


def _ticks(scenario: Scenario) -> Iterator[float]:
    interval = max(1.0, duration(scenario.interval, 10.0, "interval"))
    for number in range(int(duration(scenario.lasts, 0.0, "for") / interval)):
        yield _BEGIN + number * interval


def _active(scenario: Scenario, now: float, done: set[int]) -> list[Fault]:
    """The faults of this tick; one by hand happens once."""
    found = []
    for number, fault in enumerate(scenario.faults):
        since = now - _BEGIN - duration(fault.at, 0.0, "faults.at")
        once = fault.kind == "by_hand"
        if since >= 0 and (number not in done if once else since < duration(fault.lasts, 0.0, "faults.for")):
            found.append(fault)
            done.add(number)
    return found


def load_at(load: list[Step] | Wave, seconds: float) -> float:
    """The cores asked for so long after the beginning."""
    if isinstance(load, Wave):
        period = max(1e-3, duration(load.period, 0.0, "load.period"))
        return load.high if seconds % period < period / 2 else load.low
    now = [step.cores for step in load if duration(step.at, 0.0, "load.at") <= seconds]
    return now[-1] if now else (load[0].cores if load else 0.0)


def failures(scenario: Scenario, outcome: Outcome) -> tuple[str, ...]:
    """What was not as expected, in words; empty where all of it was."""
    expect, counts = scenario.expect, outcome.counts or (scenario.start,)
    allowed = None if expect.short_at_most is None else share_of(expect.short_at_most, "expect.short_at_most")
    actions = len(outcome.actions)
    said = (
        (expect.settles_at, counts[-1] != expect.settles_at, f"settles at {counts[-1]}, not at {expect.settles_at}"),
        (
            expect.at_most_actions,
            actions > (expect.at_most_actions or 0),
            f"{actions} actions, not at most {expect.at_most_actions}",
        ),
        (
            expect.never_below,
            min(counts) < (expect.never_below or 0),
            f"falls to {min(counts)}, below {expect.never_below}",
        ),
        (
            expect.never_above,
            max(counts) > (expect.never_above or 0),
            f"rises to {max(counts)}, above {expect.never_above}",
        ),
        (
            allowed,
            outcome.short_ratio > (allowed or 0),
            f"short {100 * outcome.short_ratio:.2f}% of the time, not at most {expect.short_at_most}",
        ),
    )
    return tuple(words for wanted, failed, words in said if wanted is not None and failed)
