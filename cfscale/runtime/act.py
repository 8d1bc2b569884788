"""One decision made real: intent ▸ drain ▸ grow or shrink ▸ verify; the result is for the caller to write down.

Whatever happens, the caller learns how many replicas there are afterwards, and slots taken out of rotation go back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cfscale.core.decision import Action, Decision, Entry, Kind, entry
from cfscale.core.policy import Observation
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.errors import ActionError, UnavailableError
from cfscale.runtime.ports import Balancer, Engine

DRAIN_POLL_SECONDS = 0.2
_VICTIM_ORDER = {ReplicaState.UNHEALTHY: 0, ReplicaState.STARTING: 1, ReplicaState.READY: 2}


class Clock(Protocol):
    """Time as the loops see it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that no clock setting moves."""
        ...

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until asked to stop: then True, at once, and for good."""
        ...


class JournalWriter(Protocol):
    """Where intents and results are written; raises ActionError where that fails."""

    def write(self, entry: Entry) -> None:
        """Append one entry for good."""
        ...


class Guard(Protocol):
    """The lock under which everything is done."""

    def check(self) -> None:
        """Raise LockedError unless the lock is still ours."""
        ...


@dataclass(frozen=True, slots=True)
class Hands:
    """What it takes to act, beyond looking."""

    engine: Engine
    clock: Clock
    journal: JournalWriter
    lock: Guard
    balancer: Balancer | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision. ``replicas`` is the count afterwards (None: unknown).

    ``tried`` is false where nothing was touched: the action was refused, and the decision has become a hold.
    """

    decision: Decision
    replicas: int | None
    tried: bool = True


def act(hands: Hands, observation: Observation, decision: Decision, warn: Callable[[str], None]) -> Outcome:
    """Carry out a decision that changes the count; raises LockedError where the lock is no longer ours."""
    hands.lock.check()
    if refusal := _refusal(hands, observation, decision, warn):
        return Outcome(decision.hold(refusal), observation.current, tried=False)
    try:
        problem = _change(hands, observation, decision)
    except (ActionError, UnavailableError) as error:
        problem = str(error)
    return _verified(hands, observation, decision, problem)


def _refusal(hands: Hands, observation: Observation, decision: Decision, warn: Callable[[str], None]) -> str:
    """Why not to begin: a shrink needs a balancer that answers and a journal that takes the intent."""
    shrink = decision.action is Action.SCALE_DOWN
    if shrink and (problem := _balancer_problem(hands, observation, decision)):
        return f"no shrinking while the balancer does not answer: {problem}"
    try:
        hands.journal.write(entry(Kind.INTENT, decision))
    except ActionError as error:
        if shrink:
            return f"no shrinking without a journal: {error}"
        warn(f"{error}: {observation.service.name} grows all the same")
    return ""


def _balancer_problem(hands: Hands, observation: Observation, decision: Decision) -> str:
    try:
        _sessions(hands, _addresses(hands, observation, decision))
    except UnavailableError as error:
        return str(error)
    return ""


def _change(hands: Hands, observation: Observation, decision: Decision) -> str:
    """Grow or shrink; returns what there is to say, empty if all went well."""
    if decision.action is Action.SCALE_UP:
        hands.engine.grow(observation.service, decision.desired)
        return ""
    addresses = _addresses(hands, observation, decision)
    balancer = hands.balancer
    if balancer is None or not addresses:
        hands.engine.shrink(observation.service, decision.desired, victims(observation, decision.desired))
        return ""
    balancer.drain(addresses)
    try:
        if _drained(hands, addresses, observation.service.stop_grace_seconds):
            return "interrupted while draining: undone"
        hands.engine.shrink(observation.service, decision.desired, victims(observation, decision.desired))
        return ""
    finally:
        balancer.ready(addresses)


def _drained(hands: Hands, addresses: Sequence[str], grace: float) -> bool:
    """Wait until nothing is in flight, at most ``grace`` seconds; true where asked to stop meanwhile."""
    deadline = hands.clock.monotonic() + grace
    while _sessions(hands, addresses) > 0 and hands.clock.monotonic() < deadline:
        if hands.clock.wait(DRAIN_POLL_SECONDS):
            return True
    return False


def _sessions(hands: Hands, addresses: Sequence[str]) -> int:
    return hands.balancer.sessions(addresses) if hands.balancer and addresses else 0


def _addresses(hands: Hands, observation: Observation, decision: Decision) -> tuple[str, ...]:
    """The addresses of the victims that the balancer sends requests to."""
    if hands.balancer is None or not observation.service.routes:
        return ()
    return tuple(victim.address for victim in victims(observation, decision.desired) if victim.address)


def victims(observation: Observation, desired: int) -> tuple[Replica, ...]:
    """Who goes, least harm first: unhealthy, then starting, then the least busy; of equals the newest.

    One whose usage is not known counts as busy. Somebody ready stays as long as anybody is.
    """
    usages = {usage.replica: usage for usage in observation.usages}
    candidates = [replica for replica in observation.replicas if replica.state in _VICTIM_ORDER]
    candidates.sort(
        key=lambda replica: (
            _VICTIM_ORDER[replica.state],
            _busyness(usages.get(replica.id)),
            -replica.started_at,
            replica.id,
        )
    )
    return tuple(candidates[: observation.current - desired])


def _busyness(usage: Usage | None) -> float:
    return float("inf") if usage is None or usage.cpu_cores is None else usage.cpu_cores


def _verified(hands: Hands, observation: Observation, decision: Decision, problem: str) -> Outcome:
    """Count again: an action is done when its count is there, whatever the engine said."""
    try:
        replicas = running(hands.engine, observation)
    except (ActionError, UnavailableError) as error:
        return Outcome(_because(decision, f"{problem or 'the result is not known'}; {error}"), None)
    if replicas == decision.desired:
        return Outcome(replace(_because(decision, problem), applied=True), replicas)
    moved, wanted = abs(replicas - decision.current), abs(decision.desired - decision.current)
    verb = "started" if decision.action is Action.SCALE_UP else "stopped"
    short = f"{moved} of {wanted} {verb}, {replicas} running"
    return Outcome(_because(decision, f"{problem}; {short}" if problem else short), replicas)


def running(engine: Engine, observation: Observation) -> int:
    """How many replicas of the observed service run now."""
    name = observation.service.name
    return replace(observation, replicas=tuple(r for r in engine.replicas() if r.service == name)).current


def _because(decision: Decision, problem: str) -> Decision:
    return decision.to(decision.desired, problem) if problem else decision
