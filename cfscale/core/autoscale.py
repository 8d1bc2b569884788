"""From a proposal to a decision: a pipeline of small pure steps, each of which says why it changed the count.

    propose ▸ tolerate ▸ stabilise ▸ limit_step ▸ cool_down ▸ clamp ▸ obey

Damping has the names and the semantics of the Kubernetes HPA:

- tolerance: a recommendation within ``tolerance`` of the current count (|desired / current - 1|) changes nothing;
- stabilization window: grow to the lowest recommendation of the window, shrink to the highest;
- max step: the larger of ``max_percent`` and ``max_replicas``; a shrink leaves at least one;
- cooldown: no change in a direction until so much time has passed since the last change in either;
- min and max: a count below min is raised at once, with or without metrics; one above max is lowered when shrinking
  is allowed. Thus a change never leads out of the bounds.

Nothing is known here of engines or clocks: the past is one ``History`` a service, the present one ``Observation``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from msgspec.structs import replace

from cfscale.core.decision import DECISION_SCHEMA, Action, Basis, Decision, Urgency, direction, timestamp
from cfscale.core.history import History, Recommendation
from cfscale.core.laws import Law, combine, laws_of
from cfscale.core.plan import Damping, Safety, Scaling
from cfscale.core.policy import Observation, Situation
from cfscale.core.samples import ReplicaState
from cfscale.core.situation import situation_of
from cfscale.core.units import format_duration

_LOW = Urgency.LOW
_STARTUP_WEIGHT = 0.2  # of a start that was quicker than those before


class Bounds(Protocol):
    """The hard bounds of a count."""

    @property
    def min_replicas(self) -> int:
        """The least."""
        ...

    @property
    def max_replicas(self) -> int:
        """The most."""
        ...


def decide(
    observation: Observation,
    scaling: Scaling,
    history: History,
    laws: tuple[Law, ...] | None = None,
    situation: Situation | None = None,
) -> tuple[Decision, History]:
    """The decision for one service in one tick, and the history with which the next tick is to be asked.

    Equal arguments give equal results. What is decided counts as done only once ``History.succeeded`` says so. ``laws``
    are those of ``scaling``, and ``situation`` that of the observation, where the caller has them at hand.
    """
    situation = situation or situation_of(observation, scaling)
    past, adopted = _adopt(history.until(observation.time, scaling.safety), situation)
    if situation.low_since != past.low_since:
        situation = replace(situation, low_since=past.low_since)
    startup, who = _startup(past, observation), observation.census
    draft, past = judge(situation, observation.service, scaling, past, laws or laws_of(scaling))
    draft.obey(past, observation, _panic(past, observation, scaling.safety) or adopted)
    if past.startup_seconds != startup or past.ready != who.ready or past.starting != who.starting:
        past = replace(past, startup_seconds=startup, ready=who.ready, starting=who.starting)
    return draft.decision(observation, situation, scaling), past


def judge(
    situation: Situation, service: Bounds, scaling: Scaling, past: History, laws: tuple[Law, ...]
) -> tuple["Draft", History]:
    """What the policies and the damping make of a situation: the part that a replay and a live tick share."""
    proposals = [law(situation, scaling) for law in laws]
    proposal = combine(situation, scaling, proposals)
    wishes = {policy.kind: one.replicas for policy, one in zip(scaling.policies, proposals, strict=True)}
    draft = Draft(situation.current, proposal.replicas, [proposal.reason], wishes)
    if not proposal.tolerated:
        draft.tolerate(scaling)
    recommended = draft.desired
    if recommended != draft.current:  # in most ticks nothing is to be damped
        draft.stabilise(past, situation.time, scaling)
        if not (proposal.unbounded and draft.desired > draft.current):
            draft.limit_step(scaling)
        draft.cool_down(past, situation.time, scaling)
    shrinkable = proposal.shrinkable and _cooldown_left(past, situation.time, scaling.scale_down) <= 0
    draft.clamp(service, shrinkable=shrinkable)
    return draft, _remember(past, situation, scaling, recommended)


def unavailable(observation: Observation, problem: str, history: History) -> Decision:
    """The decision where nothing could be observed: everything stays as it was last known."""
    known = observation.service.replicas if history.replicas is None else history.replicas
    return Decision(
        schema=DECISION_SCHEMA,
        time=timestamp(observation.time),
        service=observation.service.name,
        engine=observation.engine,
        current=known,
        desired=known,
        action=Action.HOLD,
        urgency=Urgency.LOW,
        reason=problem,
        applied=False,
        samples=(),
    )


@dataclass(slots=True)
class Draft:
    """A decision in the making: each step may change the count and adds why."""

    current: int
    desired: int
    reasons: list[str]
    wishes: Mapping[str, int]

    def to(self, desired: int, reason: str) -> None:
        """Another count, and the reason for it."""
        self.desired = desired
        self.reasons.append(reason)

    def hold(self, reason: str) -> None:
        """The count as it is."""
        self.to(self.current, reason)

    def tolerate(self, scaling: Scaling) -> None:
        """Keep the count where the one asked for is within the tolerance of it."""
        distance = abs(self.desired - self.current)
        if distance and distance <= scaling.tolerance_ratio * self.current + 1e-9:
            self.hold(f"within the tolerance of {scaling.tolerance_ratio:g}")

    def stabilise(self, history: History, now: float, scaling: Scaling) -> None:
        """Grow to the lowest recommendation of the window, shrink to the highest one."""
        up = self.desired > self.current
        window = (scaling.scale_up if up else scaling.scale_down).stabilization_window_seconds
        seen = self._window(history, now, window)
        desired = max(self.current, min(seen)) if up else min(self.current, max(seen))
        if desired != self.desired:
            extreme = "lowest" if up else "highest"
            self.to(desired, f"{desired} is the {extreme} recommendation of the last {format_duration(window)}")

    def _window(self, history: History, now: float, window: float) -> list[int]:
        """The recommendations of the window, this tick's included.

        Where the window holds none (the first tick, or ticks further apart than it is long), the latest before it was
        in force throughout; before the first, the current count was.
        """
        if window <= 0:
            return [self.desired]
        recent = [item.replicas for item in history.recommendations if now - item.time <= window]
        if not recent:
            recent = [item.replicas for item in history.recommendations[-1:]] or [self.current]
        return [*recent, self.desired]

    def limit_step(self, scaling: Scaling) -> None:
        """At most one step of the allowed size."""
        if self.desired == self.current:
            return
        if self.desired >= self.current:
            desired = min(self.desired, self.current + _step_up(self.current, scaling.scale_up))
        else:
            desired = max(self.desired, self.current - _step_down(self.current, scaling.scale_down))
        if desired != self.desired:
            self.to(desired, f"at most to {desired} in one step")

    def cool_down(self, history: History, now: float, scaling: Scaling) -> None:
        """No change so soon after the last one."""
        if self.desired == self.current:
            return
        left = _cooldown_left(history, now, scaling.scale_up if self.desired > self.current else scaling.scale_down)
        if left > 0:
            self.hold(f"cooling down for {format_duration(ceil(left))} after the last change")

    def clamp(self, service: Bounds, *, shrinkable: bool) -> None:
        """Into the service's bounds: up to min at once, down to max where shrinking is allowed."""
        least, most = service.min_replicas, service.max_replicas
        if self.desired < least:
            self.to(least, f"the minimum is {least}")
        elif self.desired > most:
            desired = most if shrinkable else min(self.desired, max(self.current, most))
            self.to(desired, f"the maximum is {most}")

    def obey(self, history: History, observation: Observation, barred: str) -> None:
        """Hold where something bars every action, an operator paused this direction, or earlier actions failed."""
        if barred:
            self.desired, self.reasons = self.current, [barred]
        if self.desired == self.current:
            return
        up, now = self.desired > self.current, observation.time
        paused_until = observation.pause.scale_out_until if up else observation.pause.scale_in_until
        if paused_until > now:
            self.hold(f"scaling {'out' if up else 'in'} is paused")
        elif direction(self.current, self.desired) is history.failing and history.retry_at > now:
            wait = format_duration(ceil(history.retry_at - now))
            self.hold(f"{history.failures} actions in a row did not take effect: next attempt in {wait}")

    def decision(self, observation: Observation, situation: Situation, scaling: Scaling) -> Decision:
        """The decision that came of it."""
        action = direction(self.current, self.desired)
        urgency = Urgency.HIGH if self.desired > self.current else _LOW
        return Decision(
            schema=DECISION_SCHEMA,
            time=timestamp(observation.time),
            service=observation.service.name,
            engine=observation.engine,
            current=self.current,
            desired=self.desired,
            action=action,
            urgency=Urgency.CRITICAL if situation.critical(scaling) else urgency,
            reason="; ".join(filter(None, self.reasons)),
            applied=False,
            samples=situation.samples,
            basis=_basis(situation, self.wishes),
        )


