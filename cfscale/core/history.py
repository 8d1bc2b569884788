"""What earlier ticks leave behind, and outlives the scaler's process: one ``History`` a service, on one clock."""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.decision import Action
from cfscale.core.plan import Safety, Scaling


class Recommendation(Struct, frozen=True, gc=False):
    """What earlier ticks recommended, before stabilisation: a count, and when it was recommended last without a break."""

    time: float
    replicas: int


class History(Struct, frozen=True, gc=False):
    """All that earlier ticks leave behind for one service; times are seconds since the epoch.

    ``replicas`` is the count last seen or reached: another one now was set from outside. ``ready`` are the ids that
    were ready in the last round, ``starting`` those that were on their way. ``failures`` counts actions in a row that did
    not take effect, the last of them ``failing``. ``startup_seconds`` is how long replicas take from order to ready,
    ``low_since`` when the load became low.
    """

    replicas: int | None = None
    changed_at: float | None = None
    recommendations: tuple[Recommendation, ...] = ()
    ready: tuple[str, ...] = ()
    failures: int = 0
    failing: Action = Action.HOLD
    retry_at: float = 0.0
    starting: tuple[str, ...] = ()
    startup_seconds: float | None = None
    low_since: float | None = None

    def until(self, now: float, safety: Safety) -> "History":
        """The history after a clock that was set back: nothing lies in the future."""
        latest = self.recommendations[-1].time if self.recommendations else now
        if (
            latest <= now
            and (self.changed_at or now) <= now
            and (self.low_since or now) <= now
            and self.retry_at <= now + safety.breaker_open_seconds
        ):
            return self
        return replace(
            self,
            changed_at=None if self.changed_at is None else min(self.changed_at, now),
            recommendations=tuple([item for item in self.recommendations if item.time <= now]),
            low_since=None if self.low_since is None else min(self.low_since, now),
            retry_at=min(self.retry_at, now + safety.breaker_open_seconds),
        )

    def moved(self, seconds: float) -> "History":
        """The history on a clock that was set by so much: what was a minute ago still is."""
        return replace(
            self,
            changed_at=None if self.changed_at is None else self.changed_at + seconds,
            recommendations=tuple([replace(item, time=item.time + seconds) for item in self.recommendations]),
            low_since=None if self.low_since is None else self.low_since + seconds,
            retry_at=self.retry_at + seconds if self.retry_at else 0.0,
        )

    def succeeded(self, replicas: int, now: float) -> "History":
        """The history after an action that reached its count."""
        return replace(
            self, replicas=replicas, changed_at=now, failures=0, failing=Action.HOLD, retry_at=0.0, low_since=None
        )

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


class Remembered(Struct, frozen=True):
    """What outlives the scaler's process: the histories by service, and the clock by which their times were taken.

    ``clock_ahead`` is by how many seconds that clock was ahead of the monotonic one; None where nobody knows, or the host has
    started anew since.
    """

    histories: Mapping[str, History]
    clock_ahead: float | None = None
