"""A recorded load, from the text of a file to a series, and from a series to demand in replicas.

    CSV | Prometheus range JSON | journal ──▶ Trace (seconds, values) ──resample, scale──▶ demand per step

Whatever was recorded, the replay needs its shape alone: demand is scaled so that its 99.9th percentile is a given number
of replicas. Between two samples it is interpolated in a straight line; below zero it is zero.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite

import msgspec
from msgspec import Struct

from cfscale.core.decision import Decision
from cfscale.errors import InputError

MAX_STEPS = 2_000_000
_PEAK = 0.999
_TIME_NAMES = ("timestamp", "time", "datetime", "date", "ts")
_LOAD_NAMES = ("value", "load", "demand", "cpu", "requests", "rps", "qps")


class Trace(Struct, frozen=True):
    """Values at growing times in seconds; ``times`` is empty where the file names none: one value a step."""

    name: str
    times: tuple[float, ...]
    values: tuple[float, ...]


class _Series(msgspec.Struct):
    values: list[tuple[float, str]] = []


class _Matrix(msgspec.Struct):
    result: list[_Series]
    type: str = msgspec.field(name="resultType", default="matrix")


class _Answer(msgspec.Struct):
    data: _Matrix


def parse_trace(text: str, name: str, where: str) -> Trace:
    """The trace in the text of a file, whatever of the known formats it has; raises InputError naming ``where``."""
    head = text.lstrip()[:1]
    if not head:
        raise InputError(f"{where}: the file is empty: give one value a line, or timestamp,value")
    if head == "{":
        first = text.lstrip().partition("\n")[0]
        pairs = _of_journal(text, where) if '"cfscale/decision/' in first else _of_prometheus(text, where)
        return _ordered(pairs, name, where)
    return _of_csv(text, name, where)


def _of_csv(text: str, name: str, where: str) -> Trace:
    """Columns by the names in the heading; without a heading ``value`` or ``timestamp,value``."""
    rows = [(line, row) for line, row in enumerate(csv.reader(io.StringIO(text)), 1) if any(map(str.strip, row))]
    heading = [cell.strip().lower() for cell in rows[0][1]]
    if any(_number(cell) is not None for cell in heading):
        time_at, load_at = (None, 0) if len(heading) == 1 else (0, 1)
    else:
        time_at, load_at = _columns(heading, where)
        rows = rows[1:]
    values = [_value(row, load_at, f"{where}:{line}") for line, row in rows]
    if not values:
        raise InputError(f"{where}: there is no value below the heading")
    if time_at is None:
        return Trace(name, (), tuple(values))
    times = [_time(row, time_at, f"{where}:{line}") for line, row in rows]
    return _ordered(list(zip(times, values, strict=True)), name, where)


def _columns(heading: Sequence[str], where: str) -> tuple[int | None, int]:
    """Where the times and the values stand."""
    time_at = next((heading.index(name) for name in _TIME_NAMES if name in heading), None)
    load_at = next((heading.index(name) for name in _LOAD_NAMES if name in heading), None)
    if load_at is None:
        rest = [index for index in range(len(heading)) if index != time_at]
        if len(rest) != 1 or (time_at is None and len(heading) > 1):
            raise InputError(
                f"{where}:1: no column 'value' among {', '.join(heading)}: name the columns timestamp,value"
            )
        load_at = rest[0]
    return time_at, load_at


def _value(row: Sequence[str], at: int, where: str) -> float:
    text = row[at].strip() if at < len(row) else ""
    number = _number(text)
    if number is None or not isfinite(number):
        raise InputError(f"{where}: '{text[:40]}' is not a finite number: correct the line or leave it out")
    return number


def _time(row: Sequence[str], at: int, where: str) -> float:
    text = row[at].strip() if at < len(row) else ""
    number = _number(text)
    if number is not None and isfinite(number):
        return number
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{where}: '{text[:40]}' is not a time: write 2026-01-31 12:00:00 or seconds") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _of_prometheus(text: str, where: str) -> list[tuple[float, float]]:
    """The sum of all series of a range query's answer, over the times at which every one of them has a value."""
    try:
        answer = msgspec.json.decode(text, type=_Answer)
    except msgspec.DecodeError as error:
        raise InputError(f"{where}: neither a Prometheus range answer nor a journal: {error}") from error
    if answer.data.type != "matrix" or not any(series.values for series in answer.data.result):
        raise InputError(f"{where}: the answer holds no series: ask /api/v1/query_range with start, end and step")
    sums: dict[float, list[float]] = {}
    for series in answer.data.result:
        for time, value in series.values:
            sums.setdefault(time, []).append(_value([value], 0, f"{where}: at {time:g}"))
    return [(time, sum(values)) for time, values in sums.items() if len(values) == len(answer.data.result)]


