"""Whom a replay sets against each other: the policies of cfscale as they run live, and what others run.

    default  slo  resource  target  pool  predictive        the laws and the damping of the live loop
    hpa  hpa-linear  seed  nomad  swarm                     what is met elsewhere, with its own defaults

A policy of cfscale goes through the very functions that decide live; only what is observed comes from the model.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.autoscale import judge
from cfscale.core.forecast import Forecast
from cfscale.core.history import History
from cfscale.core.laws import Law, laws_of, needs_outlook, promise_of
from cfscale.core.plan import Damping, Policy, Scaling
from cfscale.core.policies import named, unknown
from cfscale.core.policy import Proposal, Reading, Situation
from cfscale.core.samples import Quality
from cfscale.core.simulate import Model, Scaler, View
from cfscale.core.tier import Rules
from cfscale.core.units import share_of

Contender = Callable[[], Scaler]
_ROUNDING = 1e-9
_MOST = 10**9


class Bounds(Struct, frozen=True):
    """The hard bounds of a replayed service; the replay itself says what can be had."""

    min_replicas: int = 1
    max_replicas: int = _MOST


class Numbers(Struct, frozen=True):
    """What the policies of others are run with."""

    hpa_usage: float
    hpa_sync: float
    linear_history: int
    seed_high: float
    seed_divisor: float
    seed_low: float
    seed_after: float
    seed_factor: float
    nomad_usage: float
    nomad_tolerance: float
    nomad_cooldown: float
    swarm_high: float
    swarm_low: float


def numbers_of(rules: Rules) -> Numbers:
    """The numbers of the catalogue for the policies of others."""
    ratio = {name: rules.leaf(f"simulation.{name}").ratio for name in ("hpa_usage", "nomad_usage", "nomad_tolerance")}
    return Numbers(
        **ratio,
        hpa_sync=rules.leaf("simulation.hpa_sync").seconds,
        linear_history=int(rules.leaf("simulation.linear_history").exact),
        seed_high=rules.leaf("scaling.resource.cpu.scale_up").ratio,
        seed_divisor=rules.leaf("scaling.predictive.scale_up_divisor").ratio,
        seed_low=rules.leaf("scaling.resource.cpu.scale_down").ratio,
        seed_after=rules.leaf("scaling.predictive.after").seconds,
        seed_factor=rules.leaf("scaling.predictive.scale_down_factor").ratio,
        nomad_cooldown=rules.leaf("simulation.nomad_cooldown").seconds,
        swarm_high=rules.leaf("simulation.swarm_high").ratio,
        swarm_low=rules.leaf("simulation.swarm_low").ratio,
    )


@dataclass(slots=True)
class Live:
    """A policy of cfscale in a replay: the loop's own functions, and a clock that the replay turns."""

    scaling: Scaling
    model: Model
    forecast: Forecast | None
    history: History
    laws: tuple[Law, ...]
    bounds: Bounds = field(default_factory=Bounds)

    def __call__(self, view: View) -> int:
        """The count asked for."""
        if view.load is not None and self.forecast is not None:
            self.forecast.learn(view.load, view.utilisation)
        situation = self._situation(view)
        draft, self.history = judge(situation, self.bounds, self.scaling, self.history, self.laws)
        if draft.desired != view.current:
            self.history = self.history.succeeded(draft.desired, view.time)
        return draft.desired

    def _situation(self, view: View) -> Situation:
        reporting = 0 if view.load is None else view.ready
        cpu = Reading("cpu", view.utilisation, reporting, view.ready, Quality.OK, "trace", 0.0)
        idle = Reading("memory", 0.0, reporting, view.ready, Quality.OK, "trace", 0.0)
        return Situation(
            time=view.time,
            current=view.current,
            ready=view.ready,
            starting=view.starting,
            cpu=cpu,
            memory=idle,
            disk=_NO_DISK,
            low_since=self.history.low_since,
            outlook=self.forecast.outlook() if self.forecast else None,
        )


_NO_DISK = Reading("disk", 0.0, 0, 0, Quality.OK, "", 0.0)


def live(scaling: Scaling, model: Model) -> Live:
    """A policy as it runs live, with this scaling."""
    forecast = None
    if needs_outlook(scaling):
        goal, strict = promise_of(scaling)
        ahead = model.delay + model.lag
        forecast = Forecast(scaling.forecast, model.step_seconds, ahead, goal, strict=strict)
    return Live(scaling, model, forecast, History(), laws_of(scaling))


def hpa(scaling: Scaling, model: Model, usage: float, sync: float) -> Live:
    """The Kubernetes HPA v2 with its default behaviour, as many syncs a step as go into one."""
    syncs = max(1, round(model.step_seconds / sync))
    behaviour = replace(
        scaling,
        policies=(Policy("target"),),
        target_ratio=usage,
        scale_up=Damping(0.0, 0.0, (2**syncs - 1) * 100, 4 * syncs),
        scale_down=Damping(300.0, 0.0, 100, None),
    )
    return live(behaviour, model)


