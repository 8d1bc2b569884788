"""Rounds over many targets: ask all ▸ ask those in doubt again ▸ conclude ▸ report.

The questions themselves are asked by an adapter (``Ask``). At most ``WORKERS`` are in flight, and the time limit of
each starts when it is its turn: a long list never makes its own targets late. Confirmation is a further pass over the
targets in doubt, so that waiting for it holds no worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cfscale.core.health import (
    ALIVE,
    Attempt,
    Report,
    Result,
    State,
    Target,
    Track,
    advance,
    fresh,
    in_doubt,
    panicking,
    report,
    result,
    standing,
)
from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.core.samples import Replica, ReplicaState
from cfscale.runtime.act import Clock

WORKERS = 100
CONFIRM_SECONDS = 0.5
PATIENT_SECONDS = 1.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - where such a listener is asked

Ask = Callable[[Target], Awaitable[Attempt]]


def plan_targets(
    plan: DeploymentPlan, replicas: Sequence[Replica], secrets: Mapping[str, str], *, all_services: bool
) -> tuple[Target, ...]:
    """Every replica of every service of the plan, and each published endpoint that a replica stands behind.

    ``secrets`` holds passwords by service name. ``all_services``: the engine runs every service of the plan, so that
    one without any replica is down. Replicas of services that the plan does not know are left out.
    """
    targets: list[Target] = []
    for service in plan.services:
        own = [replica for replica in replicas if replica.service == service.name]
        if not own and all_services:
            own = [
                Replica("", service.name, service.name, ReplicaState.STOPPED, 0.0, reason="no replica of it is there")
            ]
        targets += [_replica_target(service, replica, secrets.get(service.name)) for replica in own]
        if service.publish is not None and any(replica.address for replica in own):
            targets += _published_targets(service, service.publish, secrets.get(service.name))
    return tuple(targets)


def _replica_target(service: Service, replica: Replica, secret: str | None) -> Target:
    host, port = split_address(replica.address) if replica.address else ("", 0)
    return Target(replica.name, host, port, service.health, group=service.name, secret=secret, replica=replica)


def _published_targets(service: Service, publish: str, secret: str | None) -> list[Target]:
    """One target a port; they are a group of their own, so that the panic rule counts no replica twice."""
    host, _, ports = publish.rpartition(":")
    first, _, last = ports.partition("-")
    host = _EVERYWHERE.get(host.strip("[]"), host.strip("[]"))
    return [
        Target(f"{service.name} {host}:{port}", host, port, service.health, f"{service.name} published", secret=secret)
        for port in range(int(first), int(last or first) + 1)
        if service.health.kind is not HealthKind.NONE
    ]


def timed(targets: Sequence[Target], seconds: float | None) -> tuple[Target, ...]:
    """The targets with another time limit; None leaves them as they are."""
    if seconds is None:
        return tuple(targets)
    return tuple(replace(target, health=replace(target.health, timeout_seconds=seconds)) for target in targets)


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found, and what the next one has to know."""

    report: Report
    tracks: Mapping[str, Track] = field(default_factory=dict)

    @property
    def states(self) -> Mapping[str, State]:
        """The verdicts by target."""
        return {result.target: result.state for result in self.report.results}


@dataclass(frozen=True, slots=True)
class Survey:
    """Asks, waits and knows the time. ``confirm_seconds`` of None: doubts wait for the next round."""

    ask: Ask
    clock: Clock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    confirm_seconds: float | None = CONFIRM_SECONDS
    workers: int = WORKERS

    async def round(self, targets: Sequence[Target], previous: Round | None = None) -> Round:
        """One verdict on each target, in their order; names must be distinct."""
        known = previous.tracks if previous else {}
        fixed = {target.name: attempt for target in targets if (attempt := standing(target)) is not None}
        asked = [target for target in targets if target.name not in fixed]
        tracks = {target.name: fresh(known.get(target.name)) for target in asked}
        await self._pass(asked, tracks)
        while self.confirm_seconds is not None and (
            doubted := [t for t in asked if in_doubt(tracks[t.name], t.health)]
        ):
            await self.sleep(self.confirm_seconds)
            await self._pass(doubted, tracks)
        results = [self._result(target, fixed.get(target.name), tracks) for target in targets]
        states = {result.target: result.state for result in results}
        panic = panicking(targets, previous.states, states) if previous else ()
        return Round(report(results, panic), tracks)

    async def _pass(self, targets: Sequence[Target], tracks: dict[str, Track]) -> None:
        """Ask each target once and advance its track."""
        waiting = iter(targets)

        async def work() -> None:
            for target in waiting:
                tracks[target.name] = advance(tracks[target.name], await self.ask(target), target.health)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.workers, len(targets))):
                group.create_task(work())

    def _result(self, target: Target, fixed: Attempt | None, tracks: Mapping[str, Track]) -> Result:
        if fixed is not None:
            return Result(target.name, target.kind.value, fixed.state, fixed.latency_seconds, fixed.reason)
        return result(target, tracks[target.name], self.clock.now())


Targets = Callable[[], Sequence[Target]]


def watch(
    survey: Survey, targets: Targets, *, interval_seconds: float, seconds: float | None = None
) -> Iterator[Report]:
    """A report per interval, the first at once, until asked to stop or for so many seconds.

    The schedule is fixed: a round that takes longer than the interval skips turns, it never stacks them. Targets are
    looked up again for each round, because replicas come and go.
    """
    clock = survey.clock
    began = due = clock.monotonic()
    last: Round | None = None
    with asyncio.Runner() as runner:
        while True:
            last = runner.run(survey.round(targets(), last))
            yield last.report
            while due <= clock.monotonic():
                due += interval_seconds
            if seconds is not None and due - began >= seconds:
                return
            if clock.wait(due - clock.monotonic()):
                return


async def until_healthy(survey: Survey, targets: Targets, *, seconds: float) -> Report:
    """Probe until there are targets and all of them are alive, or the time is over.

    The last report is returned either way; ``healthy`` says which. Degraded is alive: it serves. Failures need no
    confirmation here, because the next look does that.
    """
    deadline = survey.clock.monotonic() + seconds
    patient = replace(survey, confirm_seconds=None)
    last: Round | None = None
    while True:
        last = await patient.round(targets(), last)
        if healthy(last.report) or survey.clock.monotonic() >= deadline:
            return last.report
        await survey.sleep(PATIENT_SECONDS)


def healthy(found: Report) -> bool:
    """Whether there are targets and none of them is anything but up or degraded."""
    return bool(found.results) and all(result.state in ALIVE for result in found.results)
