"""The forecast: what it learns, what its margin promises, and that it forgets in time and in memory."""

from collections.abc import Sequence
from itertools import islice
from math import isfinite, sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from msgspec.structs import replace as changed

from cfscale.core.contenders import live
from cfscale.core.forecast import Errors, Forecast, Regression, Series
from cfscale.core.foresight import STEP_SECONDS, Foresight, phase_of
from cfscale.core.plan import Damping, Policy
from cfscale.core.policy import Situation
from cfscale.core.samples import ReplicaState
from cfscale.core.simulate import Model, optimum, replay, score
from cfscale.core.situation import situation_of
from tests.fake_service import AGENTS, SCALING, a_replica, a_usage
from tests.loads import bursts, daily, hourly, noisy

TUNING = SCALING.forecast
LOOSE = changed(
    SCALING,
    policies=(Policy("slo"),),
    scale_down=Damping(300.0, 300.0, 50, None),
)


def taught(loads: Sequence[float], ahead: int = 3) -> Forecast:
    forecast = Forecast(TUNING, 60.0, ahead, 0.005)
    for load in loads:
        forecast.learn(load, 0.7)
    return forecast


def test_nothing_seen_is_no_outlook() -> None:
    assert Forecast(TUNING, 60.0, 3, 0.005).outlook() is None


def test_a_short_history_is_doubted_and_a_long_one_is_not() -> None:
    short, long = taught([5.0] * 30).outlook(), taught([5.0] * 90).outlook()

    assert short is not None
    assert long is not None
    assert "has seen 30m of the 1h it needs" in short.doubt
    assert long.doubt == ""


def test_a_steady_load_is_expected_to_stay() -> None:
    outlook = taught([5.0] * 200).outlook()

    assert outlook is not None
    assert outlook.expected == pytest.approx(5.0)
    assert outlook.replicas in (5, 6)
    assert outlook.told == "5.0 replicas' load expected within 3m, 1.0 margin to be short 0% of the time"


def put_up_with(ahead: int) -> float:
    """The share of short steps that the forecast of a noisy load intends, as a mean over a day and a half."""
    forecast, intended = Forecast(TUNING, 60.0, ahead, 0.005), []
    for load in noisy(3000, 6, 1):
        forecast.learn(load, 0.7)
        intended.append(outlook.short_ratio if (outlook := forecast.outlook()) else 0.0)
    return sum(intended[800:]) / len(intended[800:])


def test_the_longer_replicas_take_the_fewer_short_minutes_are_put_up_with() -> None:
    quick, usual, slow = map(put_up_with, (2, 3, 11))  # of this noise, the error is the same at any distance

    assert slow < usual / 2
    assert quick > usual / 2


def test_a_slope_is_expected_to_go_on() -> None:
    outlook = taught([1 + 0.05 * minute for minute in range(120)]).outlook()

    assert outlook is not None
    assert outlook.expected > 6.95  # the last load; the slope goes on to 7.1


def test_a_job_on_the_hour_is_foreseen_once_it_was_seen_a_few_times() -> None:
    loads = hourly(60 * 12)
    before_the_hour = taught(loads[: 60 * 11 - 1]).outlook()

    assert loads[60 * 11 - 2] < 6
    assert before_the_hour is not None
    assert before_the_hour.expected > 10


def test_a_saturated_reading_is_taken_for_more() -> None:
    forecast = taught([4.0] * 100)
    calm = forecast.outlook()
    for _ in range(3):
        forecast.learn(4.0, 1.0)
    pressed = forecast.outlook()

    assert calm is not None
    assert pressed is not None
    assert pressed.expected > 1.5 * calm.expected


def test_a_forecast_worse_than_none_is_doubted() -> None:
    tuning = replace(TUNING, worse_ratio=0.5)
    forecast = Forecast(tuning, 60.0, 3, 0.005)
    for load in noisy(300):
        forecast.learn(load, 0.7)
    outlook = forecast.outlook()

    assert outlook is not None
    assert "times as far off as no forecast would have been" in outlook.doubt


