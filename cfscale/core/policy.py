"""What a policy sees and what it says, and the resource policy: usages of replicas in, one proposed count out.

    Observation ──▶ Situation (a Reading per resource, counts per state) ──▶ Proposal: grow | shrink | keep

A live tick makes its situation of what was observed, a replay of what it models; from there on both go the same way.

Above a band's upper threshold the count proposed is what carries the load at that threshold, ceil(load / threshold),
where load is the sum of the ready replicas' ratios (ready times utilisation). Missing replicas count as the Kubernetes HPA
counts them: as idle when growing, as full when shrinking. CPU alone proposes a shrink; memory allows it as far as it
stays under its own upper threshold. Disk never asks for replicas: one more adds no space to a full one.
"""

from collections.abc import Mapping, Sequence
from math import ceil

from msgspec import Struct, field

from cfscale.core.forecast import Outlook
from cfscale.core.plan import Band, Scaling, Service
from cfscale.core.samples import Quality, Replica, ReplicaState, Sample, Usage
from cfscale.core.units import percent

_ROUNDING = 1e-9
# tuples: a member is found by identity, where a set would hash it, which for an enumeration is a call of Python
_COMPLETE = (Quality.OK, Quality.APPROX)
_RUNNING = (ReplicaState.READY, ReplicaState.STARTING, ReplicaState.UNHEALTHY, ReplicaState.PAUSED)


class Pause(Struct, frozen=True, gc=False):
    """Until when an operator has stopped scaling, per direction, in seconds since the epoch."""

    scale_in_until: float = 0.0
    scale_out_until: float = 0.0


class Backlog(Struct, frozen=True, gc=False):
    """What waits in one queue; ``waiting`` of None: it could not be asked, for the reason in ``problem``."""

    source: str
    waiting: float | None
    per_replica: float = 1.0
    taken_at: float = 0.0
    problem: str = ""

    def sample(self, current: int) -> Sample:
        """The backlog as it is published: what waits, in what the replicas may leave waiting."""
        known = self.waiting is not None
        ratio = (self.waiting or 0.0) / (self.per_replica * max(1, current))
        return Sample("backlog", ratio, self.source, 0.0, Quality.OK if known else Quality.STALE)


class Census(Struct, frozen=True, gc=False):
    """Who there is of one service, by state: the ids of those that run."""

    ready: tuple[str, ...]
    starting: tuple[str, ...]
    unhealthy: tuple[str, ...]
    paused: int
    ready_ids: frozenset[str]


def census(replicas: Sequence[Replica]) -> Census:
    """Count these replicas."""
    ready, starting, unhealthy = [
        tuple([one.id for one in replicas if one.state is state])
        for state in (ReplicaState.READY, ReplicaState.STARTING, ReplicaState.UNHEALTHY)
    ]
    paused = len([one for one in replicas if one.state is ReplicaState.PAUSED])
    return Census(ready, starting, unhealthy, paused, frozenset(ready))


class Observation(Struct, frozen=True, gc=False):
    """What one tick saw of one service; ``replicas`` and ``usages`` are those of this service alone.

    ``counted`` is their census, where it was taken before: replicas change less often than ticks come. ``proven`` are the
    ids of those that some earlier tick saw ready.
    """

    service: Service
    engine: str
    time: float
    replicas: tuple[Replica, ...]
    usages: tuple[Usage, ...]
    pause: Pause = Pause()
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    counted: Census | None = None
    proven: frozenset[str] = frozenset()

    @property
    def census(self) -> Census:
        """Who there is."""
        return self.counted or census(self.replicas)

    @property
    def current(self) -> int:
        """How many replicas run, in whatever health; stopped and draining ones do not count."""
        return len([1 for replica in self.replicas if replica.state in _RUNNING])

    def count(self, state: ReplicaState) -> int:
        """How many replicas are in this state."""
        return len([1 for replica in self.replicas if replica.state is state])


class Reading(Struct, frozen=True, gc=False):
    """One resource over the ready replicas: mean utilisation of those that reported, how many, of how many that should have.

    Only fresh and sane ratios count; ``mean`` is zero where there are none. ``last`` is the mean of what was known before it
    went stale, for display alone.
    """

    resource: str
    mean: float
    reporting: int
    expected: int
    quality: Quality
    source: str
    age_seconds: float
    last: float | None = None
    window_seconds: float = 0.0

    @property
    def load(self) -> float:
        """The work at hand, in replicas: the sum of the ratios."""
        return self.mean * self.reporting

    @property
    def load_at_most(self) -> float:
        """The work at hand if every replica that did not report were full."""
        return self.mean * self.reporting + self.expected - self.reporting

    def trusted(self, min_reporting_ratio: float) -> bool:
        """Whether a shrink may rest on it: enough replicas report, and only complete values."""
        enough = self.reporting > 0 and self.reporting >= min_reporting_ratio * self.expected
        return enough and self.quality in _COMPLETE

    @property
    def sample(self) -> Sample | None:
        """The reading as it is published; None where nothing was ever known."""
        value = self.mean if self.reporting else self.last
        if value is None:
            return None
        complete = self.reporting >= self.expected or self.quality is not Quality.OK
        quality = self.quality if complete else Quality.PARTIAL
        return Sample(self.resource, value, self.source, self.age_seconds, quality, self.window_seconds)