def _linear(scaling: Scaling, model: Model, numbers: Numbers) -> Scaler:
    """The HPA with a straight line through its latest wishes, looked ahead by start-up and lag; the larger one wins."""
    inner = hpa(scaling, model, numbers.hpa_usage, numbers.hpa_sync)
    (law,) = inner.laws
    wishes: deque[int] = deque(maxlen=numbers.linear_history)

    def ahead(situation: Situation, ruling: Scaling) -> Proposal:
        proposal = law(situation, ruling)
        wishes.append(proposal.replicas)
        line = _line(tuple(wishes), model.delay + model.lag)
        return replace(proposal, replicas=max(wishes[-1], line))

    inner.laws = (ahead,)
    return inner


def _line(values: tuple[int, ...], ahead: int) -> int:
    """Where the least-squares line through the values arrives so many steps later, rounded up."""
    count = len(values)
    middle = (count - 1) / 2
    spread = sum((place - middle) ** 2 for place in range(count))
    slope = sum((place - middle) * value for place, value in enumerate(values)) / spread if spread else 0.0
    return max(1, ceil(sum(values) / count + slope * (middle + ahead) - _ROUNDING))


def _seed(numbers: Numbers, model: Model, *, patient: bool, additive: bool = False) -> Scaler:
    """The founding rules as written: no cooldown, no regard for what is starting, a factor rounded up.

    ``patient`` waits for replicas that start, ``additive`` reads the factor as a number of replicas.
    """
    long = numbers.seed_after / model.step_seconds
    low = 0

    def scaler(view: View) -> int:
        nonlocal low
        if view.load is None:
            return view.current
        low = low + 1 if view.utilisation < numbers.seed_low else 0
        if view.utilisation > numbers.seed_high:
            factor = ceil(view.utilisation / numbers.seed_divisor)
            if patient and view.starting:
                return view.current
            return view.current + factor if additive else view.current * factor
        if low >= long:
            low = 0
            return max(1, ceil(view.current * numbers.seed_factor))
        return view.current

    return scaler


def _nomad(numbers: Numbers, model: Model, usage: float) -> Scaler:
    """Target value of the Nomad autoscaler: a cooldown after every action, in both directions."""
    pause = numbers.nomad_cooldown / model.step_seconds
    left = 0.0

    def scaler(view: View) -> int:
        nonlocal left
        left -= 1
        if view.load is None or left > 0:
            return view.current
        ratio = view.utilisation / usage
        if abs(ratio - 1) <= numbers.nomad_tolerance:
            return view.current
        wanted = max(1, ceil(view.current * ratio - _ROUNDING))
        left = pause if wanted != view.current else left
        return wanted

    return scaler


def _swarm(numbers: Numbers) -> Scaler:
    """What scripts for Docker Swarm do: one more above a threshold, one less below another."""

    def scaler(view: View) -> int:
        if view.load is None:
            return view.current
        if view.utilisation > numbers.swarm_high:
            return view.current + 1
        return max(1, view.current - 1) if view.utilisation < numbers.swarm_low else view.current

    return scaler


def _usage(option: str, default: float, name: str) -> float:
    return share_of(option if option.endswith("%") else f"{option}%", name) if option else default


_OTHERS: Mapping[str, Callable[[str, Scaling, Model, Numbers], Scaler]] = {
    "hpa": lambda option, scaling, model, numbers: hpa(
        scaling, model, _usage(option, numbers.hpa_usage, "hpa"), numbers.hpa_sync
    ),
    "hpa-linear": lambda _option, scaling, model, numbers: _linear(scaling, model, numbers),
    "seed": lambda option, _scaling, model, numbers: _seed(
        numbers, model, patient=option != "", additive=option == "step"
    ),
    "nomad": lambda option, _scaling, model, numbers: _nomad(
        numbers, model, _usage(option, numbers.nomad_usage, "nomad")
    ),
    "swarm": lambda _option, _scaling, _model, numbers: _swarm(numbers),
}
_TAKES = {"hpa": None, "nomad": None, "seed": ("wait", "step"), "hpa-linear": (), "swarm": ()}
_SAME = {"founding": "seed", "step": "swarm"}
OTHERS = ("default", *_OTHERS)


def contender(name: str, scaling: Scaling, model: Model, numbers: Numbers) -> Contender:
    """What makes a fresh scaler of this name for each trace; raises InputError for a name that is none."""
    kind, _, option = name.partition(":")
    kind = _SAME.get(kind, kind)
    if name == "default":
        return lambda: live(scaling, model)
    if kind in _OTHERS:
        takes = _TAKES[kind]
        if takes is not None and option not in ("", *takes):
            raise unknown(name, OTHERS)
        make = _OTHERS[kind]
        make(option, scaling, model, numbers)  # a wrong option is refused before anything runs
        return lambda: make(option, scaling, model, numbers)
    policy = named(name, OTHERS)
    return lambda: live(replace(scaling, policies=(policy,)), model)