@pytest.mark.parametrize("goal", [0.002, 0.005, 0.01])
@pytest.mark.parametrize("load", [daily, noisy, hourly], ids=lambda load: load.__name__)
def test_a_named_goal_is_met_whatever_the_load_is_like(load, goal: float) -> None:  # type: ignore[no-untyped-def]
    model, demand = Model(), load(1440 * 6)
    scaling = changed(SCALING, policies=(Policy("slo", {"goal": f"{100 * goal:g}%"}),))

    result = score(replay(demand, live(scaling, model), model), optimum(demand, model), model, "t", "slo")

    assert result.under_ratio <= goal + 0.001


def test_where_the_load_is_noise_the_default_costs_less_than_the_promise() -> None:
    model, demand = Model(), noisy(1440 * 4)
    best = optimum(demand, model)
    strict = changed(SCALING, policies=(Policy("slo", {"goal": "0.1%"}),))

    kept, weighed = (replay(demand, live(scaling, model), model) for scaling in (strict, LOOSE))

    assert score(weighed, best, model, "t", "default").cost_ratio < score(kept, best, model, "t", "slo").cost_ratio


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(1, 12))
@settings(max_examples=60)
def test_whatever_is_learned_the_outlook_is_sane(loads: list[float], ahead: int) -> None:
    forecast = Forecast(TUNING, 60.0, ahead, 0.005)
    for load in loads:
        forecast.learn(load, 0.5)
        outlook = forecast.outlook()
        assert outlook is not None
        assert 0 <= outlook.expected <= outlook.needed + 1e-6
        assert outlook.replicas >= 1
        assert 0 <= outlook.short_ratio <= 1


def test_a_forecast_takes_the_same_memory_after_a_month() -> None:
    series = Series(100)
    for step in range(10_000):
        series.append(float(step))

    assert len(series) == 10_000
    assert len(series.values(9_900, 1_000)) == 100
    assert series.start > 9_500
    assert series.mean(9_950, 10_000) == pytest.approx(9_974.5)


def test_errors_that_are_long_past_are_forgotten() -> None:
    errors = Errors(half_life_steps=10)
    for _ in range(100):
        errors.add(50.0)
    for _ in range(200):
        errors.add(1.0)

    assert errors.quantile(0.01) < 2
    assert errors.exceeded(2.0) < 0.001


@given(st.lists(st.floats(-10, 400), min_size=20, max_size=200), st.floats(0.01, 0.5))
def test_a_quantile_is_exceeded_as_often_as_it_says(values: list[float], share: float) -> None:
    errors = Errors(half_life_steps=1e9)
    for value in values:
        errors.add(value)

    # the error lies within its bin, which is eight percent wide
    assert sum(value > 1.09 * errors.quantile(share) + 0.06 for value in values) <= share * len(values) + 1
    assert errors.exceeded(errors.quantile(share)) == pytest.approx(share, abs=0.02 + 1 / len(values)) or (
        errors.quantile(share) == 0.0
    )


def test_a_regression_finds_the_weights_that_made_the_outcomes() -> None:
    regression = Regression(half_life_steps=1000)
    for step in range(400):
        terms = (sin(step), sin(2.3 * step), sin(0.7 * step))
        regression.learn(terms, 0.8 * terms[0] - 0.5 * terms[1] + 0.1 * terms[2])

    assert regression.weights == pytest.approx((0.8, -0.5, 0.1), abs=1e-3)
    assert regression.expect((1.0, 1.0, 1.0)) == pytest.approx(0.4, abs=1e-2)


def test_a_regression_forgets_a_rule_that_holds_no_more() -> None:
    regression = Regression(half_life_steps=20)
    for step in range(600):
        term = sin(step)
        regression.learn((term, 0.0, 0.0), term if step < 300 else -term)

    assert regression.weights[0] == pytest.approx(-1.0, abs=1e-3)


def test_terms_that_stand_still_for_a_year_do_not_make_a_regression_forget_without_end() -> None:
    regression = Regression(half_life_steps=50)
    for _ in range(20_000):
        regression.learn((0.0, 0.0, 0.0), 0.0)
    regression.learn((1e-6, 1e-6, 1e-6), 6.0)

    assert abs(regression.expect((1.0, 1.0, 1.0))) < 6000
    assert regression.expect((0.0, 0.0, 0.0)) == 0.0


_TERM = st.floats(-1e9, 1e9) | st.floats(-6, 6)