class Situation(Struct, frozen=True, gc=False):
    """One service in one tick, as policies see it. ``low_since``: since when its load is low without a break.

    ``outlook`` is the forecast where a policy asks for one; ``backlogs`` what waits in queues, by their names.
    """

    time: float
    current: int
    ready: int
    starting: int
    cpu: Reading
    memory: Reading
    disk: Reading
    min_replicas: int = 1
    paused: int = 0
    oom_kills: int = 0
    low_since: float | None = None
    outlook: Outlook | None = None
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """What was measured, as it is published."""
        waiting = [backlog.sample(self.current) for backlog in self.backlogs.values()]
        measured = [self.cpu.sample, self.memory.sample, self.disk.sample, *waiting]
        return tuple([sample for sample in measured if sample is not None])

    def critical(self, scaling: Scaling) -> bool:
        """Whether somebody should look at once: a resource all but exhausted, a replica killed for lack of memory."""
        limit = scaling.critical_ratio
        return self.oom_kills > 0 or self.cpu.mean > limit or self.memory.mean > limit or self.disk.mean > limit


class Proposal(Struct, frozen=True, gc=False):
    """The count a policy asks for, before any damping, and why. ``shrinkable``: nothing forbids fewer replicas.

    ``tolerated`` says that the policy has applied a tolerance of its own, ``unbounded`` that a step up may be of any size.
    """

    replicas: int
    reason: str
    shrinkable: bool = True
    tolerated: bool = False
    unbounded: bool = False


def resource(situation: Situation, scaling: Scaling) -> Proposal:
    """What the founding thresholds ask for; the largest wish of a resource wins, and doubt keeps what is there."""
    blocked = doubt(situation, scaling)
    replicas, reason = _grown(situation, scaling) or (
        (situation.current, blocked) if blocked else _settled(situation, scaling)
    )
    return Proposal(replicas, reason, shrinkable=not blocked)


def _grown(situation: Situation, scaling: Scaling) -> tuple[int, str] | None:
    """The larger count that a resource above its band asks for; what is there where replicas on their way will do."""
    above = [(situation.cpu, scaling.cpu.scale_up_ratio), (situation.memory, scaling.memory.scale_up_ratio)]
    above = [(reading, limit) for reading, limit in above if reading.mean > limit]
    if not above:
        return None
    needed, reason = max(
        [
            (needed_for(reading.load, limit), f"{reading.resource} {percent(reading.mean)} is above {percent(limit)}")
            for reading, limit in above
        ]
    )
    if needed > situation.current:
        return needed, f"{reason}: {needed} needed"
    return situation.current, f"{reason}: {_awaited(situation)}"


def _awaited(situation: Situation) -> str:
    if situation.starting:
        return f"{situation.starting} still starting will help to carry it"
    return f"{situation.current} suffice once all of them are ready and report"


def _settled(situation: Situation, scaling: Scaling) -> tuple[int, str]:
    """Fewer replicas where CPU is below its band, as far as memory allows; else as many as there are."""
    cpu, memory, limit = situation.cpu, situation.memory, scaling.cpu.scale_down_ratio
    if cpu.mean >= limit:
        return situation.current, f"cpu {percent(cpu.mean)}, memory {percent(memory.mean)}: within the bands"
    below = f"cpu {percent(cpu.mean)} is below {percent(limit)}"
    if cpu.load_at_most >= limit * cpu.expected:
        return situation.current, f"{below}, but not if those that do not report are busy"
    by_cpu = needed_for(cpu.load_at_most, scaling.cpu.scale_up_ratio)
    by_memory = needed_for(memory.load_at_most, scaling.memory.scale_up_ratio)
    wanted = min(situation.current, max(by_cpu, by_memory))
    if by_memory > by_cpu:
        return wanted, f"{below}, but memory {percent(memory.mean)} needs {wanted}"
    return wanted, f"{below}: {wanted} needed"


def doubt(situation: Situation, scaling: Scaling) -> str:
    """Why fewer replicas are out of the question in this tick; empty where they are not."""
    cpu, memory = situation.cpu, situation.memory
    if not cpu.reporting and not memory.reporting:
        return "no usable metrics: nothing is changed"
    if situation.paused:
        return f"{situation.paused} paused: no shrinking"
    if situation.oom_kills:
        return f"{situation.oom_kills} killed for lack of memory: no shrinking"
    for reading in (cpu, memory):
        if not reading.trusted(scaling.safety.min_reporting_ratio):
            quality = "" if reading.quality in _COMPLETE else f" ({reading.quality})"
            return f"{reading.reporting} of {reading.expected} report {reading.resource}{quality}: no shrinking"
    return ""


def alert(disk: Reading, band: Band) -> str:
    """What to say of a disk that fills; empty where it does not."""
    if disk.mean <= band.scale_up_ratio:
        return ""
    full = f"disk {percent(disk.mean)} is above {percent(band.scale_up_ratio)}"
    return f"; alert: {full}, free some space (more replicas do not help)"


def needed_for(load: float, filled_ratio: float) -> int:
    """How many replicas carry this load filled so far; at least one."""
    return max(1, ceil(load / filled_ratio - _ROUNDING))
