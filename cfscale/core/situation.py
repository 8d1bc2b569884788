"""From what was observed of a service to the situation that policies see: one pass over its measurements.

    Observation ──fresh and sane ratios of ready replicas──▶ a Reading per resource ──▶ Situation

A ratio is usage against the limit, else the request. What cannot be a measurement (not finite, negative, absurd, too old) is
none, and never idleness.
"""

from collections.abc import Callable, Sequence
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.plan import Scaling, Service
from cfscale.core.policy import Census, Observation, Reading, Situation
from cfscale.core.samples import Quality, Usage

# a thousand times its limit is not a measurement, whether the limit is enforced or not
_MOST_RATIO = 1000.0
_OK, _STALE = Quality.OK, Quality.STALE  # each look into an enumeration costs as much as ten names do
_WORST_LAST = (_OK, Quality.APPROX, Quality.PARTIAL, Quality.WARMING, _STALE)


def situation_of(observation: Observation, scaling: Scaling) -> Situation:
    """The situation that one tick observed."""
    who = observation.census
    measured = _measured(observation, who, scaling)
    busy = _with_saturated(measured, observation, scaling) if who.unhealthy else measured
    return Situation(
        time=observation.time,
        current=measured.expected + len(who.starting) + who.paused,
        ready=len(who.ready),
        starting=len(who.starting),
        cpu=_reading("cpu", _cpu_ratio, busy),
        memory=_reading("memory", _memory_ratio, measured),
        disk=_reading("disk", _disk_ratio, measured),
        min_replicas=observation.service.min_replicas,
        paused=who.paused,
        oom_kills=sum([usage.oom_kills for usage in observation.usages]),
        backlogs=observation.backlogs,
    )


class _Origin(Struct, frozen=True, gc=False):
    """Where the values of a reading come from."""

    quality: Quality
    source: str = ""
    age_seconds: float = 0.0
    window_seconds: float = 0.0


class _Measured(Struct, frozen=True, gc=False):
    """The usages of the ready replicas of a service, of those that should report; ``origin`` is that of all fresh ones."""

    service: Service
    time: float
    expected: int
    fresh: Sequence[Usage]
    stale: Sequence[Usage]
    origin: _Origin


def _measured(observation: Observation, who: Census, scaling: Scaling) -> _Measured:
    service, time, longest = observation.service, observation.time, _longest(scaling)
    expected, ready = len(who.ready) + len(who.unhealthy), who.ready_ids
    fresh = [usage for usage in observation.usages if usage.replica in ready and _fresh(usage, time, longest)]
    stale: Sequence[Usage] = ()
    if len(fresh) < len(observation.usages):
        stale = [one for one in observation.usages if one.replica in ready and not _fresh(one, time, longest)]
    return _Measured(service, time, expected, fresh, stale, _origin(fresh, time))


def _with_saturated(measured: _Measured, observation: Observation, scaling: Scaling) -> _Measured:
    """With the replicas that fail their checks for want of CPU: what is too busy answers late or never.

    One that never was ready is none of them: a broken image that spins would make the service grow.
    """
    suspects = observation.proven.intersection(observation.census.unhealthy)
    limit, longest = scaling.cpu.scale_up_ratio, _longest(scaling)
    saturated = [
        usage
        for usage in observation.usages
        if usage.replica in suspects
        and _fresh(usage, measured.time, longest)
        and (_cpu_ratio(usage, measured.service) or 0.0) > limit
    ]
    if not saturated:
        return measured
    fresh = [*measured.fresh, *saturated]
    return replace(measured, fresh=fresh, origin=_origin(fresh, measured.time))


def _longest(scaling: Scaling) -> float:
    """For how long a usage counts, and over how long a window, in seconds."""
    safety = scaling.safety
    return max(safety.stale_after_intervals * scaling.interval_seconds, safety.stale_at_least_seconds)


def _reading(resource: str, ratio_of: Callable[[Usage, Service], float | None], measured: _Measured) -> Reading:
    count, load = _summed(ratio_of, measured.service, measured.fresh)
    origin = measured.origin
    if not count and not measured.stale:  # as of a disk that nobody measures
        return Reading(resource, 0.0, 0, measured.expected, origin.quality, "", 0.0)
    if measured.stale or count < len(measured.fresh):
        return _in_part(resource, ratio_of, measured, load)
    mean = load / count
    return Reading(
        resource=resource,
        mean=mean,
        reporting=count,
        expected=measured.expected,
        quality=origin.quality,
        source=origin.source,
        age_seconds=origin.age_seconds,
        last=mean,
        window_seconds=origin.window_seconds,
    )