@given(st.lists(st.tuples(_TERM, _TERM, _TERM, _TERM), max_size=200), st.floats(5, 1e4))
def test_a_regression_stays_finite_whatever_it_learns(cases: list[tuple[float, ...]], half_life: float) -> None:
    regression = Regression(half_life)
    for first, second, third, outcome in cases:
        regression.learn((first, second, third), outcome)

    assert all(map(isfinite, regression.weights))
    assert abs(regression.expect((1.0, 1.0, 1.0))) < 1e6
    # it goes on learning: the same case again and again is known in the end
    for _ in range(2000):
        regression.learn((1.0, 2.0, 3.0), 5.0)
    assert regression.expect((1.0, 2.0, 3.0)) == pytest.approx(5.0, abs=0.1)


def test_a_load_that_swings_by_a_rule_is_foreseen_better_than_by_what_is_now() -> None:
    swinging = [5 + 2 * sin(0.35 * step) for step in range(600)]
    outlook = taught(swinging).outlook()

    assert outlook is not None
    assert outlook.error_ratio < 0.35


def situation(time: float, busy: float, count: int = 2) -> Situation:
    from cfscale.core.policy import Observation

    replicas = tuple(a_replica(number, ReplicaState.READY) for number in range(1, count + 1))
    usages = tuple(a_usage(number, busy, time=time) for number in range(1, count + 1))
    return situation_of(Observation(AGENTS, "fake", time, replicas, usages), SCALING)


def watched(foresight: Foresight, loads: Sequence[float], start: float = 600.0) -> None:
    """Ticks every ten seconds, six to a minute of a load."""
    for minute, load in enumerate(loads):
        for tick in range(6):
            foresight.see(situation(start + 60 * minute + 10 * tick, load / 2), None)


def test_ticks_become_minutes() -> None:
    foresight = Foresight(TUNING, 0.005, strict=False)
    watched(foresight, [1.0, 1.5, 1.2, 0.9])

    assert foresight.loads.loads == (1.0, 1.5, 1.2)
    assert foresight.loads.started == 600.0


