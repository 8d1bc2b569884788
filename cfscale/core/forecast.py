"""The forecast of one service's load: learned step by step, with a margin that its own errors and outcomes set.

    load of a step ──un-censor──▶ series ──experts, mixed by recent error──▶ expected path
                                     └──▶ errors, histogram ──quantile, steered by outcomes──▶ margin

- A saturated service hides its demand: such a reading is taken for more, the more so the longer it lasts.
- Experts: as now; mean of a few steps; their slope; an hour, a day, a week ago, brought to the present level.
  They are weighted by a power of their recent error at the end of the horizon.
- The margin is a quantile of the forecast's own errors, each in units of the volatility of its time, times the
  volatility of now. The errors are kept in a histogram of geometric bins that forgets with a half-life.
- The quantile is steered: each step that was short moves it up, each good one down a little, so that the share of short
  steps comes to what was asked for, whatever the load is like. Where the load is noise such a promise costs several times
  what the load does: ``cap_ratio`` bounds the margin to that share of the forecast and gives the promise up.

Nothing is fitted beforehand. A step costs the same on the first day and after a year, in time and in memory.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, exp, log, sqrt

from cfscale.core.plan import Forecasting
from cfscale.core.units import format_duration

HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
_FEW, _LEVEL = 5, 15  # steps that a mean, and a level that seasons are brought to, are taken over
_SATURATED = 0.995  # a kernel's accounting does not come nearer to the limit than that in every window
_BINS, _LEAST, _RATIO = 120, 0.05, 1.08  # bins of errors, from a twentieth of the volatility to five hundred times
_FIRST_QUANTILE = 4.0  # in units of volatility, until there are errors to take it from
_TRUSTED_ERRORS = 60  # fewer do not make a quantile
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be expected until replicas that are ordered now can help, in units of one replica.

    ``needed`` is the most of the path with its margin; ``margin`` the one at its end. ``short_ratio`` is the share of
    recorded steps that were short. ``doubt`` says why the forecast should not decide; empty where it may.
    """

    expected: float
    margin: float
    needed: float
    horizon_seconds: float
    goal_ratio: float
    short_ratio: float
    error_ratio: float
    doubt: str = ""

    @property
    def replicas(self) -> int:
        """The count that the outlook asks for."""
        return max(1, ceil(self.needed - _TINY))


class Errors:
    """A histogram of errors in units of volatility that forgets: bin 0 holds whatever asks for no margin."""

    __slots__ = ("_edges", "_growth", "_weight", "bins", "count", "total")

    def __init__(self, half_life_steps: float) -> None:
        self.bins = [0.0] * (_BINS + 1)
        self.count, self.total = 0, 0.0
        self._weight, self._growth = 1.0, 2 ** (1 / half_life_steps)
        self._edges = [_LEAST * _RATIO**number for number in range(_BINS + 1)]

    def add(self, error: float) -> None:
        """Record one error; a later one weighs more, which is how earlier ones fade."""
        place = 0 if error <= _LEAST else min(_BINS, 1 + int(log(error / _LEAST) / log(_RATIO)))
        self.bins[place] += self._weight
        self.total += self._weight
        self.count += 1
        self._weight *= self._growth
        if self._weight > 1e12:  # noqa: PLR2004 - long before a float overflows
            self.bins = [value / self._weight for value in self.bins]
            self.total, self._weight = self.total / self._weight, 1.0

    def quantile(self, exceeded: float) -> float:
        """The error that this share of all errors exceeds."""
        wanted, above = exceeded * self.total, 0.0
        for place in range(_BINS, -1, -1):
            if above + self.bins[place] > wanted:
                low = self._edges[place - 1] if place else 0.0
                return self._edges[place] - (self._edges[place] - low) * (wanted - above) / self.bins[place]
            above += self.bins[place]
        return 0.0


