"""Rounds over many targets: ask all ▸ ask those in doubt again ▸ conclude ▸ report.

The questions themselves are asked by an adapter (``Ask``). At most ``WORKERS`` are in flight, and the time limit of
each starts when it is its turn: a long list never makes its own targets late. Names have workers of their own, since
one that does not resolve keeps its worker waiting; literal addresses never wait for them. A single round asks all at
once. A watch spreads each round over its interval, so that latencies are the targets' and not our own queue's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush

from msgspec import Struct, field
from msgspec.structs import replace

from cfscale.core.health import (
    ALIVE,
    Attempt,
    Report,
    Result,
    State,
    Target,
    Track,
    advance,
    attributed,
    fresh,
    in_doubt,
    panicking,
    report,
    result,
    standing,
)
from cfscale.core.judging import Judging
from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.core.rota import place
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import UnavailableError
from cfscale.runtime.act import Clock

WORKERS = 100
NAMED_WORKERS = 400
_WIDEN_SECONDS, _GRID_SECONDS = 0.25, 0.05
_PATIENCE_SECONDS = 0.1
PATIENT_SECONDS = 1.0
_DATABASE, _DATABASE_USER = "app", "app"  # as rendered; anybody else would be refused, and a refusal is an answer too
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
    return Target(
        replica.name,
        host,
        port,
        service.health,
        group=service.name,
        secret=secret,
        replica=replica,
        about=_about(service),
        user=_user(service),
    )


def _about(service: Service) -> tuple[str, ...]:
    """The platform's own database, where there is one to be asked about: a pooler knows no other."""
    return (_DATABASE,) if service.health.kind is HealthKind.POSTGRES else ()


def _user(service: Service) -> str:
    return _DATABASE_USER if service.health.kind is HealthKind.POSTGRES else ""


def _published_targets(service: Service, publish: str, secret: str | None) -> list[Target]:
    """One target a port; they are a group of their own, so that the panic rule counts no replica twice."""
    host, _, ports = publish.rpartition(":")
    first, _, last = ports.partition("-")
    host = _EVERYWHERE.get(host.strip("[]"), host.strip("[]"))
    return [
        Target(
            f"{service.name} {host}:{port}",
            host,
            port,
            service.health,
            f"{service.name} published",
            secret=secret,
            about=_about(service),
            user=_user(service),
        )
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


class Round(Struct, frozen=True):
    """What one round found, and what the next one has to know."""

    report: Report
    tracks: Mapping[str, Track] = field(default_factory=dict)

    @property
    def states(self) -> Mapping[str, State]:
        """The verdicts by target."""
        return {result.target: result.state for result in self.report.results}


class Survey(Struct, frozen=True):
    """Asks, waits and knows the time. ``confirm_seconds`` of None: doubts wait for the next round.

    ``most`` is how many workers there may be while most of them wait for targets that do not answer.
    """

    ask: Ask
    clock: Clock
    judging: Judging
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    confirm_seconds: float | None = None
    workers: int = WORKERS
    most: int = WORKERS

    async def round(self, targets: Sequence[Target], previous: Round | None = None) -> Round:
        """One verdict on each target, in their order; names must be distinct."""
        asked, tracks = self._begun(targets, previous)
        await self._pass(asked, tracks)
        while self.confirm_seconds is not None and (
            doubted := [t for t in asked if in_doubt(tracks[t.name], t.health)]
        ):
            await self.sleep(self.confirm_seconds)
            await self._pass(doubted, tracks)
        return self._ended(targets, tracks, previous)

    async def spread(self, targets: Sequence[Target], previous: Round, turn: int, seconds: float) -> Round:
        """The same, taking so many seconds: each target in its place. What is in doubt at the end the next one asks."""
        asked, tracks = self._begun(targets, previous)
        slowest = max((target.health.timeout_seconds for target in asked), default=0.0)
        fall = max((target.health.fall for target in asked), default=1)
        last = self.clock.monotonic() + seconds - slowest
        width = max(0.0, seconds - slowest - (fall - 1) * (self.confirm_seconds or 0.0))
        begun = self.clock.monotonic()
        due = [(begun + _grid(place(target.name, turn) * width), number) for number, target in enumerate(asked)]
        await self._paced(asked, tracks, due, last)
        return self._ended(targets, tracks, previous)

    def _begun(self, targets: Sequence[Target], previous: Round | None) -> tuple[list[Target], dict[str, Track]]:
        """Who is to be asked, and what is known of them."""
        known = previous.tracks if previous else {}
        asked = [target for target in targets if standing(target) is None]
        return asked, {target.name: fresh(known.get(target.name)) for target in asked}

    def _ended(self, targets: Sequence[Target], tracks: Mapping[str, Track], previous: Round | None) -> Round:
        results = [self._result(target, standing(target), tracks) for target in targets]
        states = {result.target: result.state for result in results}
        panic = panicking(targets, previous.states, states, self.judging) if previous else ()
        return Round(report(results, panic), tracks)

    async def _pass(self, targets: Sequence[Target], tracks: dict[str, Track]) -> None:
        """Ask each target once and advance its track."""
        named = [target for target in targets if target.named]
        plain = [target for target in targets if not target.named] if named else targets
        async with asyncio.TaskGroup() as group:
            group.create_task(_Lane(self, plain, tracks).run(self.workers))
            group.create_task(_Lane(self, named, tracks).run(max(self.workers, min(NAMED_WORKERS, self.most))))
        if any(_connected(track) for track in tracks.values()):
            for target in targets:
                self._blame(target, tracks)

    def _blame(self, target: Target, tracks: dict[str, Track]) -> None:
        """Put down to the target that there is no way to it, where there is one to others."""
        last = tracks[target.name].last
        if last is not None and last.unreachable:
            attempt = attributed(last, connected=True)
            tracks[target.name] = advance(tracks[target.name], attempt, target.health)

    async def _paced(
        self, targets: Sequence[Target], tracks: dict[str, Track], due: list[tuple[float, int]], last: float
    ) -> None:
        """Ask each target when it is due, and again soon while it is in doubt, but not after ``last``."""
        heapify(due)
        room = max(self.workers, self.most)
        running: set[asyncio.Task[None]] = set()

        async def one(number: int) -> None:
            target = targets[number]
            tracks[target.name] = advance(tracks[target.name], await self.ask(target), target.health)
            again = self.clock.monotonic() + (self.confirm_seconds or 0.0)
            if self.confirm_seconds is not None and again <= last and in_doubt(tracks[target.name], target.health):
                heappush(due, (again, number))

        while due or running:
            now = self.clock.monotonic()
            while due and due[0][0] <= now and len(running) < room:
                task = asyncio.create_task(one(heappop(due)[1]))
                running.add(task)
                task.add_done_callback(running.discard)
            if running and (not due or len(running) >= room):
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            elif due:
                await self.sleep(min(_PATIENCE_SECONDS, due[0][0] - now))

    def _result(self, target: Target, fixed: Attempt | None, tracks: Mapping[str, Track]) -> Result:
        if fixed is not None:
            return Result(target.name, target.kind.value, fixed.state, fixed.latency_seconds, fixed.reason)
        return result(target, tracks[target.name], self.clock.now(), self.judging)


def _grid(seconds: float) -> float:
    """Neighbours of a large fleet share their turn: waking up for each costs more than asking."""
    return seconds // _GRID_SECONDS * _GRID_SECONDS


class _Lane:
    """Workers that ask the targets of one pass, and more of them while those only wait for targets that are silent."""

    def __init__(self, survey: Survey, targets: Sequence[Target], tracks: dict[str, Track]) -> None:
        self._survey, self._tracks, self._waiting = survey, tracks, iter(targets)
        self._count, self._asked, self._active = len(targets), 0, 0

    async def run(self, workers: int) -> None:
        """Ask all, at first with so many workers."""
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, self._count)):
                group.create_task(self._work())
            self._widening = group.create_task(self._widen(group, workers))

    async def _work(self) -> None:
        self._active += 1
        ask, tracks = self._survey.ask, self._tracks
        for target in self._waiting:
            tracks[target.name] = advance(tracks[target.name], await ask(target), target.health)
            self._asked += 1
        self._active -= 1
        if not self._active:
            self._widening.cancel()

    async def _widen(self, group: asyncio.TaskGroup, workers: int) -> None:
        seen, most = 0, min(self._survey.most, self._count)
        while self._active < most:
            await asyncio.sleep(_WIDEN_SECONDS)
            if self._asked - seen < self._active // 2:
                for _ in range(min(workers, most - self._active)):
                    group.create_task(self._work())
            seen = self._asked