def test_the_minutes_of_services_end_in_different_ticks() -> None:
    ends = [phase_of(f"agents-{number}") // 10 for number in range(1000)]

    assert all(130 < ends.count(tick) < 200 for tick in range(6))


def test_a_minute_that_begins_with_the_services_own_second_is_a_minute_all_the_same() -> None:
    foresight, later = (
        Foresight(TUNING, 0.005, strict=False, phase=20),
        Foresight(TUNING, 0.005, strict=False, phase=20),
    )
    watched(foresight, [1.0, 1.5, 1.2, 0.9], start=620.0)
    later.recall(foresight.loads)
    watched(later, [0.7, 0.8], start=620.0 + 3 * STEP_SECONDS)

    assert foresight.loads.loads == (1.0, 1.5, 1.2)
    assert foresight.loads.started == 620.0
    assert later.loads.loads == (1.0, 1.5, 1.2, 0.7)


def test_a_forecast_taken_up_after_a_restart_is_the_same() -> None:
    loads = [round(1 + 0.5 * (minute % 7) / 7, 2) for minute in range(150)]
    through, before, after = (Foresight(TUNING, 0.005, strict=False) for _ in range(3))
    watched(through, loads)
    watched(before, loads[:100])
    # the last minute is learned with the first tick of the next one, which the restart takes over
    before.see(situation(600.0 + 60 * 100, loads[100] / 2), None)
    after.recall(before.loads)
    watched(after, loads[100:], start=600.0 + 60 * 100)

    assert through.see(situation(600.0 + 60 * 150, 0.5), None) == after.see(situation(600.0 + 60 * 150, 0.5), None)


def test_after_a_restart_minutes_are_learned_again_a_few_in_each_tick() -> None:
    loads, now = [round(1 + 0.5 * (minute % 7) / 7, 2) for minute in range(150)], 600.0 + 60 * 150
    through, after = Foresight(TUNING, 0.005, strict=False), Foresight(TUNING, 0.005, strict=False, at_once=40)
    watched(through, loads)
    expected = through.see(situation(now, 0.5), None)
    after.recall(through.loads)

    outlooks = [after.see(situation(now + tick, 0.5), None) for tick in range(4)]

    assert outlooks == [None, None, None, expected]


def test_a_new_horizon_is_learned_while_the_old_one_decides() -> None:
    foresight = Foresight(TUNING, 0.005, strict=False, at_once=25)
    watched(foresight, [1.0] * 80)
    now = 600.0 + 60 * 80

    # a minute that ends meanwhile is learned by both
    horizons = [foresight.see(situation(now + 25 * tick, 0.5), 300.0) for tick in range(4)]

    assert [outlook and outlook.horizon_seconds for outlook in horizons] == [180.0, 180.0, 180.0, 360.0]
    assert horizons[-1] == relearned(foresight, 300.0)


def relearned(foresight: Foresight, startup: float) -> object:
    """What a forecast expects that learned the same minutes with this horizon from the beginning."""
    other = Foresight(TUNING, 0.005, strict=False)
    other.recall(foresight.loads)
    return other.see(situation(foresight.loads.started + 60 * len(foresight.loads.loads), 0.5), startup)


def test_start_up_times_that_waver_do_not_keep_a_forecast_from_being_learned() -> None:
    kept, foresight = Foresight(TUNING, 0.005, strict=False), Foresight(TUNING, 0.005, strict=False, at_once=10)
    watched(kept, [1.0] * 200)
    foresight.recall(kept.loads)
    now = 600.0 + 60 * 200

    outlooks = [foresight.see(situation(now, 0.5), (178.0, 183.0)[tick // 3 % 2]) for tick in range(50)]

    assert outlooks[18] is None
    assert None not in outlooks[20:]


def test_a_horizon_that_changed_while_minutes_were_learned_again_comes_next() -> None:
    kept, foresight = Foresight(TUNING, 0.005, strict=False), Foresight(TUNING, 0.005, strict=False, at_once=10)
    watched(kept, [1.0] * 200)
    foresight.recall(kept.loads)
    now = 600.0 + 60 * 200

    outlooks = [foresight.see(situation(now, 0.5), 178.0 if tick < 5 else 183.0) for tick in range(45)]

    horizons = [outlook.horizon_seconds for outlook in outlooks if outlook]
    assert (horizons[0], horizons[-1]) == (240.0, 300.0)


@pytest.mark.parametrize("phase", [0, 20, 59])
def test_a_clock_set_by_any_part_of_a_minute_loses_no_minute(phase: int) -> None:
    for step in range(-150, 151):
        foresight = Foresight(TUNING, 0.005, strict=False, phase=phase)
        watched(foresight, [1.0] * 5, start=600.0 + phase)
        now = 600.0 + phase + 60 * 5
        foresight.see(situation(now, 0.5), None)
        foresight.moved(step)
        foresight.see(situation(now + 10 + step, 0.5), None)

        assert foresight.loads.loads[:5] == (1.0,) * 5, step


def test_minutes_that_nobody_saw_are_no_load_of_zero() -> None:
    foresight = Foresight(TUNING, 0.005, strict=False)
    watched(foresight, [1.0] * 70)
    watched(foresight, [1.0] * 5, start=600.0 + 60 * 100)

    outlook = foresight.see(situation(600.0 + 60 * 105, 0.5), None)

    assert min(load for load in foresight.loads.loads if load >= 0) == 1.0
    assert outlook is not None
    assert outlook.expected == pytest.approx(1.0)


def test_a_clock_set_back_begins_anew() -> None:
    foresight = Foresight(TUNING, 0.005, strict=False)
    watched(foresight, [1.0] * 5)
    watched(foresight, [1.0] * 3, start=60.0)

    assert foresight.loads.started <= 180.0


def test_a_measured_start_up_time_moves_the_horizon() -> None:
    foresight = Foresight(TUNING, 0.005, strict=False)
    watched(foresight, [1.0] * 80)
    now = 600.0 + 60 * 80

    usual, slow = foresight.see(situation(now, 0.5), None), foresight.see(situation(now + 10, 0.5), 300.0)

    assert usual is not None
    assert slow is not None
    assert (usual.horizon_seconds, slow.horizon_seconds) == (180.0, 360.0)


def test_bursts_are_paid_for_while_they_last() -> None:
    model, demand = Model(), bursts(1440 * 3)
    run = replay(demand, live(LOOSE, model), model)

    assert max(islice(run.ready, 200, None)) >= 9
    assert min(islice(run.ready, 200, None)) <= 3
