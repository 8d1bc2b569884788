"""From answers to verdicts: pure, so that every rule about what is up can be read and tested here.

    attempt ──advance──▶ Track ──conclude──▶ (State, reason) ──▶ Result ──▶ Report ──▶ exit code

    Track.settled    none ──one answer──▶ alive ◀──rise answers── down
                     none ──fall failures──────────────────────▶ down
                                         alive ──fall failures─▶ down

Alive is UP or DEGRADED, or DRAINING or MAINTENANCE where the target itself says so, whichever the latest answer said.
An attempt that failed for a reason of this host's own is UNKNOWN: it counts neither way and is shown as it is, so it
can never become a DOWN.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.judging import Judging
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState

PROBE_SCHEMA = "cfscale/probe/v1"
_SHOWN_CHARACTERS = 200
_RECENT = (1 << 64) - 1  # answers that a track remembers, however few of them are judged
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
_UNKNOWN, _DOWN = State.UNKNOWN, State.DOWN  # looked up once: members of a class are slow to find


class Kind(StrEnum):
    """The protocols in which a target can be asked; those of ``HealthKind`` are among them."""

    HTTP = "http"
    TCP = "tcp"
    TLS = "tls"
    DNS = "dns"
    REDIS = "redis"
    POSTGRES = "postgres"
    GRPC = "grpc"
    JSONRPC = "jsonrpc"
    EXEC = "exec"
    DOCKER = "docker"
    HEARTBEAT = "heartbeat"
    AGENT = "agent"
    NONE = "none"


_KINDS = {kind: Kind(kind.value) for kind in HealthKind}


class Target(Struct, frozen=True):
    """Something to ask. ``name`` is what is shown: it never holds a password.

    Targets of one ``group`` fail for one reason (they run the same service), which is what the panic rule looks at.
    ``any_success`` takes every 2xx for a yes, where nobody said which status to expect. ``asked_in`` is a protocol that
    ``health`` has no word for, and ``about`` what it is asked about: a DNS name, a Redis key, a gRPC service, arguments.
    """

    name: str
    host: str
    port: int
    health: Health
    group: str
    tls: bool = False
    any_success: bool = False
    secret: str | None = None
    replica: Replica | None = None
    asked_in: Kind | None = None
    about: tuple[str, ...] = ()
    user: str = ""
    max_age_seconds: float = 90.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.host!r}, {self.port})"  # the secret is nobody's to read

    @property
    def kind(self) -> Kind:
        """The protocol it is asked in."""
        return self.asked_in or _KINDS[self.health.kind]

    @property
    def named(self) -> bool:
        """Whether its address has to be looked up: no name ends in a digit, and every IPv4 address does."""
        host = self.host
        return bool(host) and not host[-1].isdigit() and ":" not in host and not host.startswith("/")


class Phases(Struct, frozen=True, gc=False):
    """Where the time of an attempt went; None for what it did not come to, or had no need of."""

    resolve_seconds: float | None = None
    connect_seconds: float | None = None
    tls_seconds: float | None = None
    first_byte_seconds: float | None = None


class Attempt(Struct, frozen=True, gc=False):
    """What one question came to. Latency is None where nothing was sent.

    ``late``: this host did not look in time, so the question should be put again. ``unreachable``: it has no way to the
    target's network; ``remote`` an answer, of whatever kind, that came from another machine.
    """

    state: State
    reason: str
    latency_seconds: float | None = None
    phases: Phases | None = None
    status: int | None = None
    certificate_expires_at: float | None = None
    late: bool = False
    unreachable: bool = False
    remote: bool = False


class Track(Struct, frozen=True, gc=False):
    """What is known of one target: the last confirmed verdict, and the answers since that may change it.

    ``failure`` is the latest failure of the round in hand: a later success does not hide it. ``recent`` has a bit for
    each of the latest answers, set for a failure. ``late`` counts the attempts in a row that this host missed.
    """

    settled: State | None = None
    good: int = 0
    bad: int = 0
    last: Attempt | None = None
    failure: str = ""
    recent: int = 0
    late: int = 0

    def flaky(self, judging: Judging) -> bool:
        """Whether the latest answers turned so often that no verdict tells the whole story."""
        turns = (self.recent ^ (self.recent >> 1)) & ((1 << (judging.flaky_answers - 1)) - 1)
        return turns.bit_count() >= judging.flaky_turns


class Result(Struct, frozen=True, gc=False):
    """The verdict on one target as it is published.

    ``certificate_expires_at`` is in seconds since the epoch, ``predicted_seconds`` how long it is until a limit that
    ``reason`` names is reached if things go on as they do.
    """

    target: str
    kind: str
    state: State
    latency_seconds: float | None
    reason: str
    flaky: bool = False
    phases: Phases | None = None
    http_status: int | None = None
    certificate_expires_at: float | None = None
    predicted_seconds: float | None = None


class Summary(Struct, frozen=True):
    """How many targets are in each state; every state is always there."""

    up: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    starting: int = 0
    draining: int = 0
    maintenance: int = 0


class Report(Struct, frozen=True):
    """One round over all targets: the document ``cfscale/probe/v1``.

    ``panic`` names the groups of which more than half went down at once: no action may follow from their verdicts.
    """

    schema: str
    results: tuple[Result, ...]
    summary: Summary
    panic: tuple[str, ...] = ()


def shown(text: str) -> str:
    """Text from outside, safe for a terminal, a log and XML: one line, no control characters, not too long."""
    if text.isascii() and text.isprintable() and len(text) <= _SHOWN_CHARACTERS:
        return text
    plain = _UNSHOWN.sub("", text)
    return plain if len(plain) <= _SHOWN_CHARACTERS else plain[: _SHOWN_CHARACTERS - 1] + "…"


def advance(track: Track, attempt: Attempt, health: Health) -> Track:
    """The track after one more attempt."""
    state = attempt.state
    if state is _UNKNOWN:
        return replace(track, last=attempt, late=track.late + 1 if attempt.late else 0)
    settled, recent = track.settled, (track.recent << 1) & _RECENT
    if state is not _DOWN:
        good = track.good + 1
        risen = settled is not _DOWN or good >= health.rise
        return Track(state if risen else _DOWN, good, 0, attempt, track.failure, recent)
    bad = track.bad + 1
    fallen = settled is _DOWN or bad >= health.fall
    return Track(_DOWN if fallen else settled, 0, bad, attempt, attempt.reason, recent | 1)


def fresh(track: Track | None) -> Track:
    """The track at the beginning of a round: failures of the previous one have been told."""
    return Track() if track is None else replace(track, failure="", late=0)


def in_doubt(track: Track, health: Health) -> bool:
    """Whether to ask again soon: the latest answer speaks against the verdict, or this host did not look in time."""
    last = track.last
    if last is None or last.state is _UNKNOWN:
        return last is not None and last.late and track.late < health.fall
    return (track.settled is _DOWN) == (last.state is not _DOWN)


def attributed(attempt: Attempt, *, connected: bool) -> Attempt:
    """Whose fault it is that there is no way to a target: where others answer from outside (``connected``), its own."""
    if attempt.unreachable and connected:
        return Attempt(State.DOWN, attempt.reason, attempt.latency_seconds, attempt.phases)
    return attempt


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


def conclude(target: Target, track: Track, now: float, judging: Judging) -> tuple[State, str]:
    """The verdict on a target that was asked, and why; ``now`` is seconds since the epoch."""
    state, reason = _answered(track, target.health, judging)
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


def _answered(track: Track, health: Health, judging: Judging) -> tuple[State, str]:
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
    return track.settled, _with_doubts(track, last, judging)


def _with_doubts(track: Track, last: Attempt, judging: Judging) -> str:
    """The reason of a target that is not down, with what speaks against it."""
    doubts = [f"flaky: {track.failure}"] if track.failure else []
    if track.flaky(judging):
        failures = (track.recent & ((1 << judging.flaky_answers) - 1)).bit_count()
        doubts.append(f"flaky: {failures} of the latest {judging.flaky_answers} answers were failures")
    return "; ".join([*([last.reason] if last.state is not State.DOWN else []), *doubts]) or last.reason


def result(target: Target, track: Track, now: float, judging: Judging) -> Result:
    """The verdict on a target that was asked, as it is published."""
    last = track.last
    if last is None:
        return Result(target.name, target.kind.value, State.UNKNOWN, None, "not asked yet")
    undisputed = last.state is track.settled and not track.recent and target.replica is None
    state, reason = (last.state, last.reason) if undisputed else conclude(target, track, now, judging)
    return Result(
        target=target.name,
        kind=target.kind.value,
        state=state,
        latency_seconds=last.latency_seconds,
        reason=reason,
        flaky=track.flaky(judging) or (bool(track.failure) and state not in (State.DOWN, State.UNKNOWN)),
        phases=last.phases,
        http_status=last.status,
        certificate_expires_at=last.certificate_expires_at,
    )


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


def panicking(
    targets: Sequence[Target], before: Mapping[str, State], after: Mapping[str, State], judging: Judging
) -> tuple[str, ...]:
    """The groups, large enough to tell, of which most turned down since the previous round.

    So many failures at once are rather the network's or this host's: the verdicts stand, but nobody may act on them.
    """
    sizes = Counter(target.group for target in targets)
    turned = Counter(
        target.group
        for target in targets
        if after.get(target.name) is State.DOWN and before.get(target.name, State.DOWN) is not State.DOWN
    )
    return tuple(
        group
        for group, size in sizes.items()
        if size >= judging.panic_targets and turned[group] > size * judging.panic_ratio
    )
