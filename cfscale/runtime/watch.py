"""The scaling loop: observe ▸ decide ▸ journal the intent ▸ act ▸ verify ▸ journal the result, once per interval.

Without ``Hands`` the loop looks and says what it would do; nothing is written. A backend out of reach is a hold with
its reason and the loop goes on; a lost lock ends it, and nothing is written after that.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from cfscale.core.autoscale import decide, unavailable
from cfscale.core.decision import Action, Decision, Entry, Kind, entry, unfinished
from cfscale.core.foresight import MOST_KEPT, Foresight, Loads, phase_of
from cfscale.core.history import History, Remembered
from cfscale.core.incidents import Record, bar, explained, newly_ended, record, seeded, undisturbed
from cfscale.core.laws import Law, laws_of, needs_outlook, promise_of
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.policy import Backlog, Census, Observation, Pause, Situation, census
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.core.situation import situation_of
from cfscale.core.units import format_duration
from cfscale.errors import ActionError, UnavailableError
from cfscale.runtime.act import Clock, Hands, Outcome, act
from cfscale.runtime.ports import Engine
from cfscale.runtime.weights import weigh

log = logging.getLogger(__name__)
# the decision in hand: what is said meanwhile belongs to it
correlation: ContextVar[Decision | None] = ContextVar("correlation", default=None)
FIRST_WINDOW_SECONDS = 1.0
CLOCK_STEP_SECONDS = 1.0  # less is a clock being slewed, or time that passed between two looks
KEEP_LOADS_SECONDS = 600.0  # what a crash may cost a forecast
LEARNED_AT_ONCE = 15_000  # minutes of all services learned again in one tick: a week and a day of one, a second of CPU
_NO_HISTORY = History()
_NO_RECORD = Record()
_READY, _UNHEALTHY = ReplicaState.READY, ReplicaState.UNHEALTHY
_FAILED, _UNKNOWN = ActionError.exit_code, UnavailableError.exit_code


class Memory(Protocol):
    """What outlives the process: the histories, and what an operator paused."""

    def recall(self) -> Remembered:
        """What the scaler remembered last; raises UnavailableError."""
        ...

    def remember(self, remembered: Remembered) -> None:
        """Keep it; raises ActionError where that fails."""
        ...

    def pauses_of(self, services: Iterable[str]) -> Mapping[str, Pause]:
        """What is paused, for each of these services."""
        ...

    def loads(self) -> Mapping[str, Loads]:
        """The loads by the minute that forecasts are made of, by service; raises UnavailableError."""
        ...

    def remember_loads(self, loads: Mapping[str, Loads]) -> None:
        """Keep them; raises ActionError where that fails."""
        ...


@dataclass(slots=True)
class Scaler:
    """The loop over some services of one plan. ``hands`` of None: look, do not touch.

    ``backlogs`` asks what waits in queues, ``warn`` tells the operator what cannot wait for a decision. Of each service
    ``codes`` holds the exit code of its
    last tick (0 well, 1 an action failed, 3 data missing or stale) and ``seen`` the last observation; ``informed``
    says whether any tick had data. ``due`` is when the next tick begins, on the monotonic clock; ``ended`` is told
    after each tick how long it took and what is remembered now.
    """

    engine: Engine
    plan: DeploymentPlan
    services: tuple[Service, ...]
    clock: Clock
    memory: Memory
    warn: Callable[[str], None]
    hands: Hands | None = None
    backlogs: Callable[[], Mapping[str, Backlog]] = dict
    codes: dict[str, int] = field(default_factory=dict)
    seen: dict[str, Observation] = field(default_factory=dict)
    informed: bool = False
    due: float = 0.0
    ended: Callable[[float, Mapping[str, History]], None] = lambda _seconds, _histories: None
    _records: dict[str, Record] = field(default_factory=dict)
    _owed: tuple[str, ...] = ()
    _histories: dict[str, History] = field(default_factory=dict)
    _foresights: dict[str, Foresight] = field(default_factory=dict)
    _laws: tuple[Law, ...] = ()
    _loads_due: float = 0.0
    _gists: dict[str, str] = field(default_factory=dict)
    _clock_ahead: float | None = None

    def begin(self, journal: Iterable[Entry] = ()) -> None:
        """Remember what the last scaler knew and wrote, and take up the actions during which it ended."""
        remembered = self.memory.recall()
        self._histories, self._clock_ahead = dict(remembered.histories), remembered.clock_ahead
        self._recall_loads()
        self._follow_clock(self.clock.now())
        if self.hands is None:
            return
        written = tuple(journal)
        latest = {item.decision.service: item for item in written}
        self._gists = {name: item.decision.gist for name, item in latest.items() if item.kind is Kind.DECISION}
        for intent in unfinished(written):
            self._take_up(self.hands, intent)

    def _follow_clock(self, now: float) -> None:
        """Where the clock was set since the last look, set what is remembered with it: a cooldown lasts no less for it."""
        ahead = now - self.clock.monotonic()
        step = 0.0 if self._clock_ahead is None else ahead - self._clock_ahead
        self._clock_ahead = ahead
        if abs(step) < CLOCK_STEP_SECONDS:
            return
        self._histories = {name: history.moved(step) for name, history in self._histories.items()}
        self._records = {name: record.moved(step) for name, record in self._records.items()}
        for foresight in self._foresights.values():
            foresight.moved(step)
        self._loads_due = 0.0  # what is kept of them is of the clock before

    def _now(self) -> float:
        """The time by the clock as the histories know it, whatever it was set to since the tick began."""
        return self.clock.monotonic() + (self._clock_ahead or 0.0)

    def _recall_loads(self) -> None:
        """Take up the forecasts where an earlier process left them; without what it kept they begin anew."""
        if not needs_outlook(self.plan.scaling):
            return
        try:
            kept = self.memory.loads()
        except UnavailableError as error:
            self.warn(f"{error}; the forecast begins anew")
            return
        for service in self.services:
            if service.name in kept:
                self._foresight(service.name).recall(kept[service.name])

    def _foresight(self, name: str) -> Foresight:
        if name not in self._foresights:
            goal, strict = promise_of(self.plan.scaling)
            at_once = max(1, LEARNED_AT_ONCE // len(self.services))
            self._foresights[name] = Foresight(self.plan.scaling.forecast, goal, strict, phase_of(name), at_once)
        return self._foresights[name]

    def _keep_loads(self, *, now: bool = False) -> None:
        """Keep the forecasts' minutes from time to time, and when the loop ends."""
        time = self.clock.monotonic()
        if self.hands is None or not self._foresights or (time < self._loads_due and not now):
            return
        self._loads_due = time + KEEP_LOADS_SECONDS
        self.hands.lock.check()
        try:
            self.memory.remember_loads({name: one.loads for name, one in self._foresights.items()})
        except ActionError as error:
            self.warn(str(error))

    def _take_up(self, hands: Hands, intent: Entry) -> None:
        """Say that an action was cut short, undo its drain, accept whatever count it left and cool down."""
        name = intent.decision.service
        self.warn(f"an action on {name} was cut short ({intent.decision.reason}): counting again")
        self._histories[name] = self._history(name).interrupted(self._now())
        self._remember()
        if intent.decision.action is Action.SCALE_DOWN and hands.balancer is not None:
            try:
                self._owed += tuple(r.address for r in self.engine.replicas() if r.service == name and r.address)
            except (ActionError, UnavailableError) as error:
                self.warn(f"replicas of {name} may still be out of rotation: {error}")
            self._give_back(hands)
        self._write(hands, replace(intent, kind=Kind.RESULT, decision=_cut_short(intent.decision)))

    def _give_back(self, hands: Hands) -> None:
        """Return balancer slots to service that an earlier action could not; tried again with every tick."""
        if not self._owed or hands.balancer is None:
            return
        hands.lock.check()
        try:
            hands.balancer.ready(self._owed)
        except UnavailableError as error:
            self.warn(f"{', '.join(self._owed)} may still be out of rotation: {error}")
        else:
            self._owed = ()

    def watch(self, seconds: float | None = None) -> Iterator[Decision]:
        """Decisions, one a service and tick, until asked to stop or for so many seconds."""
        if self._first_reading():
            return
        started = next_run = self.clock.monotonic()
        while True:
            began = self.clock.monotonic()
            yield from self.tick()
            self.ended(self.clock.monotonic() - began, self._histories)
            self.due = next_run = self._next_run(next_run)
            over = seconds is not None and next_run - started >= seconds
            if over or self.clock.wait(next_run - self.clock.monotonic()):
                self._keep_loads(now=True)
                return

    def once(self) -> Iterator[Decision]:
        """The decisions of a single tick."""
        for foresight in self._foresights.values():
            foresight.at_once = MOST_KEPT  # no later tick would go on with it
        if not self._first_reading():
            yield from self.tick()

    def _first_reading(self) -> bool:
        """Usage is a difference of two readings: take the first and wait one short window. True: asked to stop."""
        try:
            self._observe()
        except (ActionError, UnavailableError):
            return False  # the tick that follows reports it
        return self.clock.wait(FIRST_WINDOW_SECONDS)

    def tick(self) -> Iterator[Decision]:
        """One decision a service, carried out where there are hands; stops between two where asked to."""
        if self.hands is not None:
            self._give_back(self.hands)
        try:
            observations = self._observe()
        except (ActionError, UnavailableError) as error:
            yield from (self._out_of_reach(service, str(error)) for service in self.services)
            return
        if self.hands is not None:
            weigh(self.hands, observations, self.warn)
        foreseen = needs_outlook(self.plan.scaling)
        for observation, situation in [(one, self._situation(one, foreseen=foreseen)) for one in observations]:
            decision = self._decide(observation, situation)
            correlation.set(decision)
            decision = decision if self.hands is None else self._settle(self.hands, observation, decision)
            log.info(decision.reason, extra={"decision": decision})
            yield decision
            if self.clock.wait(0.0):
                break
        correlation.set(None)
        if self.hands is not None:
            self._remember()
            self._keep_loads()

    def _decide(self, observation: Observation, situation: Situation) -> Decision:
        """The decision of the policies, unless what happened to the replicas speaks against it."""
        name, scaling = observation.service.name, self.plan.scaling
        history = self._history(name)
        before = self._records.get(name) or seeded(history.ready)
        if not undisturbed(before, observation):
            history = self._note(before, observation, history)
        self._laws = self._laws or laws_of(scaling)
        decision, self._histories[name] = decide(observation, scaling, history, self._laws, situation)
        self.seen[name] = observation
        grounded = decision.grounded
        self.codes[name] = 0 if grounded else _UNKNOWN
        self.informed |= grounded
        return bar(decision, self._records[name], observation, scaling)

    def _note(self, before: Record, observation: Observation, history: History) -> History:
        """Take down what happened to the replicas; a count that changed by it was changed by nobody."""
        for replica in newly_ended(before, observation):
            self.warn(f"{replica.name} ended{f' ({replica.reason})' if replica.reason else ''}: it is not counted")
        self._records[observation.service.name] = record(before, observation, self.plan.scaling)
        if history.replicas is None or history.replicas + explained(before, observation) != observation.current:
            return history
        return replace(history, replicas=observation.current)

    def _situation(self, observation: Observation, *, foreseen: bool) -> Situation:
        """What the policies see: the observation, and the forecast where one of them asks for it."""
        situation = situation_of(observation, self.plan.scaling)
        if not foreseen:
            return situation
        name = observation.service.name
        outlook = self._foresight(name).see(situation, self._history(name).startup_seconds)
        return replace(situation, outlook=outlook)

    def _observe(self) -> list[Observation]:
        replicas = self.engine.replicas()
        if not replicas:
            raise UnavailableError(f"nothing of {self.plan.name} is there: start it with 'cfscale up'")
        names = {service.name for service in self.services}
        mine = _by_service(replica for replica in replicas if replica.service in names)
        asked = [one for own in mine.values() for one in own if one.state is _READY or one.state is _UNHEALTHY]
        usages: dict[str, list[Usage]] = defaultdict(list)
        belongs = {replica.id: replica.service for replica in asked}
        for usage in self.engine.usage(asked):
            if usage.replica in belongs:
                usages[belongs[usage.replica]].append(usage)
        backlogs, pauses = self.backlogs(), self.memory.pauses_of(names)
        time = self.clock.now()
        self._follow_clock(time)
        found = []
        for service in self.services:
            name = service.name
            members, counted = self._counted(name, tuple(mine[name]))
            found.append(
                Observation(
                    service=service,
                    engine=self.engine.name,
                    time=time,
                    replicas=members,
                    usages=tuple(usages[name]),
                    pause=pauses[name],
                    backlogs=backlogs,
                    counted=counted,
                    proven=self._records.get(name, _NO_RECORD).proven,
                )
            )
        return found

    def _counted(self, name: str, replicas: tuple[Replica, ...]) -> tuple[tuple[Replica, ...], Census]:
        """The replicas with their census, both the last tick's where they are the same."""
        last = self.seen.get(name)
        if last is None or last.replicas != replicas:
            return replicas, census(replicas)
        return last.replicas, last.census

    def _out_of_reach(self, service: Service, problem: str) -> Decision:
        observation = Observation(service, self.engine.name, self.clock.now(), replicas=(), usages=())
        decision = unavailable(observation, problem, self._history(service.name))
        self.codes[service.name] = _UNKNOWN
        if self.hands is not None:
            self._journal_hold(self.hands, decision)
        return decision

    def _settle(self, hands: Hands, observation: Observation, decision: Decision) -> Decision:
        """Carry a decision out and remember what came of it; the result is written last of all."""
        name = observation.service.name
        outcome = Outcome(decision, decision.current, tried=False)
        if decision.desired != decision.current:
            outcome = act(hands, observation, decision, self.warn)
            self._owed += outcome.owed
            self._histories[name] = self._after(outcome, self._histories[name])
            self.codes[name] = 0 if outcome.decision.applied else _FAILED
            self._remember()
        if outcome.tried:
            self._write(hands, entry(Kind.RESULT, outcome.decision))
            self._gists.pop(name, None)
        else:
            self._journal_hold(hands, outcome.decision)
        return outcome.decision

    def _after(self, outcome: Outcome, history: History) -> History:
        """What comes next is counted from the end of the action: a growth that fails may take minutes."""
        if not outcome.tried:
            return history
        if outcome.decision.applied and outcome.replicas is not None:
            return history.succeeded(outcome.replicas, self._now())
        return history.failed(outcome.decision.action, outcome.replicas, self._now(), self.plan.scaling)

    def _journal_hold(self, hands: Hands, decision: Decision) -> None:
        """A hold is written when its reason changes, not with every tick."""
        if self._gists.get(decision.service) != decision.gist:
            self._gists[decision.service] = decision.gist
            self._write(hands, entry(Kind.DECISION, decision))

    def _history(self, name: str) -> History:
        return self._histories.get(name, _NO_HISTORY)

    def _remember(self) -> None:
        if self.hands is not None:
            self.hands.lock.check()
        try:
            self.memory.remember(Remembered(self._histories, self._clock_ahead))
        except ActionError as error:
            self.warn(str(error))

    def _write(self, hands: Hands, item: Entry) -> None:
        hands.lock.check()
        try:
            hands.journal.write(item)
        except ActionError as error:
            self.warn(str(error))

    def _next_run(self, due: float) -> float:
        """When the next tick is due: one that overran is followed soon, none is made up for.

        Between two there is always time enough to measure in: usage is a difference of two readings.
        """
        interval, now = self.plan.scaling.interval_seconds, self.clock.monotonic()
        due += interval
        if now > due:
            self.warn(f"the tick took {format_duration(now - due)} longer than the interval")
        return max(due, now + min(FIRST_WINDOW_SECONDS, interval / 2))


def _by_service(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    found: dict[str, list[Replica]] = defaultdict(list)
    for replica in replicas:
        found[replica.service].append(replica)
    return found


def _cut_short(decision: Decision) -> Decision:
    return replace(decision, reason=f"{decision.reason}; cut short: cfscale ended before it was done")
