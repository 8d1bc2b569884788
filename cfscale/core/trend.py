"""What is on its way to a limit: a trend in latencies, and what runs out at a known rate.

    latencies ─▶ minute medians ─▶ log ─▶ daily cycle out ─▶ Mann-Kendall ─▶ Theil-Sen ─▶ crossing, with its interval

A trend is only ever a reason to look (DEGRADED), never a verdict. It is not read at all where the usual latency is so
near the limit that ordinary noise crosses it: then the answer says so. The figures are those of the simulation in
``bench/trend.py``, which judges every change here.
"""

from collections.abc import Sequence
from math import exp, inf, log, sqrt
from statistics import median

from msgspec import Struct

from cfscale.core.tier import Rules

MINUTE_SECONDS = 60.0
DAY_MINUTES = 1440


class Tuning(Struct, frozen=True):
    """How a trend is read; amounts are in minutes unless said otherwise.

    ``z`` is how sure the trend must be (standard deviations of Mann-Kendall's statistic), ``horizon`` how soon the limit
    must be crossed, ``in_a_row`` for how many minutes all of it must hold. ``headroom``: limit over usual latency.
    ``restarts`` within ``restart_seconds`` are borne; ``exhaustion_seconds`` is how far memory and disks are foreseen.
    """

    window: int
    z: float
    horizon: int
    in_a_row: int
    headroom: float
    grown_ratio: float
    restarts: int
    restart_seconds: int
    exhaustion_seconds: int

    @classmethod
    def of(cls, rules: Rules) -> "Tuning":
        """What the catalogue says."""
        trend = "probing.trend"
        return cls(
            window=rules.leaf(f"{trend}.window").seconds // 60,
            z=float(rules.leaf(f"{trend}.z").exact),
            horizon=rules.leaf(f"{trend}.horizon").seconds // 60,
            in_a_row=rules.leaf(f"{trend}.in_a_row").seconds // 60,
            headroom=rules.leaf(f"{trend}.headroom").ratio,
            grown_ratio=rules.leaf(f"{trend}.grown").ratio,
            restarts=int(rules.leaf("probing.restarts.most").exact),
            restart_seconds=rules.leaf("probing.restarts.window").seconds,
            exhaustion_seconds=rules.leaf("probing.exhaustion").seconds,
        )


class Prediction(Struct, frozen=True):
    """When a limit is crossed if things go on as they do: the estimate and the interval around it, in seconds."""

    what: str
    eta_seconds: float
    earliest_seconds: float
    latest_seconds: float

    @property
    def text(self) -> str:
        """In words."""
        latest = "open" if self.latest_seconds == inf else _span(self.latest_seconds)
        return f"{self.what} in {_span(self.eta_seconds)} ({_span(self.earliest_seconds)} to {latest})"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


class Slope(Struct, frozen=True):
    """A robust slope per minute with its 95 % interval, its level at the end, and how sure the trend is (``z``)."""

    z: float
    rate: float
    low: float
    high: float
    level: float


def slope(values: Sequence[float]) -> Slope:
    """Mann-Kendall and Theil-Sen over equidistant values, at least three of them."""
    count = len(values)
    rates = sorted((values[j] - values[i]) / (j - i) for i in range(count - 1) for j in range(i + 1, count))
    score = sum((rate > 0) - (rate < 0) for rate in rates)
    spread = sqrt(count * (count - 1) * (2 * count + 5) / 18)
    z = 0.0 if score == 0 else (score - (1 if score > 0 else -1)) / spread
    rate = median(rates)
    margin = 1.96 * spread
    low = rates[max(0, int((len(rates) - margin) / 2))]
    high = rates[min(len(rates) - 1, int((len(rates) + margin) / 2))]
    middle = (count - 1) / 2
    level = median(value - rate * (index - middle) for index, value in enumerate(values)) + rate * middle
    return Slope(z, rate, low, high, level)