class Series:
    """The latest loads, as long as a season can look back, with running sums for the mean of any part."""

    __slots__ = ("_kept", "_sums", "_values", "start")

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._values: list[float] = []
        self._sums = [0.0]
        self.start = 0

    def __len__(self) -> int:
        return self.start + len(self._values)

    def append(self, value: float) -> None:
        """Add the load of a step; what no season needs any more goes, a tenth of it at a time."""
        self._values.append(value)
        self._sums.append(self._sums[-1] + value)
        surplus = len(self._values) - self._kept
        if surplus > self._kept // 10:
            del self._values[:surplus]
            base = self._sums[surplus]
            self._sums = [total - base for total in self._sums[surplus:]]
            self.start += surplus

    def mean(self, first: int, end: int) -> float:
        """The mean of the steps from ``first`` to before ``end``."""
        return (self._sums[end - self.start] - self._sums[first - self.start]) / (end - first)

    def values(self, first: int, count: int) -> list[float]:
        """So many loads from a step on."""
        return self._values[first - self.start : first - self.start + count]

    def has(self, first: int) -> bool:
        """Whether a step is still known."""
        return first >= self.start


class Forecast:
    """The forecast of one load; ``ahead`` is the horizon in steps, ``goal`` the share of steps that may be short."""

    __slots__ = (
        "_alpha",
        "_errors",
        "_expert_errors",
        "_goal",
        "_naive_error",
        "_own_error",
        "_path",
        "_periods",
        "_recent",
        "_saturated",
        "_series",
        "_short",
        "_step",
        "_tuning",
        "_volatility",
        "_waiting",
        "ahead",
    )

    def __init__(self, tuning: Forecasting, step_seconds: float, ahead: int, goal: float) -> None:
        self._tuning, self._step, self._goal, self.ahead = tuning, step_seconds, goal, ahead
        # a season shorter than the horizon has not been seen whole
        self._periods = tuple(
            steps for period in (HOUR, DAY, WEEK) if (steps := round(period / step_seconds)) > ahead + _LEVEL
        )
        self._series = Series(max((*self._periods, ahead)) + 2 * _LEVEL + 10)
        self._recent = 1 - 0.5 ** (step_seconds / tuning.recent_seconds)
        self._errors = Errors(tuning.memory_seconds / step_seconds)
        self._expert_errors: list[float | None] = [None] * (3 + len(self._periods))
        self._waiting: deque[tuple[int, list[float | None], float, float]] = deque()
        self._volatility: float | None = None
        self._own_error = self._naive_error = 0.0
        self._alpha = goal
        self._saturated = self._short = 0
        self._path: list[float] = []

    @property
    def steps(self) -> int:
        """How many steps were learned."""
        return len(self._series)

    def learn(self, load: float, utilisation: float) -> None:
        """Take in the load of one more step, in replicas, and how far it filled those that were ready."""
        short = utilisation >= _SATURATED
        self._short += short
        self._saturated = self._saturated + 1 if short else 0
        demand = load * (1 + self._hidden())
        self._series.append(demand)
        if self._waiting and self._waiting[0][0] == len(self._series) - 1:
            self._judge(demand, short=short)
        self._expect()

    def _hidden(self) -> float:
        """How much more than it shows a saturated service is taken to want."""
        return min(self._tuning.hidden_ratio * self._saturated, self._tuning.hidden_most_ratio)

    def _judge(self, demand: float, *, short: bool) -> None:
        """Compare what was expected of this step with what it was."""
        _, experts, expected, naive = self._waiting.popleft()
        for place, value in enumerate(experts):
            if value is not None:
                self._expert_errors[place] = self._faded(self._expert_errors[place], abs(value - demand))
        error = demand - expected
        self._errors.add(error / max(self._scale(expected, abs(error)), _TINY))
        self._volatility = self._faded(self._volatility, abs(error) + _TINY)
        self._own_error = self._faded(self._own_error, abs(error))
        self._naive_error = self._faded(self._naive_error, abs(naive - demand))
        self._alpha = min(0.3, max(1e-5, self._alpha * exp(self._tuning.steering * (self._goal - short))))

    def _faded(self, before: float | None, now: float) -> float:
        return now if before is None else before + self._recent * (now - before)

    def _scale(self, expected: float, otherwise: float) -> float:
        """What an error is measured in: the volatility of now, and no less than a share of the load."""
        volatility = otherwise if self._volatility is None else self._volatility
        return max(volatility, self._tuning.floor_ratio * max(expected, 0.2))

    def _expect(self) -> None:
        """Note what is expected at the end of the horizon, to be compared with what comes."""
        paths = list(self._experts())
        ends = [path[-1] if path else None for path in paths]
        mixed = self._mixed(paths)
        self._path = mixed
        naive = self._series.values(len(self._series) - 1, 1)[0]
        self._waiting.append((len(self._series) - 1 + self.ahead, ends, mixed[-1], naive))

    def _experts(self) -> Iterator[list[float] | None]:
        """The path that each expert expects; None from one that has not seen enough yet."""
        series, now, ahead = self._series, len(self._series), self.ahead
        yield series.values(now - 1, 1) * ahead
        yield [series.mean(max(0, now - _FEW), now)] * ahead
        yield self._slope(now) if now > _FEW else None
        for period in self._periods:
            yield self._season(now, period) if now >= period + 2 * _LEVEL else None

    def _slope(self, now: int) -> list[float]:
        """The straight line through the means of the last three steps and of the three before."""
        late, early = self._series.mean(now - 3, now), self._series.mean(now - 6, now - 3)
        return [max(0.0, late + (late - early) / 3 * (number + 2)) for number in range(self.ahead)]

    def _season(self, now: int, period: int) -> list[float]:
        """What came one period ago, brought to the present level: by a factor, or by a sum where it is far off."""
        then = self._series.values(now - period, self.ahead)
        level = self._series.mean(now - _LEVEL, now)
        level_then = self._series.mean(now - period - _LEVEL, now - period)
        if level_then > _TINY and 0.5 < (factor := level / level_then) < 2:  # noqa: PLR2004 - of the same order
            return [value * factor for value in then]
        return [max(0.0, value + level - level_then) for value in then]

    def _mixed(self, paths: Sequence[list[float] | None]) -> list[float]:
        """The experts' paths, weighted by how little they erred of late; the first one always has a say."""
        mixed, whole = [0.0] * self.ahead, 0.0
        for place, path in enumerate(paths):
            error = self._expert_errors[place]
            if path is None or (error is None and place):
                continue
            weight = ((error or 0.0) + 1e-3) ** -self._tuning.weight_power
            whole += weight
            mixed = [total + weight * value for total, value in zip(mixed, path, strict=True)]
        return [total / whole for total in mixed]

    def outlook(self, cap_ratio: float | None = None) -> Outlook | None:
        """What the steps learned so far let expect; None before the first. ``cap_ratio`` bounds the margin."""
        if not self._path:
            return None
        expected, end = max(self._path), self._path[-1]
        known = self._errors.count >= _TRUSTED_ERRORS
        margin = self._scale(end, 0.1) * (self._errors.quantile(self._alpha) if known else _FIRST_QUANTILE)
        if cap_ratio is not None:
            margin = min(margin, cap_ratio * expected + 1)
        # errors grow with the square root of the distance, as those of a random walk do
        roots = (sqrt((number + 1) / self.ahead) for number in range(self.ahead))
        needed = max(value + margin * root for value, root in zip(self._path, roots, strict=True))
        return Outlook(
            expected=expected,
            margin=margin,
            needed=needed,
            horizon_seconds=self.ahead * self._step,
            goal_ratio=self._goal,
            short_ratio=self._short / len(self._series),
            error_ratio=self._error_ratio(),
            doubt=self._doubt(),
        )

    def _error_ratio(self) -> float:
        """Its recent error in that of expecting what is now."""
        return self._own_error / self._naive_error if self._naive_error > _TINY else 1.0

    def _doubt(self) -> str:
        seen, least = len(self._series) * self._step, self._tuning.least_history_seconds
        if seen < least:
            return f"the forecast has seen {format_duration(seen)} of the {format_duration(least)} it needs"
        ratio = self._error_ratio()
        if ratio > self._tuning.worse_ratio:
            return f"the forecast was {ratio:.1f} times as far off as no forecast would have been"
        return ""
