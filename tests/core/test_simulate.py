"""The replay: its model and optimum checked by brute force, its policies by tables, its scores against known answers."""

import itertools
from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.contenders import OTHERS, contender, numbers_of
from cfscale.core.settings import scaling_of
from cfscale.core.simulate import Model, Run, need, optimum, replay, score, static_peak, warm_up
from cfscale.core.trace import quantile
from cfscale.core.tune import front
from cfscale.core.workload import Profile
from cfscale.errors import InputError
from tests.loads import bursts, daily, steps

NAMES = [
    *OTHERS,
    "hpa:80",
    "slo:1%",
    "resource",
    "target:60%",
    "pool",
    "predictive",
    "predictive:founding",
    "seed:wait",
    "seed:step",
    "founding",
    "nomad:60",
]


@cache
def setting() -> tuple[object, object]:
    rules = load_catalogue().rules
    return scaling_of(Profile(), rules), numbers_of(rules)


def played(name: str, demand: Sequence[float], model: Model | None = None) -> Run:
    model = model or Model()
    scaling, numbers = setting()
    return replay(demand, contender(name, scaling, model, numbers)(), model)  # type: ignore[arg-type]


@given(needs=st.lists(st.integers(1, 3), min_size=5, max_size=6), delay=st.integers(1, 2))
@settings(max_examples=25)
def test_the_optimum_is_the_cheapest_of_all_plans_that_are_never_short(needs: list[int], delay: int) -> None:
    model = Model(startup_seconds=60.0 * delay)
    cheapest = min(
        sum(plan)
        for plan in itertools.product(range(1, 4), repeat=len(needs))
        if all(min(plan[max(0, at - delay) : at + 1]) >= wanted for at, wanted in enumerate(needs))
    )

    assert sum(optimum([float(value) for value in needs], model).billed) == cheapest


@pytest.mark.parametrize("delay", [0, 1, 2, 5])
def test_the_optimum_run_as_a_policy_is_never_short(delay: int) -> None:
    model, demand = Model(startup_seconds=60.0 * delay), bursts(2000)
    best = optimum(demand, model)
    plan = iter(best.billed)

    run = replay(demand, lambda _view: next(plan), model, start=best.billed[0])

    assert list(run.billed) == list(best.billed)
    assert all(ready >= wanted for ready, wanted in zip(run.ready, map(need, demand), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_looks_ahead(name: str) -> None:
    demand = daily(2200)
    cut = 1800
    other = [*demand[:cut], *bursts(len(demand) - cut)]

    same, changed = played(name, demand), played(name, other)
    assert list(same.billed[: cut + 1]) == list(changed.billed[: cut + 1])


@pytest.mark.parametrize("name", NAMES)
def test_capacity_is_conserved_and_a_replay_repeats_itself(name: str) -> None:
    demand = daily(1500)
    run = played(name, demand)

    assert all(0 <= ready <= billed for ready, billed in zip(run.ready, run.billed, strict=True))
    assert min(run.wanted) >= 1
    assert played(name, demand).billed == run.billed


def test_scores_of_a_case_worked_out_by_hand() -> None:
    # 8 steps, the first 2 unscored; one replica against a demand of 1, then 2 for two steps
    demand = [1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0]
    model = Model(startup_seconds=60.0)
    best = optimum(demand, model)
    run = replay(demand, lambda _view: 1, model)

    result = score(run, best, model, "case", "one")

    assert warm_up(len(demand), model) == 2
    assert result.under_ratio == pytest.approx(2 / 6)
    assert result.lost_ratio == pytest.approx(2 / 8)
    assert result.cost_ratio == pytest.approx(6 / 9)  # the optimum orders the second replica one step early
    assert result.actions_per_day == 0


def test_a_step_is_reached_after_lag_and_start_up_time() -> None:
    demand = [0.65] * 10 + [4.0] * 20

    run = played("hpa", demand)

    # seen one step late, ready two steps after the order
    assert run.wanted[10] == 1
    assert run.wanted[11] > 1
    assert run.ready[12] == 1
    assert run.ready[13] > 1


def test_starting_replicas_go_first_and_draining_ones_are_paid_for() -> None:
    wishes = iter([4, 2, 2, 1, 1, 1])
    run = replay([4.0] * 6, lambda _view: next(wishes), Model(startup_seconds=180, drain_seconds=120), start=2)

    assert list(run.ready) == [2, 2, 2, 1, 1, 1]
    assert list(run.billed) == [4, 2, 2, 2, 2, 1]


def test_the_static_peak_is_never_short_in_the_scored_part() -> None:
    demand, model = bursts(2000), Model()
    result = score(static_peak(demand, model), optimum(demand, model), model, "t", "static-peak")

    assert (result.under_ratio, result.actions_per_day) == (0, 0)


def test_the_literal_seed_doubles_while_replicas_start_and_the_patient_one_waits() -> None:
    demand = steps(4.0, 40)

    literal, patient = (list(played(name, demand).wanted) for name in ("seed", "seed:wait"))

    assert literal.index(4) == literal.index(2) + 1
    assert patient.index(4) == patient.index(2) + 2


@pytest.mark.parametrize("name", ["hap", "hpa-lin", "slo:abc", "seed:never", "target:200%", "nomad:x", ""])
def test_a_name_that_is_no_policy_is_refused_with_the_nearest(name: str) -> None:
    scaling, numbers = setting()
    with pytest.raises(InputError):
        contender(name, scaling, Model(), numbers)  # type: ignore[arg-type]


def test_the_nearest_name_is_told() -> None:
    scaling, numbers = setting()
    with pytest.raises(InputError, match="did you mean 'hpa'"):
        contender("hap", scaling, Model(), numbers)  # type: ignore[arg-type]


def test_the_front_holds_what_none_beats() -> None:
    def one(under: float, cost: float, actions: float):  # type: ignore[no-untyped-def]
        from cfscale.core.simulate import Score

        return Score("t", "p", under, 0.0, cost, actions)

    scores = {
        "good": one(0.1, 1.0, 10),
        "worse": one(0.2, 1.0, 10),
        "dear": one(0.0, 2.0, 10),
        "calm": one(0.3, 1.1, 1),
    }

    assert front(scores) == ("good", "calm", "dear")


def test_a_quantile_is_interpolated_between_neighbours() -> None:
    assert quantile([4.0, 1.0, 2.0, 3.0], 0.5) == 2.5
    assert quantile([7.0], 0.999) == 7.0
