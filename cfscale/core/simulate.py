"""Replay of a recorded load against a policy, and what came of it.

    demand per step ──▶ [ready ▸ observe ▸ decide ▸ order or stop ▸ serve] per step ──▶ Run ──▶ Score

The model. Demand is in units of what one replica carries. In each step (1) replicas ordered one start-up time ago become
ready; (2) the policy decides on what was observed up to one metric lag ago; (3) replicas it asks for are ordered, those
it gives up stop at once, starting ones first; (4) demand meets the ready ones. What they cannot carry is lost, not queued. What
a policy sees is censored as CPU is: a full replica shows no more than 100 %. Ordered replicas are paid for like ready ones.

The optimum knows the future, is never short and pays the least: a replica needed again within the start-up time is kept.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from msgspec import Struct

SIMULATION_SCHEMA = "cfscale/simulation/v1"
DAY_SECONDS = 86_400.0
OPTIMUM, STATIC = "optimum", "static-peak"
_WARM_UP_DAYS, _WARM_UP_SHARE = 2, 4  # unscored, for every policy: two days, but no more than a quarter
_HEADROOM = 1.5  # of the highest need: no policy may order more
_TINY = 1e-9


class Model(Struct, frozen=True):
    """How replicas and metrics behave."""

    step_seconds: float = 60.0
    startup_seconds: float = 120.0
    lag_seconds: float = 60.0
    drain_seconds: float = 0.0

    @property
    def delay(self) -> int:
        """Steps from an order to a ready replica."""
        return ceil(self.startup_seconds / self.step_seconds - _TINY)

    @property
    def lag(self) -> int:
        """Steps until a step is known: one at least, for it must have passed."""
        return max(1, ceil(self.lag_seconds / self.step_seconds - _TINY))

    @property
    def drain(self) -> int:
        """Steps for which a replica that is to stop is still paid for."""
        return ceil(self.drain_seconds / self.step_seconds - _TINY)

    @property
    def day(self) -> float:
        """Steps of one day."""
        return DAY_SECONDS / self.step_seconds


@dataclass(slots=True)
class View:
    """What a policy may know in one step: the newest observation (None before the first), and its own replicas."""

    time: float
    load: float | None
    utilisation: float
    ready: int
    starting: int

    @property
    def current(self) -> int:
        """All replicas that are there or on their way."""
        return self.ready + self.starting


Scaler = Callable[[View], int]


class Run(Struct, frozen=True):
    """What a replay did, step by step. ``billed`` are the replicas paid for."""

    demand: Sequence[float]
    ready: Sequence[int]
    billed: Sequence[int]
    wanted: Sequence[int]


class Score(Struct, frozen=True):
    """How one policy did on one trace."""

    trace: str
    policy: str
    under_ratio: float
    lost_ratio: float
    cost_ratio: float
    actions_per_day: float


class Simulation(Struct, frozen=True):
    """The document ``cfscale/simulation/v1``: the model, and a row for each trace and policy."""

    schema: str
    step_seconds: float
    startup_seconds: float
    lag_seconds: float
    peak_replicas: float
    results: tuple[Score, ...]


def need(demand: float) -> int:
    """The replicas that just carry a demand; one at least."""
    return max(1, ceil(demand - _TINY))


def warm_up(steps: int, model: Model) -> int:
    """How many steps at the beginning are not scored."""
    return int(min(_WARM_UP_DAYS * model.day, steps // _WARM_UP_SHARE))


def replay(demand: Sequence[float], scaler: Scaler, model: Model, start: int | None = None) -> Run:
    """What a policy would have done; ``start`` replicas are there at first, else as many as the first step needs."""
    fleet = _Fleet(start or need(demand[0]), model)
    most = ceil(_HEADROOM * max(map(need, demand)))
    loads: list[float] = []
    ready: list[int] = []
    billed: list[int] = []
    wanted: list[int] = []
    for step, now in enumerate(demand):
        fleet.advance(step)
        seen = step - model.lag
        known = seen >= 0
        view = View(
            time=step * model.step_seconds,
            load=loads[seen] if known else None,
            utilisation=loads[seen] / ready[seen] if known else 0.0,
            ready=fleet.ready,
            starting=fleet.starting,
        )
        wish = min(most, max(1, scaler(view)))
        fleet.scale(step, wish)
        loads.append(min(now, fleet.ready))
        ready.append(fleet.ready)
        billed.append(fleet.ready + fleet.starting + fleet.draining)
        wanted.append(wish)
    return Run(demand, ready, billed, wanted)


class _Fleet:
    """The replicas of a replay: ready, on their way, and on their way out."""

    __slots__ = ("_delay", "_drain", "_leaving", "_orders", "draining", "ready", "starting")

    def __init__(self, ready: int, model: Model) -> None:
        self.ready, self.starting, self.draining = ready, 0, 0
        self._delay, self._drain = model.delay, model.drain
        self._orders: deque[tuple[int, int]] = deque()
        self._leaving: deque[tuple[int, int]] = deque()

    def advance(self, step: int) -> None:
        """What was ordered a start-up time ago is ready, what was told to stop a drain time ago is gone."""
        while self._orders and self._orders[0][0] <= step:
            count = self._orders.popleft()[1]
            self.ready, self.starting = self.ready + count, self.starting - count
        while self._leaving and self._leaving[0][0] <= step:
            self.draining -= self._leaving.popleft()[1]

    def scale(self, step: int, wanted: int) -> None:
        """Order or stop as many as it takes."""
        change = wanted - self.ready - self.starting
        if change > 0 and self._delay:
            self._orders.append((step + self._delay, change))
            self.starting += change
        elif change > 0:
            self.ready += change
        elif change < 0:
            self._stop(step, -change)

    def _stop(self, step: int, count: int) -> None:
        while count and self._orders:
            due, ordered = self._orders.pop()
            gone = min(ordered, count)
            count, self.starting = count - gone, self.starting - gone
            if ordered > gone:
                self._orders.append((due, ordered - gone))
        self.ready -= count
        if count and self._drain:
            self._leaving.append((step + self._drain, count))
            self.draining += count


def optimum(demand: Sequence[float], model: Model) -> Run:
    """The cheapest way never to be short, for whoever knows the future."""
    needs = list(map(need, demand))
    kept: deque[int] = deque()  # steps whose needs fall, the largest first
    billed = [0] * len(needs)
    for step in range(len(needs) - 1, -1, -1):
        while kept and needs[kept[-1]] <= needs[step]:
            kept.pop()
        kept.append(step)
        if kept[0] > step + model.delay:
            kept.popleft()
        billed[step] = needs[kept[0]]
    return Run(demand, needs, billed, billed)


def static_peak(demand: Sequence[float], model: Model) -> Run:
    """The smallest constant count that is never short in the scored part."""
    peak = max(map(need, demand[warm_up(len(demand), model) :]))
    return replay(demand, lambda _view: peak, model, start=peak)


def score(run: Run, best: Run, model: Model, trace: str, policy: str) -> Score:
    """The score of a run against the optimum of the same demand."""
    first, steps = warm_up(len(run.demand), model), len(run.demand)
    demand, ready = run.demand[first:], run.ready[first:]
    short = [max(0.0, wants - has) for wants, has in zip(demand, ready, strict=True)]
    actions = sum(run.billed[step] != run.billed[step - 1] for step in range(max(1, first), steps))
    return Score(
        trace=trace,
        policy=policy,
        under_ratio=sum(missing > _TINY for missing in short) / len(demand),
        lost_ratio=sum(short) / sum(demand) if sum(demand) else 0.0,
        cost_ratio=sum(run.billed[first:]) / sum(best.billed[first:]),
        actions_per_day=actions / (len(demand) / model.day),
    )


def steps_of(seconds: float, model: Model) -> int:
    """Whole steps in so many seconds."""
    return floor(seconds / model.step_seconds + _TINY)
