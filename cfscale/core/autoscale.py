"""From a proposal to a decision: a pipeline of small pure steps, each of which says why it changed the count.

    recommend ▸ tolerate ▸ stabilise ▸ limit_step ▸ cool_down ▸ clamp ▸ obey

Damping has the names and the semantics of the Kubernetes HPA:

- tolerance: a recommendation within ``tolerance`` of the current count (|desired / current - 1|) changes nothing;
- stabilization window: grow to the lowest recommendation of the window, shrink to the highest;
- max step: the larger of ``max_percent`` and ``max_replicas``; a shrink leaves at least one;
- cooldown: no change in a direction until so much time has passed since the last change in either;
- min and max: a count below min is raised at once, with or without metrics; one above max is lowered when shrinking
  is allowed. Thus a change never leads out of the bounds.

Nothing is known here of engines or clocks: the past is one ``History`` a service, the present one ``Observation``.
"""

from dataclasses import dataclass, replace
from math import ceil

from cfscale.core.decision import DECISION_SCHEMA, Action, Decision, Urgency, timestamp
from cfscale.core.plan import Damping, Safety, Scaling, Service
from cfscale.core.policy import Observation, Proposal, propose
from cfscale.core.samples import ReplicaState
from cfscale.core.units import format_duration


@dataclass(frozen=True, slots=True)
class Recommendation:
    """An earlier tick's recommendation, before stabilisation."""

    time: float
    replicas: int


@dataclass(frozen=True, slots=True)
class History:
    """All that earlier ticks leave behind for one service; times are seconds since the epoch.

    ``replicas`` is the count last seen or reached: another one now was set from outside. ``ready`` are the ids that
    were ready in the last round. ``failures`` counts actions in a row that did not take effect, the last of them ``failing``.
    """

    replicas: int | None = None
    changed_at: float | None = None
    recommendations: tuple[Recommendation, ...] = ()
    ready: tuple[str, ...] = ()
    failures: int = 0
    failing: Action = Action.HOLD
    retry_at: float = 0.0

    def until(self, now: float, safety: Safety) -> "History":
        """The history after a clock that was set back: nothing lies in the future."""
        return replace(
            self,
            changed_at=None if self.changed_at is None else min(self.changed_at, now),
            recommendations=tuple(item for item in self.recommendations if item.time <= now),
            retry_at=min(self.retry_at, now + safety.breaker_open_seconds),
        )

    def succeeded(self, replicas: int, now: float) -> "History":
        """The history after an action that reached its count."""
        return replace(self, replicas=replicas, changed_at=now, failures=0, failing=Action.HOLD, retry_at=0.0)

    def failed(self, action: Action, replicas: int | None, now: float, scaling: Scaling) -> "History":
        """The history after an action that left ``replicas`` (None: unknown).

        The next attempt in this direction waits for twice as long each time; then the breaker opens.
        """
        failures = self.failures + 1
        opened = failures >= scaling.safety.breaker_failures
        wait = scaling.safety.breaker_open_seconds if opened else scaling.interval_seconds * 2**failures
        moved = self.changed_at if replicas == self.replicas else now
        return replace(
            self, replicas=replicas, changed_at=moved, failures=failures, failing=action, retry_at=now + wait
        )

    def interrupted(self, now: float) -> "History":
        """The history where an action may have taken effect in part: any count is ours, and the cooldown starts."""
        return replace(self, replicas=None, changed_at=now)


def decide(observation: Observation, scaling: Scaling, history: History) -> tuple[Decision, History]:
    """The decision for one service in one tick, and the history with which the next tick is to be asked.

    Equal arguments give equal results. What is decided counts as done only once ``History.succeeded`` says so.
    """
    past, adopted = _adopt(history.until(observation.time, scaling.safety), observation)
    proposal = propose(observation, scaling)
    recommended = tolerate(recommend(observation, proposal), scaling)
    decision = stabilise(recommended, past, observation.time, scaling)
    decision = limit_step(decision, scaling)
    decision = cool_down(decision, past, observation.time, scaling)
    decision = clamp(
        decision, observation.service, shrinkable=proposal.shrinkable and not _cooling(past, observation, scaling)
    )
    decision = obey(decision, past, observation, _panic(past, observation, scaling.safety) or adopted)
    return _urgent(decision, proposal), _remember(past, observation, scaling, recommended.desired)


