"""The forecast of one service's load: learned step by step, with a margin that its own errors and outcomes set.

    load of a step ──un-censor──▶ series ──experts, mixed by recent error──▶ expected path
                                     └──▶ errors, histogram ──quantile, steered by outcomes──▶ margin

- A saturated service hides its demand: such a reading is taken for more, the more so the longer it lasts.
- Experts: as now; mean of a few steps; their slope; an hour, a day, a week ago, brought to the present level; and a
  regression, learned step by step, of what comes on how far now is from the step and the means before it.
  They are weighted by a power of their recent error at the end of the horizon.
- The margin is a quantile of the forecast's own errors, each in units of the volatility of its time, times the
  volatility of now. The errors are kept in a histogram of geometric bins that forgets with a half-life.
- How often a margin is exceeded is calibrated by outcomes: each step that was short moves it, each good one a little the
  other way, so that the share of short steps comes to what was intended, whatever the load is like.
- Where the load is noise such a promise costs several times what the load does. Unless it is to be kept strictly, a short
  step has a price: the margin ends where one more replica costs more than the short steps it spares.

Nothing is fitted beforehand. A step costs the same on the first day and after a year, in time and in memory.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from math import ceil, exp, inf, log, sqrt
from operator import mul

from msgspec import Struct

from cfscale.core.plan import Forecasting
from cfscale.core.units import format_duration, percent

HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
_FEW, _MANY, _LEVEL = 5, 30, 15  # steps that means, and the level that seasons are brought to, are taken over
_SATURATED = 0.995  # a kernel's accounting does not come nearer to the limit than that in every window
_BINS, _LEAST, _RATIO = 120, 0.05, 1.08  # bins of errors, from a twentieth of the volatility to five hundred times
_LOG_RATIO = log(_RATIO)
_FIRST_VOLATILITY = 0.1  # of a replica, until there are errors to take it from
_FIRST_QUANTILE = 4.0  # in units of volatility, until there are errors to take it from
_TRUSTED_ERRORS = 60  # fewer do not make a quantile
_MOST_CALIBRATION = 50.0
_UNKNOWN, _MOST_UNKNOWN = 100.0, 10_000.0  # variance of a weight before the first case, and where it must not grow
_OUTLIER = 6.0  # in units of volatility: a jump is no rule
_TINY = 1e-9

Terms = tuple[float, float, float]


class Outlook(Struct, frozen=True):
    """What is to be expected until replicas that are ordered now can help, in units of one replica.

    ``needed`` is the most of the path with its margin; ``margin`` the one at its end. ``short_ratio`` is the share of
    steps that is left short with it, ``shown_ratio`` the share that was until now; ``error_ratio`` is the recent error in
    that of expecting what is now. ``doubt`` says why the forecast should not decide; empty where it may. ``told`` is all of
    it in words; what is for display is rounded here, once, since ticks come oftener than outlooks.
    """

    expected: float
    margin: float
    needed: float
    horizon_seconds: float
    short_ratio: float
    shown_ratio: float
    error_ratio: float
    doubt: str = ""
    told: str = ""

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
        place = 0 if error <= _LEAST else min(_BINS, 1 + int(log(error / _LEAST) / _LOG_RATIO))
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

    def exceeded(self, error: float) -> float:
        """The share of all errors that exceeds this one."""
        place = 0 if error <= _LEAST else 1 + int(log(error / _LEAST) / _LOG_RATIO)
        if place >= _BINS:
            return 0.0
        low, high = self._edges[place - 1] if place else 0.0, self._edges[place]
        part = min(1.0, max(0.0, (high - error) / (high - low)))
        return (sum(self.bins[place + 1 :]) + part * self.bins[place]) / self.total


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


class Regression:
    """Recursive least squares that forgets: what is to come, as a weighted sum of three terms, learned case by case."""

    __slots__ = ("_fade", "_inverse", "_kept", "weights")

    def __init__(self, half_life_steps: float) -> None:
        self._kept = 0.5 ** (1 / half_life_steps)
        self._fade = 1 / sqrt(self._kept)
        self.weights: Terms = (0.0, 0.0, 0.0)
        # the rows of a symmetric matrix from their diagonals on; written out, for it is done for every service
        self._inverse = (_UNKNOWN, 0.0, 0.0, _UNKNOWN, 0.0, _UNKNOWN)

    def expect(self, terms: Terms) -> float:
        """What is to come, given these terms; nothing before the first case."""
        first, second, third = self.weights
        return first * terms[0] + second * terms[1] + third * terms[2]

    def learn(self, terms: Terms, outcome: float) -> None:
        """Take in one more case; one whose terms are all zero says nothing, and one that begins with a jump is left out."""
        a, b, c = terms
        if max(a, b, c) > _OUTLIER or min(a, b, c) < -_OUTLIER:
            return
        outcome = min(_OUTLIER, max(-_OUTLIER, outcome))
        aa, ab, ac, bb, bc, cc = self._inverse
        u, v, w = aa * a + ab * b + ac * c, ab * a + bb * b + bc * c, ac * a + bc * b + cc * c
        gain = 1 / (self._kept + a * u + b * v + c * w)
        step = gain * (outcome - self.expect(terms))
        first, second, third = self.weights
        self.weights = (first + u * step, second + v * step, third + w * step)
        # of a term that does not vary nothing is learned: what is known of it must not fade without end
        fade = self._fade
        i, j, k = [fade if known < _MOST_UNKNOWN else 1.0 for known in (aa, bb, cc)]
        self._inverse = (
            (aa - gain * u * u) * i * i,
            (ab - gain * u * v) * i * j,
            (ac - gain * u * w) * i * k,
            (bb - gain * v * v) * j * j,
            (bc - gain * v * w) * j * k,
            (cc - gain * w * w) * k * k,
        )


class _Awaited(Struct, frozen=True, gc=False):
    """What was expected of a step: by each expert, by all of them together, as of now, and on which terms."""

    step: int
    experts: list[float | None]
    expected: float
    naive: float
    terms: Terms


class Forecast:
    """The forecast of one load; ``ahead`` is the horizon in steps, ``goal`` the share of steps that may be short.

    ``strict`` keeps that promise whatever it costs; otherwise it is weighed against what it costs.
    """

    __slots__ = (
        "_calibration",
        "_daily",
        "_errors",
        "_expert_errors",
        "_goal",
        "_intended",
        "_late",
        "_level",
        "_naive_error",
        "_outlook",
        "_own_error",
        "_path",
        "_periods",
        "_price",
        "_recent",
        "_regression",
        "_roots",
        "_saturated",
        "_series",
        "_short",
        "_step",
        "_strict",
        "_terms",
        "_tuning",
        "_volatility",
        "_waiting",
        "_within",
        "ahead",
    )

    def __init__(
        self, tuning: Forecasting, step_seconds: float, ahead: int, goal: float, *, strict: bool = False
    ) -> None:
        self._tuning, self._step, self._goal, self.ahead = tuning, step_seconds, goal, ahead
        self._strict = strict
        # a season shorter than the horizon has not been seen whole
        self._periods = tuple(
            steps for period in (HOUR, DAY, WEEK) if (steps := round(period / step_seconds)) > ahead + _LEVEL
        )
        self._series = Series(max((*self._periods, ahead)) + 2 * _LEVEL + 10)
        self._recent = 1 - 0.5 ** (step_seconds / tuning.recent_seconds)
        self._late = 1 - 0.5 ** (step_seconds / tuning.volatility_seconds)
        self._errors = Errors(tuning.memory_seconds / step_seconds)
        self._expert_errors: list[float | None] = [None] * (5 + len(self._periods))
        self._regression = Regression(tuning.memory_seconds / step_seconds)
        self._terms: Terms = (0.0, 0.0, 0.0)
        self._waiting: deque[_Awaited] = deque()
        self._volatility: float | None = None
        self._own_error = self._naive_error = 0.0
        self._calibration, self._intended = 1.0, goal
        self._level = 0.0
        self._saturated = self._short = 0
        self._path: list[float] = []
        self._outlook: Outlook | None = None
        # a shortage lasts until replicas come: what it is worth to avoid grows with their start-up, as errors do
        longer = max(1.0, (ahead - 1) * step_seconds / tuning.startup_seconds)
        self._price = tuning.worth_ratio / goal * sqrt(longer)
        self._within = format_duration(ahead * step_seconds)
        # errors grow with the square root of the distance, as those of a random walk do
        self._roots = [sqrt((number + 1) / ahead) for number in range(ahead)]
        self._daily = 1 / max(1.0, DAY / step_seconds)

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
        if self._waiting and self._waiting[0].step == len(self._series) - 1:
            self._judge(demand, short=short)
        self._level = demand if len(self._series) == 1 else self._level + self._daily * (max(1.0, demand) - self._level)
        self._expect()
        self._outlook = self._look()

    def skip(self) -> None:
        """One step of which nothing is known: time goes on, nothing is learned."""
        if not len(self._series):
            return
        self._series.append(self._series.values(len(self._series) - 1, 1)[0])
        if self._waiting and self._waiting[0].step == len(self._series) - 1:
            self._waiting.popleft()
        self._saturated = 0

    def _hidden(self) -> float:
        """How much more than it shows a saturated service is taken to want."""
        return min(self._tuning.hidden_ratio * self._saturated, self._tuning.hidden_most_ratio)

    def _judge(self, demand: float, *, short: bool) -> None:
        """Compare what was expected of this step with what it was."""
        awaited = self._waiting.popleft()
        expected, naive = awaited.expected, awaited.naive
        unit = self._scale(naive)
        first, second, third = awaited.terms
        self._regression.learn((first / unit, second / unit, third / unit), (demand - naive) / unit)
        for place, value in enumerate(awaited.experts):
            if value is not None:
                self._expert_errors[place] = _faded(self._expert_errors[place], abs(value - demand), self._recent)
        error = demand - expected
        self._errors.add(error / max(self._scale(expected, abs(error)), _TINY))
        self._volatility = _faded(self._volatility, abs(error) + _TINY, self._late)
        # whether to forecast at all is asked of a day: of minutes, chance would answer
        self._own_error += self._daily * (abs(error) - self._own_error)
        self._naive_error += self._daily * (abs(naive - demand) - self._naive_error)
        steered = self._calibration * exp(self._tuning.steering * (self._intended - short))
        self._calibration = min(_MOST_CALIBRATION, max(1 / _MOST_CALIBRATION, steered))

    def _scale(self, expected: float, otherwise: float = _FIRST_VOLATILITY) -> float:
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
        self._waiting.append(_Awaited(len(self._series) - 1 + self.ahead, ends, mixed[-1], naive, self._terms))

    def _experts(self) -> Iterator[list[float] | None]:
        """The path that each expert expects; None from one that has not seen enough yet."""
        series, now, ahead = self._series, len(self._series), self.ahead
        yield series.values(now - 1, 1) * ahead
        few, many = series.mean(max(0, now - _FEW), now), series.mean(max(0, now - _MANY), now)
        yield [few] * ahead
        yield [many] * ahead
        yield self._slope(now) if now > _FEW else None
        yield self._regressed(now, few, many)
        for period in self._periods:
            yield self._season(now, period) if now >= period + 2 * _LEVEL else None

    def _slope(self, now: int) -> list[float]:
        """The straight line through the means of the last three steps and of the three before."""
        late, early = self._series.mean(now - 3, now), self._series.mean(now - 6, now - 3)
        return [max(0.0, late + (late - early) / 3 * (number + 2)) for number in range(self.ahead)]

    def _regressed(self, now: int, few: float, many: float) -> list[float] | None:
        """The line to where the regression expects the end, from how far now is from the means and the step before it."""
        latest = self._series.values(max(0, now - 2), 2)
        last = latest[-1]
        self._terms = (last - latest[0], last - few, last - many)
        if now < _TRUSTED_ERRORS:
            return None
        most = _OUTLIER * self._scale(last)  # more was never learned
        pace = min(most, max(-most, self._regression.expect(self._terms))) / self.ahead
        return [max(0.0, last + pace * (number + 1)) for number in range(self.ahead)]

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
        power, weights = -self._tuning.weight_power, []
        heard: list[list[float]] = []
        for path, error in zip(paths, self._expert_errors, strict=True):
            if path is not None and (error is not None or not heard):
                weights.append(((error or 0.0) + 1e-3) ** power)
                heard.append(path)
        whole = sum(weights)
        return [sum(map(mul, weights, values)) / whole for values in zip(*heard, strict=True)]

    def outlook(self) -> Outlook | None:
        """What the steps learned so far let expect; None before the first."""
        return self._outlook

    def _look(self) -> Outlook:
        """Set the margin, and with it the count, for the path that is expected."""
        expected = max(self._path)
        scale = self._scale(self._path[-1])
        if self._errors.count < _TRUSTED_ERRORS:
            margin, short = min(scale * _FIRST_QUANTILE, self._most(expected)), self._goal
        elif self._strict:
            margin, short = scale * self._errors.quantile(self._goal * self._calibration), self._goal
        else:
            margin, short = self._worthwhile(expected, scale)
        self._intended = short
        return Outlook(
            expected=round(expected, 3),
            margin=round(margin, 3),
            needed=max([value + margin * root for value, root in zip(self._path, self._roots, strict=True)]),
            horizon_seconds=self.ahead * self._step,
            short_ratio=round(short, 5),
            shown_ratio=self._short / len(self._series),
            error_ratio=round(self._error_ratio(), 3),
            doubt=self._doubt(),
            told=f"{expected:.1f} replicas' load expected within {self._within}, "
            f"{margin:.1f} margin to be short {percent(short)} of the time",
        )

    def _most(self, expected: float) -> float:
        """The largest margin, past which a promise is given up; without end where it must be kept."""
        return inf if self._strict else self._tuning.cap_ratio * expected + 1

    def _worthwhile(self, expected: float, scale: float) -> tuple[float, float]:
        """The margin at which one more replica costs more than the short steps it spares, and the share left short.

        A short step is worth ``worth / goal`` steps of the whole fleet, and more where replicas take longer to start than
        is assumed at first; the share stays between two multiples of the goal.
        """
        tuning, goal = self._tuning, self._goal
        most = self._most(expected)
        price, least, worst = self._price, tuning.least_factor * goal, tuning.most_factor * goal
        level = max(1.0, self._level)
        count = first = max(1, ceil(expected - _TINY))
        last, path = ceil(expected + most - _TINY), list(zip(self._path, self._roots, strict=True))
        best = (inf, 0.0, worst)
        while True:
            margin = min([(count - value) / root for value, root in path])
            short = min(1.0, self._errors.exceeded(margin / scale) / self._calibration)
            beyond = count >= last
            if short <= worst or beyond:
                cost = count / level + price * short
                best = min(best, (cost, margin, min(short, worst)))
            if short <= least or beyond or count / level > best[0]:
                return best[1], best[2]
            count += max(1, (count - first) // 8)  # of a large fleet not every count is tried

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


def _faded(before: float | None, now: float, weight: float) -> float:
    """The mean of what was before, which fades, and what is now."""
    return now if before is None else before + weight * (now - before)
