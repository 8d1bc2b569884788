"""One decision made real: look again ▸ intent ▸ drain ▸ grow or shrink ▸ verify; the result is for the caller to write.

Whatever happens, the caller learns how many replicas there are afterwards, and slots taken out of rotation go back.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.decision import Action, Decision, Entry, Kind, entry
from cfscale.core.policy import Observation
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.errors import ActionError, LockedError, UnavailableError
from cfscale.runtime.ports import Balancer, Engine, Prober

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


class Hands(Struct, frozen=True):
    """What it takes to act, beyond looking."""

    engine: Engine
    clock: Clock
    journal: JournalWriter
    lock: Guard
    balancer: Balancer | None = None
    prober: Prober | None = None


class Outcome(Struct, frozen=True, gc=False):
    """What became of a decision. ``replicas`` is the count afterwards (None: unknown).

    ``tried`` is false where nothing was touched: the action was refused, and the decision has become a hold.
    ``owed`` are addresses whose balancer slots could not be given back: that is to be tried again.
    """

    decision: Decision
    replicas: int | None
    tried: bool = True
    owed: tuple[str, ...] = ()


def act(hands: Hands, observation: Observation, decision: Decision, warn: Callable[[str], None]) -> Outcome:
    """Carry out a decision that changes the count; raises LockedError where the lock is no longer ours.

    The lock is looked at again before each thing that is written or changed.
    """
    hands.lock.check()
    if refusal := _refusal(hands, observation, decision, warn):
        return Outcome(decision.hold(refusal), observation.current, tried=False)
    owed: list[str] = []
    try:
        problem = _change(hands, observation, decision, owed)
    except (ActionError, UnavailableError) as error:
        problem = str(error)
    return replace(_verified(hands, observation, decision, problem), owed=tuple(owed))


def _refusal(hands: Hands, observation: Observation, decision: Decision, warn: Callable[[str], None]) -> str:
    """Why not to begin: what was observed must still hold, and a shrink needs a balancer and a journal."""
    shrink = decision.action is Action.SCALE_DOWN
    if problem := _moved(hands, observation, decision):
        return problem
    if shrink and (problem := _balancer_problem(hands, observation, decision)):
        return f"no shrinking while the balancer does not answer: {problem}"
    try:
        hands.lock.check()
        hands.journal.write(entry(Kind.INTENT, decision))
    except ActionError as error:
        if shrink:
            return f"no shrinking without a journal: {error}"
        warn(f"{error}: {observation.service.name} grows all the same")
    return ""


def _moved(hands: Hands, observation: Observation, decision: Decision) -> str:
    """What somebody else changed since the observation, empty if nothing that matters."""
    try:
        now = _seen(hands.engine, observation)
    except (ActionError, UnavailableError) as error:
        return f"nothing is changed unseen: {error}"
    if now.current != decision.current:
        return f"{now.current} run by now, no longer {decision.current}: nothing is changed"
    going = {victim.id for victim in victims(observation, decision.desired)}
    if missing := going - {one.id for one in now.replicas if one.state in _VICTIM_ORDER}:
        return f"{len(missing)} of the replicas to be stopped are others by now: nothing is changed"
    return ""


def _balancer_problem(hands: Hands, observation: Observation, decision: Decision) -> str:
    try:
        _sessions(hands, _addresses(hands, observation, decision))
    except UnavailableError as error:
        return str(error)
    return ""


def _change(hands: Hands, observation: Observation, decision: Decision, owed: list[str]) -> str:
    """Grow or shrink; returns what there is to say, empty if all went well.

    ``owed`` is left with the addresses whose slots could not be given back.
    """
    hands.lock.check()
    if decision.action is Action.SCALE_UP:
        hands.engine.grow(observation.service, decision.desired)
        return ""
    addresses = _addresses(hands, observation, decision)
    if hands.balancer is None:  # the engine drains by itself
        hands.engine.shrink(observation.service, decision.desired, victims(observation, decision.desired))
        return ""
    if not addresses:
        return _stopped(hands, observation, decision)
    owed += addresses
    try:
        hands.balancer.drain(addresses)
        problem = _stopped(hands, observation, decision)
    except LockedError:
        owed.clear()  # whoever holds the lock now takes up our intent, and these slots with it
        raise
    finally:
        if owed:
            hands.balancer.ready(addresses)
            owed.clear()
    return problem


def _stopped(hands: Hands, observation: Observation, decision: Decision) -> str:
    """Wait until the victims are idle and stop them, unless something came in between."""
    if _drained(hands, observation, decision):
        return "interrupted while draining: undone"
    hands.lock.check()
    if problem := _moved(hands, observation, decision):
        return f"{problem}: undone"
    hands.engine.shrink(observation.service, decision.desired, victims(observation, decision.desired))
    return ""


def _drained(hands: Hands, observation: Observation, decision: Decision) -> bool:
    """Wait until nothing is in flight and all work is done, within the limit; true where asked to stop meanwhile."""
    addresses = _addresses(hands, observation, decision)
    deadline = hands.clock.monotonic() + observation.service.drain_limit_seconds
    while hands.clock.monotonic() < deadline:
        if _sessions(hands, addresses) == 0 and not _busy(hands, observation, decision):
            return False
        if hands.clock.wait(DRAIN_POLL_SECONDS):
            return True
    return False


def _busy(hands: Hands, observation: Observation, decision: Decision) -> bool:
    """Whether a victim still works, by its own account; one that does not answer may."""
    drain = observation.service.drain
    if hands.prober is None or drain is None or drain.done is None:
        return False
    going = victims(observation, decision.desired)
    return any(not hands.prober(victim.address, drain.done)[0] for victim in going if victim.address)


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
    return _seen(engine, observation).current


def _seen(engine: Engine, observation: Observation) -> Observation:
    """The observation with the replicas as they are now."""
    name = observation.service.name
    return replace(observation, replicas=tuple(r for r in engine.replicas() if r.service == name))


def _because(decision: Decision, problem: str) -> Decision:
    return decision.to(decision.desired, problem) if problem else decision
