"""The forecast of a live service: ticks become minutes, minutes are learned, and what was learned outlives the process.

    situation of a tick ──mean over a minute──▶ Forecast.learn ──▶ Outlook, good until the next minute is over

What is kept on disk are the minutes alone (``Loads``); learning them again gives the same forecast.
"""

from dataclasses import dataclass, field
from math import ceil, floor
from zlib import crc32

from msgspec import Struct

from cfscale.core.forecast import DAY, WEEK, Forecast, Outlook
from cfscale.core.plan import Forecasting
from cfscale.core.policy import Situation

STEP_SECONDS = 60.0
_KEPT = int((WEEK + DAY) / STEP_SECONDS)
MOST_KEPT = _KEPT + int(DAY / STEP_SECONDS)  # what is too old goes a day at a time


class Loads(Struct, frozen=True):
    """The load of a service by the minute, in replicas, from ``started`` on, and how far it filled those ready.

    A minute of which nothing is known holds a load below zero.
    """

    started: float
    loads: tuple[float, ...]
    utilisations: tuple[float, ...]


@dataclass(slots=True)
class Foresight:
    """The forecast of one service; ``goal`` is the share of minutes that may be short, ``strict`` says how it is meant.

    ``phase`` is the second at which its minutes begin: those of a thousand services need not end in the same tick. At most
    ``at_once`` minutes are learned again in a tick, after a restart or when the horizon has changed.
    """

    tuning: Forecasting
    goal: float
    strict: bool
    phase: int = 0
    at_once: int = MOST_KEPT
    started: float = 0.0
    _loads: list[float] = field(default_factory=list)
    _utilisations: list[float] = field(default_factory=list)
    _minute: int = 0
    _seen: list[tuple[float, float]] = field(default_factory=list)
    _forecast: Forecast | None = None
    _next: Forecast | None = None
    _relearned: int = 0
    _startup: float = 0.0

    @property
    def loads(self) -> Loads:
        """What there is to keep."""
        return Loads(self.started, tuple(self._loads), tuple(self._utilisations))

    def recall(self, kept: Loads) -> None:
        """Take up the minutes that an earlier process kept."""
        self.started, self._minute = kept.started, self._minute_of(kept.started) + len(kept.loads)
        self._loads, self._utilisations = list(kept.loads), list(kept.utilisations)
        self._forecast = self._next = None

    def moved(self, seconds: float) -> None:
        """Go on on a clock that was set by so much, to the minute below: one may end early, but none comes twice."""
        minutes = floor(seconds / STEP_SECONDS)
        self.started += minutes * STEP_SECONDS
        self._minute += minutes

    def _minute_of(self, time: float) -> int:
        return int((time - self.phase) // STEP_SECONDS)

    def see(self, situation: Situation, startup_seconds: float | None) -> Outlook | None:
        """Take in one tick and return what is to be expected; the start-up time is the one last measured."""
        minute = self._minute_of(situation.time)
        if minute != self._minute:
            self._close(minute)
        cpu = situation.cpu
        if cpu.reporting:
            # replicas that do not report are taken to be as busy as those that do
            self._seen.append((cpu.mean * cpu.expected, cpu.mean))
        startup = startup_seconds or self.tuning.startup_seconds
        if startup != self._startup or self._forecast is None:
            self._expect(startup)
        if self._next is not None:
            self._relearn(self._next)
        return self._forecast.outlook() if self._forecast else None

    def _close(self, minute: int) -> None:
        """The minute is over: learn its mean, and nothing of those in which no tick fell."""
        gap = minute - self._minute
        if not self._loads or gap < 0 or gap > _KEPT // 2:  # the first one, a clock set back, an age ago
            if not self._seen or gap != 1:
                self._restart(minute)
                return
            self.started = self._minute * STEP_SECONDS + self.phase
        if self._seen:
            count = len(self._seen)
            self._learn(sum(load for load, _ in self._seen) / count, sum(full for _, full in self._seen) / count)
        for _ in range(gap - bool(self._seen)):
            self._learn(-1.0, 0.0)
        self._minute, self._seen = minute, []

    def _restart(self, minute: int) -> None:
        self.started, self._minute, self._seen = minute * STEP_SECONDS + self.phase, minute, []
        self._loads, self._utilisations = [], []
        self._forecast = self._next = None

    def _learn(self, load: float, utilisation: float) -> None:
        self._loads.append(round(load, 4))
        self._utilisations.append(round(utilisation, 4))
        if len(self._loads) > MOST_KEPT:
            surplus = len(self._loads) - _KEPT
            del self._loads[:surplus], self._utilisations[:surplus]
            self.started += surplus * STEP_SECONDS
            self._relearned = max(0, self._relearned - surplus)
        if self._forecast is not None:
            _teach(self._forecast, self._loads[-1], self._utilisations[-1])

    def _expect(self, startup_seconds: float) -> None:
        """Begin to learn all minutes again where the horizon has changed: a forecast is one of a certain distance.

        The first one after a restart is finished whatever its horizon: where start-up times waver there would be none.
        """
        self._startup, ahead = startup_seconds, ceil(startup_seconds / STEP_SECONDS) + 1
        if self._forecast is not None and self._forecast.ahead == ahead:
            self._next = None
        elif self._next is None or (self._forecast is not None and self._next.ahead != ahead):
            self._next = Forecast(self.tuning, STEP_SECONDS, ahead, self.goal, strict=self.strict)
            self._relearned = 0

    def _relearn(self, forecast: Forecast) -> None:
        """Learn some more of the minutes kept; until that is done, the forecast before this one goes on."""
        first, end = self._relearned, self._relearned + self.at_once
        for load, utilisation in zip(self._loads[first:end], self._utilisations[first:end], strict=True):
            _teach(forecast, load, utilisation)
        self._relearned = end
        if end >= len(self._loads):
            self._forecast, self._next = forecast, None
            self._expect(self._startup)


def phase_of(name: str) -> int:
    """The second at which a service's minutes begin: from its name, so that it outlives a restart.

    Not by ``rota.place``: of names that differ in their last digits it puts a quarter more into one tick than into others.
    """
    return crc32(name.encode("utf-8", "replace")) % int(STEP_SECONDS)


def _teach(forecast: Forecast, load: float, utilisation: float) -> None:
    if load < 0:
        forecast.skip()
    else:
        forecast.learn(load, utilisation)
