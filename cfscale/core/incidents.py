"""What happens to replicas beside any decision: they end, are killed for lack of memory, or end again and again.

    Record (before) + Observation ─▶ Record (after)      what is known of one service's replicas
    Record + Observation          ─▶ unexplained count?  a replica that ended was not taken away by somebody
    Record + Decision             ─▶ Decision            no growth of what crashes, no shrink after a kill for memory

A replica that the engine still lists as stopped has ended, unless the engine would have started it again: then somebody
stopped it, as somebody removed one that is no longer listed.
"""

from collections.abc import Mapping
from math import ceil

from msgspec import Struct, field
from msgspec.structs import replace

from cfscale.core.decision import Decision
from cfscale.core.plan import Scaling
from cfscale.core.policy import Observation
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.units import format_duration


class Tally(Struct, frozen=True, gc=False):
    """Restarts of one replica: as many as the engine counted last, and how many of them came in a row."""

    counted: int
    in_a_row: int = 0
    last_at: float = 0.0


class Record(Struct, frozen=True, gc=False):
    """What earlier ticks saw of the replicas of one service, ``listed`` by the last; times are seconds since the epoch.

    ``proven`` are the ids of those that have been ready.
    """

    listed: tuple[Replica, ...] | None = None
    running: frozenset[str] = frozenset()
    proven: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    oom_at: float | None = None

    def moved(self, seconds: float) -> "Record":
        """The record on a clock that was set by so much."""
        return replace(
            self,
            tallies={name: replace(tally, last_at=tally.last_at + seconds) for name, tally in self.tallies.items()},
            oom_at=None if self.oom_at is None else self.oom_at + seconds,
        )


def record(before: Record, observation: Observation, scaling: Scaling) -> Record:
    """What is known after this observation; nothing is kept of replicas that the engine no longer lists."""
    listed, stopped = {one.id for one in observation.replicas}, _stopped(observation)
    return Record(
        listed=observation.replicas,
        running=frozenset(listed - stopped),
        proven=before.proven & listed | observation.census.ready_ids,
        ended=frozenset({one.id for one in observation.replicas if _ended(one)} & (before.running | before.ended)),
        tallies={one.id: _tally(before.tallies.get(one.id), one, observation, scaling) for one in observation.replicas},
        oom_at=max(filter(None, (before.oom_at, *_kills(observation))), default=None),
    )


def undisturbed(before: Record, observation: Observation) -> bool:
    """Whether a record would be the same after this observation, as after most: that is quicker to tell than to make it."""
    if observation.replicas != before.listed or before.oom_at is not None:
        return False
    for tally in before.tallies.values():
        if tally.in_a_row:
            return False
    for usage in observation.usages:  # noqa: SIM110 - a generator costs more than the few usages of a service
        if usage.oom_kills:
            return False
    return True


def _stopped(observation: Observation) -> set[str]:
    return {one.id for one in observation.replicas if one.state is ReplicaState.STOPPED}


def _ended(replica: Replica) -> bool:
    return replica.state is ReplicaState.STOPPED and not replica.by_hand


def _kills(observation: Observation) -> list[float]:
    """When replicas were killed for lack of memory, as far as this observation tells."""
    now = observation.time
    seen = [min(now, one.oom_killed_at) for one in observation.replicas if one.oom_killed_at is not None]
    return seen + [now for usage in observation.usages if usage.oom_kills > 0]


def _tally(before: Tally | None, replica: Replica, observation: Observation, scaling: Scaling) -> Tally:
    if before is None:
        return Tally(replica.restarts)
    if replica.restarts > before.counted:
        more = replica.restarts - before.counted
        return Tally(replica.restarts, before.in_a_row + more, observation.time)
    calm = observation.time - before.last_at > scaling.safety.breaker_open_seconds
    return Tally(replica.restarts) if calm and replica.state is ReplicaState.READY else before


def newly_ended(before: Record, observation: Observation) -> tuple[Replica, ...]:
    """The replicas that ended since the last tick, by themselves as far as can be told."""
    return tuple(one for one in observation.replicas if _ended(one) and one.id in before.running)


def explained(before: Record, observation: Observation) -> int:
    """By how much the count changed because replicas ended, or came back after they had."""
    stopped = _stopped(observation)
    returned = [one for one in observation.replicas if one.id in before.ended and one.id not in stopped]
    return len(returned) - len(newly_ended(before, observation))


def crashing(now: Record, observation: Observation, scaling: Scaling) -> tuple[Replica, ...]:
    """The replicas that are not ready and ended so many times in a row that it is no accident."""
    return tuple(
        one
        for one in observation.replicas
        if one.state is not ReplicaState.READY
        and one.id in now.tallies
        and now.tallies[one.id].in_a_row >= scaling.safety.breaker_failures
    )


def bar(decision: Decision, now: Record, observation: Observation, scaling: Scaling) -> Decision:
    """The decision, or a hold where what happened to the replicas speaks against it."""
    if decision.desired > decision.current and (loop := crashing(now, observation, scaling)):
        names = ", ".join(sorted(one.name for one in loop))
        return decision.hold(f"crash loop of {names}: more of the same would not help")
    if decision.desired < decision.current and (left := _shaken_for(now, observation.time, scaling)) > 0:
        kill = "a replica was killed for lack of memory"
        return decision.hold(f"{kill}: no shrinking for another {format_duration(ceil(left))}")
    return decision


def _shaken_for(now: Record, time: float, scaling: Scaling) -> float:
    """Seconds for which a kill for lack of memory still bars shrinking."""
    if now.oom_at is None:
        return 0.0
    window = max(scaling.scale_down.stabilization_window_seconds, scaling.scale_down.cooldown_seconds)
    return now.oom_at + max(window, scaling.interval_seconds) - time


def seeded(ready: tuple[str, ...]) -> Record:
    """The record after a restart of the scaler: those that were ready then were running."""
    ids = frozenset(ready)
    return Record(running=ids, proven=ids)
