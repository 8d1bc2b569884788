"""From answers to verdicts: pure, so that every rule about what is up can be read and tested here.

    attempt ──advance──▶ Track ──conclude──▶ (State, reason) ──▶ Result ──▶ Report ──▶ exit code

    Track.settled    none ──one answer──▶ alive ◀──rise answers── down
                     none ──fall failures──────────────────────▶ down
                                         alive ──fall failures─▶ down

Alive is UP or DEGRADED, whichever the latest answer said. An attempt that failed for a reason of this host's own is
UNKNOWN: it counts neither way and is shown as it is, so it can never become a DOWN.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState

PROBE_SCHEMA = "cfscale/probe/v1"
PANIC_RATIO = 0.5
PANIC_TARGETS = 5
_SHOWN_CHARACTERS = 200
# C0, DEL and C1 steer terminals; bidirectional overrides reorder what is read; surrogates, U+FFFE and U+FFFF break XML
_UNSHOWN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class State(StrEnum):
    """The verdict on one target. UNKNOWN says something about this host, not about the target."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"
    UNKNOWN = "unknown"
    STARTING = "starting"
    DRAINING = "draining"
    MAINTENANCE = "maintenance"


ALIVE = frozenset({State.UP, State.DEGRADED})


@dataclass(frozen=True, slots=True)
class Target:
    """Something to ask. ``name`` is what is shown: it never holds a password.

    Targets of one ``group`` fail for one reason (they run the same service), which is what the panic rule looks at.
    ``any_success`` takes every 2xx for a yes, where nobody said which status to expect.
    """

    name: str
    host: str
    port: int
    health: Health
    group: str
    tls: bool = False
    any_success: bool = False
    secret: str | None = field(default=None, repr=False)
    replica: Replica | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one question came to: UP, DEGRADED, DOWN or UNKNOWN. Latency is None where nothing was sent."""

    state: State
    reason: str
    latency_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Track:
    """What is known of one target: the last confirmed verdict, and the answers since that may change it.

    ``failure`` is the latest failure of the round in hand: a later success does not hide it.
    """

    settled: State | None = None
    good: int = 0
    bad: int = 0
    last: Attempt | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one target as it is published."""

    target: str
    kind: str
    state: State
    latency_seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How many targets are in each state; every state is always there."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    starting: int = 0
    draining: int = 0
    maintenance: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """One round over all targets: the document ``cfscale/probe/v1``.

    ``panic`` names the groups of which more than half went down at once: no action may follow from their verdicts.
    """

    schema: str
    results: tuple[Result, ...]
    summary: Summary
    panic: tuple[str, ...] = ()