def unavailable(observation: Observation, problem: str, history: History) -> Decision:
    """The decision where nothing could be observed: everything stays as it was last known."""
    known = observation.service.replicas if history.replicas is None else history.replicas
    return _begin(observation, known).hold(problem)


def _begin(observation: Observation, current: int) -> Decision:
    return Decision(
        schema=DECISION_SCHEMA,
        time=timestamp(observation.time),
        service=observation.service.name,
        engine=observation.engine,
        current=current,
        desired=current,
        action=Action.HOLD,
        urgency=Urgency.LOW,
        reason="",
        applied=False,
        samples=(),
    )


def recommend(observation: Observation, proposal: Proposal) -> Decision:
    """The policy's proposal as a decision."""
    begun = replace(_begin(observation, observation.current), samples=proposal.samples)
    return begun.to(proposal.replicas, proposal.reason)


def tolerate(decision: Decision, scaling: Scaling) -> Decision:
    """Keep the count where the one asked for is within the tolerance of it."""
    if decision.action is Action.HOLD or abs(decision.desired - decision.current) > _tolerated(decision, scaling):
        return decision
    return decision.hold(f"within the tolerance of {scaling.tolerance_ratio:g}")


def _tolerated(decision: Decision, scaling: Scaling) -> float:
    return scaling.tolerance_ratio * decision.current + 1e-9


def stabilise(decision: Decision, history: History, now: float, scaling: Scaling) -> Decision:
    """Grow to the lowest recommendation of the window, shrink to the highest one."""
    if decision.action is Action.HOLD:
        return decision
    up = decision.action is Action.SCALE_UP
    window = (scaling.scale_up if up else scaling.scale_down).stabilization_window_seconds
    seen = _window(decision, history, now, window)
    desired = max(decision.current, min(seen)) if up else min(decision.current, max(seen))
    if desired == decision.desired:
        return decision
    extreme = "lowest" if up else "highest"
    return decision.to(desired, f"{desired} is the {extreme} recommendation of the last {format_duration(window)}")


def _window(decision: Decision, history: History, now: float, window: float) -> list[int]:
    """The recommendations of the window, this tick's included.

    Where the window holds none (the first tick, or ticks further apart than it is long), the latest before it was
    in force throughout; before the first, the current count was.
    """
    if window <= 0:
        return [decision.desired]
    recent = [item.replicas for item in history.recommendations if now - item.time <= window]
    if not recent:
        recent = [item.replicas for item in history.recommendations[-1:]] or [decision.current]
    return [*recent, decision.desired]


def limit_step(decision: Decision, scaling: Scaling) -> Decision:
    """At most one step of the allowed size."""
    if decision.action is Action.HOLD:
        return decision
    if decision.action is Action.SCALE_UP:
        desired = min(decision.desired, decision.current + _step_up(decision.current, scaling.scale_up))
    else:
        desired = max(decision.desired, decision.current - _step_down(decision.current, scaling.scale_down))
    if desired == decision.desired:
        return decision
    return decision.to(desired, f"at most to {desired} in one step")


def _step_up(current: int, damping: Damping) -> int:
    return max(ceil(current * damping.max_percent / 100), damping.max_replicas or 0)


