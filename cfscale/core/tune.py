"""The search for parameters on recorded load: what each candidate would have done, and which of them none beats.

candidates ──replay on every trace──▶ mean scores ──▶ Pareto front: fewer short minutes, lower cost, fewer actions
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.contenders import Contender, Numbers, contender, live
from cfscale.core.plan import Scaling
from cfscale.core.simulate import Model, Score
from cfscale.core.units import format_duration

_GOALS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
_WINDOWS = (1, 2, 3)  # times the window that is in force
_USAGES = (50, 60, 70, 80, 90)


class Candidate(Struct, frozen=True):
    """One setting to try, and the part of a profile that sets it (empty: it is there to compare with)."""

    name: str
    make: Contender
    profile: str = ""


def candidates(scaling: Scaling, model: Model, numbers: Numbers) -> Iterator[Candidate]:
    """The default policy over goals and windows, and the HPA over its targets beside it."""
    down = scaling.scale_down
    for goal in _GOALS:
        for times in _WINDOWS:
            seconds = down.stabilization_window_seconds * times
            tried = replace(
                scaling,
                forecast=replace(scaling.forecast, goal_ratio=goal),
                scale_down=replace(down, stabilization_window_seconds=seconds),
            )
            window = format_duration(seconds)
            yield Candidate(
                f"goal {100 * goal:g}%, window {window}",
                _maker(tried, model),
                f"scaling: {{goal: {100 * goal:g}%, scale_down: {{stabilization_window: {window}}}}}",
            )
    for usage in _USAGES:
        name = f"hpa:{usage}"
        yield Candidate(name, contender(name, scaling, model, numbers))


def _maker(scaling: Scaling, model: Model) -> Contender:
    return lambda: live(scaling, model)


def mean_score(scores: Sequence[Score], policy: str) -> Score:
    """The mean of one policy's scores over all traces."""
    count = len(scores)
    return Score(
        trace=f"mean of {count}",
        policy=policy,
        under_ratio=sum(one.under_ratio for one in scores) / count,
        lost_ratio=sum(one.lost_ratio for one in scores) / count,
        cost_ratio=sum(one.cost_ratio for one in scores) / count,
        actions_per_day=sum(one.actions_per_day for one in scores) / count,
    )


def front(scores: Mapping[str, Score]) -> tuple[str, ...]:
    """The names that no other beats in short minutes, cost and actions at once, cheapest first."""
    keys = {name: (one.under_ratio, one.cost_ratio, one.actions_per_day) for name, one in scores.items()}
    kept = [name for name, key in keys.items() if not any(_beats(other, key) for other in keys.values())]
    return tuple(sorted(kept, key=lambda name: keys[name][1]))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(mine <= its for mine, its in zip(one, other, strict=True))