def _connected(track: Track) -> bool:
    last = track.last
    return last is not None and last.remote and last.state is not State.UNKNOWN


Targets = Callable[[], Sequence[Target]]


def watch(
    survey: Survey,
    targets: Targets,
    *,
    interval_seconds: float,
    seconds: float | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Iterator[Round]:
    """A round at once, and then one at the end of each interval, until asked to stop or for so many seconds.

    The schedule is fixed: a round that takes longer than the interval skips turns, it never stacks them. Targets are
    looked up again for each round, because replicas come and go; where that fails, nothing can be told of any.
    """
    clock = survey.clock
    began = clock.monotonic()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        last = runner.run(survey.round(targets()))
        yield last
        due = began
        while True:
            now = clock.monotonic()
            while due <= now:
                due += interval_seconds
            if seconds is not None and due - began >= seconds:
                return
            turn = round((due - began) / interval_seconds)
            try:
                found = targets()
            except UnavailableError as error:
                last = _blind(last, str(error))
            else:
                last = runner.run(survey.spread(found, last, turn, due - now))
            if clock.wait(due - clock.monotonic()):
                return
            yield last


def _blind(last: Round, reason: str) -> Round:
    """The round in which nobody could be asked; what was known is kept for the next one."""
    results = [Result(known.target, known.kind, State.UNKNOWN, None, reason) for known in last.report.results]
    return Round(report(results), last.tracks)


async def until_healthy(survey: Survey, targets: Targets, *, seconds: float) -> Report:
    """Probe until there are targets and all of them are alive, or the time is over.

    The last report is returned either way; ``healthy`` says which. Degraded is alive: it serves. Failures need no
    confirmation here, because the next look does that. Raises UnavailableError where the engine still does not say whom to
    ask when the time is over.
    """
    deadline = survey.clock.monotonic() + seconds
    patient = replace(survey, confirm_seconds=None)
    last: Round | None = None
    while True:
        try:
            asked = targets()
        except UnavailableError:
            if survey.clock.monotonic() >= deadline:
                raise
        else:
            last = await patient.round(asked, last)
            if healthy(last.report) or survey.clock.monotonic() >= deadline:
                return last.report
        await survey.sleep(PATIENT_SECONDS)


def healthy(found: Report) -> bool:
    """Whether there are targets and none of them is anything but up or degraded."""
    return bool(found.results) and all(result.state in ALIVE for result in found.results)