def _of_journal(text: str, where: str) -> list[tuple[float, float]]:
    """The load that decisions saw: CPU of a replica times how many there were."""
    loads: dict[float, float] = {}
    services = set()
    for line in text.splitlines():
        try:
            decision = msgspec.json.decode(line, type=Decision)
        except msgspec.DecodeError:
            continue  # a line cut short by a crash
        for sample in decision.samples:
            if sample.resource == "cpu" and sample.quality in ("ok", "approx"):
                services.add(decision.service)
                loads[datetime.fromisoformat(decision.time).timestamp()] = sample.value_ratio * decision.current
    if len(services) > 1:
        raise InputError(f"{where}: holds {', '.join(sorted(services))}: keep the lines of one service")
    return list(loads.items())


def _ordered(pairs: Iterable[tuple[float, float]], name: str, where: str) -> Trace:
    ordered = sorted(pairs)
    if len(ordered) < 2:  # noqa: PLR2004 - an interval has two ends
        raise InputError(f"{where}: {len(ordered)} samples with a time are no trace: give at least 2")
    for (before, _), (after, _) in pairwise(ordered):
        if before == after:
            raise InputError(
                f"{where}: two values at {datetime.fromtimestamp(after, UTC).isoformat()}: keep one of them"
            )
    return Trace(name, tuple(time for time, _ in ordered), tuple(value for _, value in ordered))


def resampled(trace: Trace, step_seconds: float) -> list[float]:
    """The values on a grid of steps from the first sample on, interpolated; raises InputError for an absurd grid."""
    if not trace.times:
        return [max(0.0, value) for value in trace.values]
    first, last = trace.times[0], trace.times[-1]
    if (last - first) / step_seconds > MAX_STEPS:
        raise InputError(f"{trace.name}: more than {MAX_STEPS} steps of {step_seconds:g}s: give a longer --step")
    out, at = [], 0
    for number in range(int((last - first) / step_seconds) + 1):
        time = first + number * step_seconds
        while at + 2 < len(trace.times) and trace.times[at + 1] <= time:
            at += 1
        share = (time - trace.times[at]) / (trace.times[at + 1] - trace.times[at])
        value = trace.values[at] + share * (trace.values[at + 1] - trace.values[at])
        out.append(max(0.0, value))
    return out


def quantile(values: Iterable[float], share: float) -> float:
    """The quantile of the values, interpolated between two neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def demand_of(trace: Trace, step_seconds: float, peak_replicas: float) -> list[float]:
    """Demand a step in units of one replica; raises InputError for a trace without any load."""
    values = resampled(trace, step_seconds)
    top = quantile(values, _PEAK)
    if top <= 0:
        raise InputError(f"{trace.name}: there is no load in it: nothing to scale")
    factor = peak_replicas / top
    if not isfinite(factor) or not isfinite(max(values) * factor):
        raise InputError(f"{trace.name}: its values are too far apart to be scaled: {top:g} is its 99.9th percentile")
    return [value * factor for value in values]