class Outlook:
    """The latencies of one target by the minute, and what they lead to. Values go in, nothing else changes it."""

    __slots__ = ("_cycle", "_limit", "_medians", "_minute", "_now", "_streak", "_tuning")

    def __init__(self, limit_seconds: float, tuning: Tuning) -> None:
        self._limit, self._tuning = log(limit_seconds), tuning
        self._medians: list[tuple[int, float]] = []
        self._cycle: dict[int, float] = {}
        self._now: list[float] = []
        self._minute: int | None = None
        self._streak = 0

    def add(self, at_seconds: float, latency_seconds: float) -> bool:
        """One latency; true where it has ended a minute, so that there is something new to ask."""
        minute = int(at_seconds // MINUTE_SECONDS)
        ended = self._minute is not None and minute != self._minute and bool(self._now)
        if ended and self._minute is not None:
            self._close(self._minute)
        self._minute = minute
        self._now.append(log(max(latency_seconds, 1e-6)))
        return ended

    def _close(self, minute: int) -> None:
        value = median(self._now)
        self._now = []
        flat = value - self._usual_at(minute)
        self._medians.append((minute, flat))
        del self._medians[: -self._tuning.window]
        self._learn(minute, value)

    def _usual_at(self, minute: int) -> float:
        """What this time of day adds to the day's mean level; 0 until a day has been seen."""
        if len(self._cycle) < DAY_MINUTES // _BIN_MINUTES:
            return 0.0
        place = (minute % DAY_MINUTES) / _BIN_MINUTES - 0.5
        first = int(place // 1)
        share = place - first
        bins = DAY_MINUTES // _BIN_MINUTES
        level = sum(self._cycle.values()) / bins
        return (1 - share) * self._cycle[first % bins] + share * self._cycle[(first + 1) % bins] - level

    def _learn(self, minute: int, value: float) -> None:
        """Follow the daily cycle slowly; what is far off it is a fault rather than a habit, and moves it little."""
        place = (minute % DAY_MINUTES) // _BIN_MINUTES
        known = self._cycle.get(place)
        if known is None:
            self._cycle[place] = value
            return
        step = max(-_MOST_STEP, min(_MOST_STEP, value - known))
        self._cycle[place] = known + step * _LEARNING

    @property
    def refusal(self) -> str:
        """Why nothing is predicted, empty where something is."""
        if len(self._medians) < self._tuning.window:
            return f"{len(self._medians)} of {self._tuning.window} minutes seen"
        usual = self._usual
        if self._limit - usual < log(self._tuning.headroom):
            return f"the usual latency of {exp(usual) * 1000:.0f} ms is too near the limit of {exp(self._limit):g} s to tell a trend from noise"
        return ""

    @property
    def _usual(self) -> float:
        if len(self._cycle) >= DAY_MINUTES // _BIN_MINUTES:
            return sum(self._cycle.values()) / len(self._cycle)
        return median(value for _, value in self._medians[: self._tuning.window // 3 or 1])

    def predict(self) -> Prediction | None:
        """When the limit is crossed, to be asked once a minute; None where nothing leads there soon and surely."""
        found = None if self.refusal else self._crossing()
        self._streak = self._streak + 1 if found else 0
        return found if self._streak >= self._tuning.in_a_row else None

    def _crossing(self) -> Prediction | None:
        found = slope([value for _, value in self._medians])
        left = self._limit - found.level
        grown = found.level - self._usual
        if found.z < self._tuning.z or found.rate <= 0 or found.low <= 0 or grown < log(self._tuning.grown_ratio):
            return None
        if left / found.rate > self._tuning.horizon:
            return None
        eta, first, last = (max(0.0, left / rate) * MINUTE_SECONDS for rate in (found.rate, found.high, found.low))
        return Prediction("latency reaches the limit", eta, first, last)


_BIN_MINUTES = 30
_LEARNING = 0.05
_MOST_STEP = 0.5


def exhausted(
    what: str, used: Sequence[tuple[float, float]], limit: float, horizon_seconds: float
) -> Prediction | None:
    """When an amount that is counted exactly (disk, memory) reaches its limit; ``used`` holds (seconds, amount)."""
    if len(used) < _LEAST_POINTS or used[-1][1] >= limit:
        return None
    rates = sorted(
        (later - earlier) / (after - before)
        for index, (before, earlier) in enumerate(used)
        for after, later in used[index + 1 :]
        if after > before
    )
    if not rates:
        return None
    left = limit - used[-1][1]
    rate, slow, fast = median(rates), rates[len(rates) // 10], rates[len(rates) * 9 // 10]
    if rate <= 0 or slow <= 0 or left / rate > horizon_seconds:
        return None
    return Prediction(f"{what} is full", left / rate, left / fast, left / slow)


_LEAST_POINTS = 5


def restarting(restarts: Sequence[tuple[float, int]], window_seconds: float, most: int) -> str:
    """Words for a replica that was restarted more than ``most`` times within the window, else empty."""
    if not restarts:
        return ""
    end = restarts[-1][0]
    recent = [count for at, count in restarts if at >= end - window_seconds]
    grown = recent[-1] - recent[0]
    return f"restarted {grown} times in {_span(window_seconds)}" if grown > most else ""
