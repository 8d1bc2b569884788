"""The scaling loop: observe ▸ decide ▸ journal the intent ▸ act ▸ verify ▸ journal the result, once per interval.

Without ``Hands`` the loop looks and says what it would do; nothing is written. A backend out of reach is a hold with
its reason and the loop goes on; a lost lock ends it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cfscale.core.autoscale import History, decide, unavailable
from cfscale.core.decision import Action, Decision, Entry, Kind, entry, unfinished
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.policy import Observation, Pause
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.units import format_duration
from cfscale.errors import ActionError, UnavailableError
from cfscale.runtime.act import Clock, Hands, Outcome, act
from cfscale.runtime.ports import Engine

FIRST_WINDOW_SECONDS = 1.0
_FAILED, _UNKNOWN = ActionError.exit_code, UnavailableError.exit_code


class Memory(Protocol):
    """What outlives the process: the histories, and what an operator paused."""

    def histories(self) -> Mapping[str, History]:
        """What the scaler remembered last, by service."""
        ...

    def remember(self, histories: Mapping[str, History]) -> None:
        """Keep it; raises ActionError where that fails."""
        ...

    def pause_of(self, service: str) -> Pause:
        """What is paused for one service."""
        ...


@dataclass(slots=True)
class Scaler:
    """The loop over some services of one plan. ``hands`` of None: look, do not touch.

    ``warn`` tells the operator what cannot wait for a decision. ``codes`` holds
    per service the exit code of its last tick: 0 well, 1 an action failed, 3 data missing or stale.
    """

    engine: Engine
    plan: DeploymentPlan
    services: tuple[Service, ...]
    clock: Clock
    memory: Memory
    warn: Callable[[str], None]
    hands: Hands | None = None
    codes: dict[str, int] = field(default_factory=dict)
    _histories: dict[str, History] = field(default_factory=dict)
    _gists: dict[str, str] = field(default_factory=dict)

    def begin(self, journal: Iterable[Entry] = ()) -> None:
        """Remember what the last scaler knew and wrote, and take up the actions during which it ended."""
        self._histories = dict(self.memory.histories())
        if self.hands is None:
            return
        written = tuple(journal)
        latest = {item.decision.service: item for item in written}
        self._gists = {name: item.decision.gist for name, item in latest.items() if item.kind is Kind.DECISION}
        for intent in unfinished(written):
            self._take_up(self.hands, intent)

    def _take_up(self, hands: Hands, intent: Entry) -> None:
        """Say that an action was cut short, undo its drain, accept whatever count it left and cool down."""
        name = intent.decision.service
        self.warn(f"an action on {name} was cut short ({intent.decision.reason}): counting again")
        self._histories[name] = self._history(name).interrupted(self.clock.now())
        self._remember()
        if intent.decision.action is Action.SCALE_DOWN and hands.balancer is not None:
            try:
                hands.balancer.ready([r.address for r in self.engine.replicas() if r.service == name and r.address])
            except (ActionError, UnavailableError) as error:
                self.warn(f"replicas of {name} may still be out of rotation: {error}")
        self._write(hands, replace(intent, kind=Kind.RESULT, decision=_cut_short(intent.decision)))

    def watch(self, seconds: float | None = None) -> Iterator[Decision]:
        """Decisions, one a service and tick, until asked to stop or for so many seconds."""
        if self._first_reading():
            return
        started = next_run = self.clock.monotonic()
        while True:
            yield from self.tick()
            next_run = self._next_run(next_run)
            if seconds is not None and next_run - started >= seconds:
                return
            if self.clock.wait(next_run - self.clock.monotonic()):
                return

    def once(self) -> Iterator[Decision]:
        """The decisions of a single tick."""
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
        try:
            observations = self._observe()
        except (ActionError, UnavailableError) as error:
            yield from (self._out_of_reach(service, str(error)) for service in self.services)
            return
        for observation in observations:
            decision, history = decide(observation, self.plan.scaling, self._history(observation.service.name))
            self._histories[observation.service.name] = history
            self.codes[observation.service.name] = 0 if decision.grounded else _UNKNOWN
            yield decision if self.hands is None else self._settle(self.hands, observation, decision)
            if self.clock.wait(0.0):
                return

    def _observe(self) -> list[Observation]:
        replicas = self.engine.replicas()
        if not replicas:
            raise UnavailableError(f"nothing of {self.plan.name} is there: start it with 'cfscale up'")
        names = {service.name for service in self.services}
        usages = self.engine.usage([r for r in replicas if r.service in names and r.state is ReplicaState.READY])
        time = self.clock.now()
        return [
            Observation(
                service=service,
                engine=self.engine.name,
                time=time,
                replicas=(own := _of(service, replicas)),
                usages=tuple(usage for usage in usages if usage.replica in {replica.id for replica in own}),
                pause=self.memory.pause_of(service.name),
            )
            for service in self.services
        ]

    def _out_of_reach(self, service: Service, problem: str) -> Decision:
        observation = Observation(service, self.engine.name, self.clock.now(), replicas=(), usages=())
        decision = unavailable(observation, problem, self._history(service.name))
        self.codes[service.name] = _UNKNOWN
        if self.hands is not None:
            self._journal_hold(self.hands, decision)
        return decision

    def _settle(self, hands: Hands, observation: Observation, decision: Decision) -> Decision:
        """Carry a decision out and remember what came of it; the result is written last of all."""
        name, now = observation.service.name, observation.time
        outcome = Outcome(decision, observation.current, tried=False)
        if decision.action is not Action.HOLD:
            outcome = act(hands, observation, decision, self.warn)
            self._histories[name] = self._after(outcome, self._histories[name], now)
            self.codes[name] = 0 if outcome.decision.applied else _FAILED
        self._remember()
        if outcome.tried:
            self._write(hands, entry(Kind.RESULT, outcome.decision))
            self._gists.pop(name, None)
        else:
            self._journal_hold(hands, outcome.decision)
        return outcome.decision

    def _after(self, outcome: Outcome, history: History, now: float) -> History:
        if not outcome.tried:
            return history
        if outcome.decision.applied and outcome.replicas is not None:
            return history.succeeded(outcome.replicas, self.clock.now())
        return history.failed(outcome.decision.action, outcome.replicas, now, self.plan.scaling)

    def _journal_hold(self, hands: Hands, decision: Decision) -> None:
        """A hold is written when its reason changes, not with every tick."""
        if self._gists.get(decision.service) != decision.gist:
            self._gists[decision.service] = decision.gist
            self._write(hands, entry(Kind.DECISION, decision))

    def _history(self, name: str) -> History:
        return self._histories.get(name, History())

    def _remember(self) -> None:
        try:
            self.memory.remember(self._histories)
        except ActionError as error:
            self.warn(str(error))

    def _write(self, hands: Hands, item: Entry) -> None:
        try:
            hands.journal.write(item)
        except ActionError as error:
            self.warn(str(error))

    def _next_run(self, due: float) -> float:
        """When the next tick is due; a tick that overran is followed at once, and none is made up for."""
        due, now = due + self.plan.scaling.interval_seconds, self.clock.monotonic()
        if now > due:
            self.warn(f"the tick took {format_duration(now - due)} longer than the interval")
        return max(due, now)


def _of(service: Service, replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    return tuple(replica for replica in replicas if replica.service == service.name)


def _cut_short(decision: Decision) -> Decision:
    return replace(decision, reason=f"{decision.reason}; cut short: cfscale ended before it was done")