def _step_down(current: int, damping: Damping) -> int:
    """Rounded up, as the HPA does, so that small percentages make progress; one replica is always left."""
    step = max(-(-current * damping.max_percent // 100), damping.max_replicas or 0)
    return max(0, min(step, current - 1))


def cool_down(decision: Decision, history: History, now: float, scaling: Scaling) -> Decision:
    """No change so soon after the last one."""
    if decision.action is Action.HOLD:
        return decision
    damping = scaling.scale_up if decision.action is Action.SCALE_UP else scaling.scale_down
    left = _cooldown_left(history, now, damping)
    if left <= 0:
        return decision
    return decision.hold(f"cooling down for {format_duration(ceil(left))} after the last change")


def _cooldown_left(history: History, now: float, damping: Damping) -> float:
    return 0.0 if history.changed_at is None else history.changed_at + damping.cooldown_seconds - now


def _cooling(history: History, observation: Observation, scaling: Scaling) -> bool:
    return _cooldown_left(history, observation.time, scaling.scale_down) > 0


def clamp(decision: Decision, service: Service, *, shrinkable: bool) -> Decision:
    """Into the service's bounds: up to min at once, down to max where shrinking is allowed."""
    if decision.desired < service.min_replicas:
        return decision.to(service.min_replicas, f"the minimum is {service.min_replicas}")
    if decision.desired <= service.max_replicas:
        return decision
    desired = service.max_replicas if shrinkable else min(decision.desired, max(decision.current, service.max_replicas))
    return decision.to(desired, f"the maximum is {service.max_replicas}")


def obey(decision: Decision, history: History, observation: Observation, barred: str) -> Decision:
    """Hold where something bars every action, an operator paused this direction, or earlier actions failed."""
    if barred:
        return replace(decision, desired=decision.current, action=Action.HOLD, reason=barred)
    up, now = decision.action is Action.SCALE_UP, observation.time
    paused_until = observation.pause.scale_out_until if up else observation.pause.scale_in_until
    if decision.action is Action.HOLD:
        return decision
    if paused_until > now:
        return decision.hold(f"scaling {'out' if up else 'in'} is paused")
    if decision.action is history.failing and history.retry_at > now:
        wait = format_duration(ceil(history.retry_at - now))
        return decision.hold(f"{history.failures} actions in a row did not take effect: next attempt in {wait}")
    return decision


def _adopt(history: History, observation: Observation) -> tuple[History, str]:
    """A count that was changed from outside is the current one from now on, and starts the cooldown."""
    current = observation.current
    if history.replicas in (None, current):
        return replace(history, replicas=current), ""
    adopted = replace(history, replicas=current, changed_at=observation.time)
    return adopted, f"the count was changed from outside from {history.replicas} to {current}: adopted"


def _panic(history: History, observation: Observation, safety: Safety) -> str:
    """Why the health of the whole group is in doubt: too many turned unhealthy between two rounds."""
    before = len(history.ready)
    unhealthy = {replica.id for replica in observation.replicas if replica.state is ReplicaState.UNHEALTHY}
    turned = len(unhealthy.intersection(history.ready))
    if before < safety.panic_replicas or turned <= safety.panic_ratio * before:
        return ""
    return f"{turned} of {before} turned unhealthy within one round: nothing is changed"


def _urgent(decision: Decision, proposal: Proposal) -> Decision:
    if proposal.critical:
        return replace(decision, urgency=Urgency.CRITICAL)
    return replace(decision, urgency=Urgency.HIGH if decision.action is Action.SCALE_UP else Urgency.LOW)


def _remember(history: History, observation: Observation, scaling: Scaling, recommended: int) -> History:
    """The history of the next tick; of what is older than both windows only the latest is kept."""
    now = observation.time
    longest = max(scaling.scale_up.stabilization_window_seconds, scaling.scale_down.stabilization_window_seconds)
    kept = tuple(item for item in history.recommendations if now - item.time <= longest)
    ready = tuple(replica.id for replica in observation.replicas if replica.state is ReplicaState.READY)
    return replace(history, recommendations=(*kept, Recommendation(now, recommended)), ready=ready)