def shown(text: str) -> str:
    """Text from outside, safe for a terminal, a log and XML: one line, no control characters, not too long."""
    plain = _UNSHOWN.sub("", text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[: _SHOWN_CHARACTERS - 1] + "…"


def advance(track: Track, attempt: Attempt, health: Health) -> Track:
    """The track after one more attempt."""
    if attempt.state is State.UNKNOWN:
        return replace(track, last=attempt)
    if attempt.state in ALIVE:
        good = track.good + 1
        risen = track.settled is not State.DOWN or good >= health.rise
        return Track(attempt.state if risen else State.DOWN, good, 0, attempt, track.failure)
    bad = track.bad + 1
    fallen = track.settled is State.DOWN or bad >= health.fall
    return Track(State.DOWN if fallen else track.settled, 0, bad, attempt, attempt.reason)


def in_doubt(track: Track) -> bool:
    """Whether the latest answer speaks against the verdict without having changed it: ask again soon."""
    if track.last is None or track.last.state is State.UNKNOWN:
        return False
    return (track.settled is State.DOWN) == (track.last.state in ALIVE)


def standing(target: Target) -> Attempt | None:
    """What the engine's word alone settles about a replica; None where it has to be asked."""
    replica = target.replica
    if replica is None:
        return None
    because = f": {replica.reason}" if replica.reason else ""
    if replica.state in _STANDING:
        return Attempt(_STANDING[replica.state], shown(f"{replica.state.value}{because}"))
    if target.health.kind is HealthKind.NONE:
        return Attempt(_UNASKED[replica.state], shown(f"{replica.state.value}{because}; it has no health question"))
    if replica.address is not None:
        return None
    if replica.vouched:
        return Attempt(
            _UNASKED[replica.state], shown(f"{replica.state.value}{because}, says the engine; not reached from here")
        )
    return Attempt(State.UNKNOWN, "the engine knows no address of it")


_STANDING = {
    ReplicaState.STOPPED: State.DOWN,
    ReplicaState.PAUSED: State.MAINTENANCE,
    ReplicaState.DRAINING: State.DRAINING,
}
_UNASKED = {
    ReplicaState.READY: State.UP,
    ReplicaState.STARTING: State.STARTING,
    ReplicaState.UNHEALTHY: State.DOWN,
}


def conclude(target: Target, track: Track, now: float) -> tuple[State, str]:
    """The verdict on a target that was asked, and why; ``now`` is seconds since the epoch."""
    state, reason = _answered(track, target.health)
    replica = target.replica
    if replica is None:
        return state, reason
    failing = track.last is not None and track.last.state is State.DOWN
    young = now - replica.started_at < target.health.start_period_seconds
    if replica.state is ReplicaState.STARTING and failing and young:
        return State.STARTING, reason
    if replica.state is ReplicaState.UNHEALTHY and state is State.UP:
        return State.DEGRADED, shown(
            f"answers ({reason}), but its engine says unhealthy: {replica.reason or 'no reason'}"
        )
    return state, reason


def _answered(track: Track, health: Health) -> tuple[State, str]:
    last = track.last
    if last is None:
        return State.UNKNOWN, "not asked yet"
    if last.state is State.UNKNOWN:
        return State.UNKNOWN, last.reason
    if track.settled is None:
        return State.UNKNOWN, f"{last.reason}; not confirmed yet, {track.bad} of {health.fall} times"
    if track.settled is State.DOWN:
        again = f"answers again, {track.good} of {health.rise} times"
        return State.DOWN, again if track.good else last.reason
    flaky = f"{last.reason}; flaky: {track.failure}" if last.state in ALIVE else f"flaky: {track.failure}"
    return track.settled, flaky if track.failure else last.reason


def summarise(results: Sequence[Result]) -> Summary:
    """The count of each state."""
    counts = Counter(result.state.value for result in results)
    return Summary(**{state.value: counts[state.value] for state in State})


def report(results: Sequence[Result], panic: tuple[str, ...] = ()) -> Report:
    """The document of one round."""
    return Report(PROBE_SCHEMA, tuple(results), summarise(results), panic)


def exit_code(found: Report, *, fail_on_degraded: bool = False) -> int:
    """1 for any down, else 3 for any unknown, else 0; the same whatever the output format."""
    if found.summary.down or (fail_on_degraded and found.summary.degraded):
        return 1
    return 3 if found.summary.unknown else 0


def nagios_code(found: Report) -> int:
    """0 OK, 1 WARNING (degraded), 2 CRITICAL (down), 3 UNKNOWN: what monitoring plugins return."""
    if found.summary.down:
        return 2
    if found.summary.unknown:
        return 3
    return 1 if found.summary.degraded else 0


def panicking(targets: Sequence[Target], before: Mapping[str, State], after: Mapping[str, State]) -> tuple[str, ...]:
    """The groups of at least five targets of which more than half turned down since the previous round.

    So many failures at once are rather the network's or this host's: the verdicts stand, but nobody may act on them.
    """
    sizes = Counter(target.group for target in targets)
    turned = Counter(
        target.group
        for target in targets
        if after.get(target.name) is State.DOWN and before.get(target.name, State.DOWN) is not State.DOWN
    )
    return tuple(group for group, size in sizes.items() if size >= PANIC_TARGETS and turned[group] > size * PANIC_RATIO)