def _in_part(
    resource: str,
    ratio_of: Callable[[Usage, Service], float | None],
    measured: _Measured,
    load: float,
) -> Reading:
    """The reading where some usage has no ratio, or none that is fresh."""
    fresh, stale = [
        [usage for usage in usages if ratio_of(usage, measured.service) is not None]
        for usages in (measured.fresh, measured.stale)
    ]
    _, stale_load = _summed(ratio_of, measured.service, stale)
    known, origin = len(fresh) + len(stale), measured.origin
    if not known:
        origin = _Origin(_worst([*measured.fresh, *measured.stale]))
    elif len(fresh) < len(measured.fresh) or not fresh:
        origin = _origin(fresh or stale, measured.time)
    return Reading(
        resource=resource,
        mean=load / len(fresh) if fresh else 0.0,
        reporting=len(fresh),
        expected=measured.expected,
        quality=Quality.STALE if stale and not fresh else origin.quality,
        source=origin.source,
        age_seconds=origin.age_seconds,
        last=(load + stale_load) / known if known else None,
        window_seconds=origin.window_seconds,
    )


def _summed(
    ratio_of: Callable[[Usage, Service], float | None], service: Service, usages: Sequence[Usage]
) -> tuple[int, float]:
    """Of how many usages a ratio is known, and the sum of these."""
    known, load = 0, 0.0
    for usage in usages:
        ratio = ratio_of(usage, service)
        if ratio is not None:
            known += 1
            load += ratio
    return known, load


def _fresh(usage: Usage, time: float, longest: float) -> bool:
    """Whether a usage may count: a clock that jumped, a suspended host or a hung source makes it stale."""
    return (
        usage.quality is not _STALE
        and -longest <= time - usage.taken_at <= longest
        and 0 <= usage.window_seconds <= longest
    )


def _origin(usages: Sequence[Usage], time: float) -> _Origin:
    """One pass by hand: this is done for every service in every tick."""
    if not usages:
        return _Origin(Quality.PARTIAL)
    source, worst, taken_at, window = usages[0].source, 0, usages[0].taken_at, 0.0
    mixed = False
    for usage in usages:
        if usage.quality is not _OK:
            worst = max(worst, _WORST_LAST.index(usage.quality))
        if usage.taken_at < taken_at:  # noqa: PLR1730 - a call less
            taken_at = usage.taken_at
        if usage.window_seconds > window:  # noqa: PLR1730 - a call less
            window = usage.window_seconds
        mixed |= usage.source != source
    if mixed:
        source = "+".join(sorted({usage.source for usage in usages}))
    return _Origin(_WORST_LAST[worst], source, max(0.0, time - taken_at), window)


def _worst(usages: Sequence[Usage]) -> Quality:
    """The worst quality; of nothing at all it is partial."""
    if not usages:
        return Quality.PARTIAL
    return _WORST_LAST[max([_WORST_LAST.index(usage.quality) for usage in usages])]


def _cpu_ratio(usage: Usage, service: Service) -> float | None:
    """CPU against the limit, else the request; time throttled at the quota is time at full use."""
    limit = usage.cpu_limit_cores or (service.cpu_limit_millicores or service.cpu_request_millicores) / 1000
    ratio = _ratio(usage.cpu_cores, limit)
    if ratio is None or not usage.throttled_ratio:
        return ratio
    return max(ratio, min(_ratio(usage.throttled_ratio, 1.0) or 0.0, 1.0))


def _memory_ratio(usage: Usage, service: Service) -> float | None:
    """The working set less what the kernel can take back, against the limit, else the request."""
    limit = usage.memory_limit_bytes or service.memory_limit_bytes or service.memory_request_bytes
    whole = _ratio(usage.memory_bytes, limit)
    if whole is None or not usage.reclaimable_bytes:
        return whole
    return max(0.0, whole - (_ratio(usage.reclaimable_bytes, limit) or 0.0))


def _disk_ratio(usage: Usage, _service: Service) -> float | None:
    return None if usage.disk_ratio is None else _ratio(usage.disk_ratio, 1.0)


def _ratio(value: float | None, limit: float) -> float | None:
    """A value against its limit; None for what cannot be a measurement: not finite, negative, absurd."""
    if value is None or not 0 < limit < inf:
        return None
    ratio = value / limit  # of what is no number, no comparison holds
    return ratio if 0 <= ratio <= _MOST_RATIO else None