def _basis(situation: Situation, wishes: Mapping[str, int]) -> Basis:
    outlook = situation.outlook
    if outlook is None:
        return Basis(situation.ready, situation.starting, wishes)
    return Basis(
        situation.ready,
        situation.starting,
        wishes,
        expected=outlook.expected,
        margin=outlook.margin,
        horizon_seconds=outlook.horizon_seconds,
        short_ratio=outlook.short_ratio,
        error_ratio=outlook.error_ratio,
    )


def _step_up(current: int, damping: Damping) -> int:
    return max(ceil(current * damping.max_percent / 100), damping.max_replicas or 0)


def _step_down(current: int, damping: Damping) -> int:
    """Rounded up, as the HPA does, so that small percentages make progress; one replica is always left."""
    step = max(-(-current * damping.max_percent // 100), damping.max_replicas or 0)
    return max(0, min(step, current - 1))


def _cooldown_left(history: History, now: float, damping: Damping) -> float:
    return 0.0 if history.changed_at is None else history.changed_at + damping.cooldown_seconds - now


def _adopt(history: History, situation: Situation) -> tuple[History, str]:
    """A count that was changed from outside is the current one from now on, and starts the cooldown."""
    current = situation.current
    if history.replicas == current:
        return history, ""
    if history.replicas is None:
        return replace(history, replicas=current), ""
    adopted = replace(history, replicas=current, changed_at=situation.time)
    return adopted, f"the count was changed from outside from {history.replicas} to {current}: adopted"


def _panic(history: History, observation: Observation, safety: Safety) -> str:
    """Why the health of the whole group is in doubt: too many turned unhealthy between two rounds."""
    before = len(history.ready)
    if before < safety.panic_replicas:
        return ""
    turned = len(set(history.ready).intersection(observation.census.unhealthy))
    if turned <= safety.panic_ratio * before:
        return ""
    return f"{turned} of {before} turned unhealthy within one round: nothing is changed"


def _startup(history: History, observation: Observation) -> float | None:
    """How long replicas take from order to ready: the longest measured of late, which fades slowly.

    Only a replica that this scaler saw not ready in the round before counts: of others nobody knows.
    """
    if not history.starting:
        return history.startup_seconds
    known = set(history.ready)
    measured = [
        observation.time - replica.started_at
        for replica in observation.replicas
        if replica.state is ReplicaState.READY and replica.id not in known and replica.id in history.starting
    ]
    if not measured:
        return history.startup_seconds
    latest, before = max(measured), history.startup_seconds or 0.0
    return max(latest, before + _STARTUP_WEIGHT * (latest - before))


def _remember(history: History, situation: Situation, scaling: Scaling, recommended: int) -> History:
    """The history of the next tick; of what is older than both windows only the latest is kept.

    A window asks for its lowest and highest: of a count recommended tick after tick, the last time is all it takes.
    """
    now, latest = situation.time, Recommendation(situation.time, recommended)
    longest = max(scaling.scale_up.stabilization_window_seconds, scaling.scale_down.stabilization_window_seconds)
    kept = [item for item in history.recommendations if now - item.time <= longest]
    if kept and kept[-1].replicas == recommended:
        kept.pop()
    low_since = _low_since(history, situation, scaling)
    return replace(history, recommendations=(*kept, latest), low_since=low_since)


def _low_since(history: History, situation: Situation, scaling: Scaling) -> float | None:
    """Since when the load is below the predictive threshold; a change of the count begins anew."""
    cpu = situation.cpu
    if not cpu.reporting or cpu.mean >= scaling.predictive.scale_down_ratio:
        return None
    return situation.time if history.low_since is None else history.low_since
