"""The resource policy: usages of replicas in, samples and one proposed replica count out.

    usages ──▶ Reading per resource (ratios of ready replicas, quality) ──▶ grow | shrink | keep

Above a band's upper threshold the count proposed is what carries the load at that threshold, ceil(load / threshold),
where load is the sum of the ready replicas' ratios (ready times utilisation). Missing replicas count as the Kubernetes HPA
counts them: as idle when growing, as full when shrinking. CPU alone proposes a shrink; memory allows it as far as it
stays under its own upper threshold. Disk never asks for replicas: one more adds no space to a full one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite

from cfscale.core.plan import Band, Scaling, Service
from cfscale.core.samples import Quality, Replica, ReplicaState, Sample, Usage

# a thousand times its limit is not a measurement, whether the limit is enforced or not
_MOST_RATIO = 1000.0
_ROUNDING = 1e-9
_WORST_FIRST = (Quality.STALE, Quality.WARMING, Quality.PARTIAL, Quality.APPROX, Quality.OK)
_RUNNING = frozenset((ReplicaState.STARTING, ReplicaState.READY, ReplicaState.UNHEALTHY, ReplicaState.PAUSED))


@dataclass(frozen=True, slots=True)
class Pause:
    """Until when an operator has stopped scaling, per direction, in seconds since the epoch."""

    scale_in_until: float = 0.0
    scale_out_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What one tick saw of one service; ``replicas`` and ``usages`` are those of this service alone."""

    service: Service
    engine: str
    time: float
    replicas: tuple[Replica, ...]
    usages: tuple[Usage, ...]
    pause: Pause = Pause()

    @property
    def current(self) -> int:
        """How many replicas run, in whatever health; stopped and draining ones do not count."""
        return sum(replica.state in _RUNNING for replica in self.replicas)

    def count(self, state: ReplicaState) -> int:
        """How many replicas are in this state."""
        return sum(replica.state is state for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class Reading:
    """One resource over the ready replicas.

    ``ratios`` are the fresh and sane ones, of ``expected`` that should have reported; ``last`` is the mean of what was
    known before it went stale, for display alone.
    """

    resource: str
    ratios: tuple[float, ...]
    expected: int
    quality: Quality
    source: str
    age_seconds: float
    last: float | None = None

    @property
    def load(self) -> float:
        """The work at hand in units of one whole replica; replicas that did not report count as idle."""
        return sum(self.ratios)

    @property
    def load_at_most(self) -> float:
        """The work at hand if every replica that did not report were full."""
        return self.load + self.expected - len(self.ratios)

    @property
    def mean(self) -> float:
        """Mean utilisation of the replicas that reported; zero where none did."""
        return self.load / len(self.ratios) if self.ratios else 0.0

    def trusted(self, min_reporting_ratio: float) -> bool:
        """Whether a shrink may rest on it: enough replicas report, and only complete values."""
        enough = bool(self.ratios) and len(self.ratios) >= min_reporting_ratio * self.expected
        return enough and self.quality in (Quality.OK, Quality.APPROX)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The reading as it is published: one sample, or none where nothing was ever known."""
        value = self.mean if self.ratios else self.last
        if value is None:
            return ()
        complete = len(self.ratios) >= self.expected or self.quality is not Quality.OK
        quality = self.quality if complete else Quality.PARTIAL
        return (Sample(self.resource, value, self.source, self.age_seconds, quality),)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The count the policy asks for, before any damping, and why. ``shrinkable``: nothing forbids fewer replicas."""

    replicas: int
    reason: str
    samples: tuple[Sample, ...]
    shrinkable: bool
    critical: bool


def propose(observation: Observation, scaling: Scaling) -> Proposal:
    """What the resources of one service ask for; the largest wish wins, and doubt keeps what is there."""
    cpu, memory, disk = (_reading(resource, observation, scaling) for resource in _RATIOS)
    blocked = _blocked(observation, scaling, cpu, memory)
    replicas, reason = _grown(observation, scaling, cpu, memory) or (
        (observation.current, blocked) if blocked else _settled(observation, scaling, cpu, memory)
    )
    return Proposal(
        replicas=replicas,
        reason=reason + _alert(disk, scaling.disk),
        samples=(*cpu.samples, *memory.samples, *disk.samples),
        shrinkable=not blocked,
        critical=_oom_kills(observation) > 0 or any(r.mean > scaling.critical_ratio for r in (cpu, memory, disk)),
    )


def _grown(observation: Observation, scaling: Scaling, cpu: Reading, memory: Reading) -> tuple[int, str] | None:
    """The larger count that a resource above its band asks for; what is there where replicas on their way will do."""
    needs = [
        (_replicas_for(reading.load, band), f"{reading.resource} {percent(reading.mean)} is above {percent(limit)}")
        for reading, band in ((cpu, scaling.cpu), (memory, scaling.memory))
        if reading.mean > (limit := band.scale_up_ratio)
    ]
    if not needs:
        return None
    needed, reason = max(needs)
    if needed > observation.current:
        return needed, f"{reason}: {needed} needed"
    return observation.current, f"{reason}: {_awaited(observation)}"


def _awaited(observation: Observation) -> str:
    starting = observation.count(ReplicaState.STARTING)
    if starting:
        return f"{starting} still starting will help to carry it"
    return f"{observation.current} suffice once all of them are ready and report"


def _settled(observation: Observation, scaling: Scaling, cpu: Reading, memory: Reading) -> tuple[int, str]:
    """Fewer replicas where CPU is below its band, as far as memory allows; else as many as there are."""
    limit = scaling.cpu.scale_down_ratio
    if cpu.mean >= limit:
        return observation.current, f"cpu {percent(cpu.mean)}, memory {percent(memory.mean)}: within the bands"
    below = f"cpu {percent(cpu.mean)} is below {percent(limit)}"
    if cpu.load_at_most >= limit * cpu.expected:
        return observation.current, f"{below}, but not if those that do not report are busy"
    by_cpu, by_memory = _replicas_for(cpu.load_at_most, scaling.cpu), _replicas_for(memory.load_at_most, scaling.memory)
    wanted = min(observation.current, max(by_cpu, by_memory))
    if by_memory > by_cpu:
        return wanted, f"{below}, but memory {percent(memory.mean)} needs {wanted}"
    return wanted, f"{below}: {wanted} needed"


def _blocked(observation: Observation, scaling: Scaling, cpu: Reading, memory: Reading) -> str:
    """Why fewer replicas are out of the question in this tick; empty where they are not."""
    if not cpu.ratios and not memory.ratios:
        return "no usable metrics: nothing is changed"
    if paused := observation.count(ReplicaState.PAUSED):
        return f"{paused} paused: no shrinking"
    if kills := _oom_kills(observation):
        return f"{kills} killed for lack of memory: no shrinking"
    for reading in (cpu, memory):
        if not reading.trusted(scaling.safety.min_reporting_ratio):
            doubt = "" if reading.quality in (Quality.OK, Quality.APPROX) else f" ({reading.quality})"
            return f"{len(reading.ratios)} of {reading.expected} report {reading.resource}{doubt}: no shrinking"
    return ""


def _alert(disk: Reading, band: Band) -> str:
    if disk.mean <= band.scale_up_ratio:
        return ""
    full = f"disk {percent(disk.mean)} is above {percent(band.scale_up_ratio)}"
    return f"; alert: {full}, free some space (more replicas do not help)"


def percent(ratio: float) -> str:
    """A ratio in words, to a tenth of a percent: 0.85 -> ``85%``."""
    return f"{100 * ratio:.1f}".removesuffix(".0") + "%"


def _oom_kills(observation: Observation) -> int:
    return sum(usage.oom_kills for usage in observation.usages)


def _replicas_for(load: float, band: Band) -> int:
    """How many replicas carry this load at the upper threshold; at least one."""
    return max(1, ceil(load / band.scale_up_ratio - _ROUNDING))


def _reading(resource: str, observation: Observation, scaling: Scaling) -> Reading:
    ready = {replica.id for replica in observation.replicas if replica.state is ReplicaState.READY}
    usages = [usage for usage in observation.usages if usage.replica in ready]
    ratios = [(usage, _RATIOS[resource](usage, observation.service)) for usage in usages]
    known = [(usage, ratio) for usage, ratio in ratios if ratio is not None]
    fresh = [(usage, ratio) for usage, ratio in known if _fresh(usage, observation.time, scaling)]
    shown = [usage for usage, _ in fresh or known]
    return Reading(
        resource=resource,
        ratios=tuple(ratio for _, ratio in fresh),
        expected=len(ready) + observation.count(ReplicaState.UNHEALTHY),
        quality=_quality([usage.quality for usage in shown or usages], stale=bool(known) and not fresh),
        source="+".join(sorted({usage.source for usage in shown})),
        age_seconds=max((max(0.0, observation.time - usage.taken_at) for usage in shown), default=0.0),
        last=sum(ratio for _, ratio in known) / len(known) if known else None,
    )


def _fresh(usage: Usage, time: float, scaling: Scaling) -> bool:
    """Whether a usage may count: a clock that jumped, a suspended host or a hung source makes it stale."""
    longest = scaling.safety.stale_after_intervals * scaling.interval_seconds
    return (
        usage.quality is not Quality.STALE
        and abs(time - usage.taken_at) <= longest
        and 0 <= usage.window_seconds <= longest
    )


def _quality(qualities: list[Quality], *, stale: bool) -> Quality:
    if stale:
        return Quality.STALE
    return next((quality for quality in _WORST_FIRST if quality in qualities), Quality.PARTIAL)


def _cpu_ratio(usage: Usage, service: Service) -> float | None:
    """CPU against the limit, else the request; time throttled at the quota is time at full use."""
    limit = usage.cpu_limit_cores or (service.cpu_limit_millicores or service.cpu_request_millicores) / 1000
    ratio = _ratio(usage.cpu_cores, limit)
    throttled = _ratio(usage.throttled_ratio, 1.0) or 0.0
    return None if ratio is None else max(ratio, min(throttled, 1.0))


def _memory_ratio(usage: Usage, service: Service) -> float | None:
    """The working set less what the kernel can take back, against the limit, else the request."""
    limit = usage.memory_limit_bytes or service.memory_limit_bytes or service.memory_request_bytes
    whole, reclaimable = _ratio(usage.memory_bytes, limit), _ratio(usage.reclaimable_bytes, limit)
    return None if whole is None else max(0.0, whole - (reclaimable or 0.0))


def _disk_ratio(usage: Usage, _service: Service) -> float | None:
    return _ratio(usage.disk_ratio, 1.0)


def _ratio(value: float | None, limit: float) -> float | None:
    """A value against its limit; None for what cannot be a measurement: not finite, negative, absurd."""
    if value is None or not isfinite(value) or not isfinite(limit) or limit <= 0:
        return None
    ratio = value / limit
    return ratio if 0 <= ratio <= _MOST_RATIO else None


_RATIOS: dict[str, Callable[[Usage, Service], float | None]] = {
    "cpu": _cpu_ratio,
    "memory": _memory_ratio,
    "disk": _disk_ratio,
}
