from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.core.trend import Outlook, Prediction, exhausted, restarting, slope

VALUES = st.lists(st.floats(-10, 10, allow_nan=False), min_size=5, max_size=40)


def told(outlook: Outlook, latencies: list[float], start: int = 0) -> list[Prediction | None]:
    """What is predicted after each minute, six equal answers a minute."""
    answers = ((minute, second) for minute in range(len(latencies)) for second in range(0, 60, 10))
    return [
        outlook.predict()
        for minute, second in answers
        if outlook.add((start + minute) * 60.0 + second, latencies[minute])
    ]


def growing(minutes: int, start: float = 0.02, rate: float = 0.03) -> list[float]:
    return [start * exp(rate * minute) for minute in range(minutes)]


def test_a_leak_is_found_before_it_reaches_the_limit() -> None:
    outlook = Outlook(1.0)
    found = [one for one in told(outlook, [0.02] * 40 + growing(110)) if one]

    assert found
    first = found[0]
    assert first.earliest_seconds <= first.eta_seconds <= first.latest_seconds
    assert first.text.startswith("latency reaches the limit in ")


@pytest.mark.parametrize("flat", [[0.05] * 200, [0.05, 0.06] * 100, [0.05 - 0.0001 * n for n in range(200)]])
def test_nothing_is_predicted_where_nothing_grows(flat: list[float]) -> None:
    assert not any(told(Outlook(1.0), flat))


def test_spikes_are_no_trend() -> None:
    assert not any(told(Outlook(1.0), [0.9 if minute % 17 == 0 else 0.05 for minute in range(300)]))


def test_too_little_headroom_is_refused_and_said() -> None:
    outlook = Outlook(1.0)
    told(outlook, [0.4] * 60)

    assert outlook.refusal == "the usual latency of 400 ms is too near the limit of 1 s to tell a trend from noise"
    assert outlook.predict() is None


def test_the_first_half_hour_predicts_nothing() -> None:
    outlook = Outlook(1.0)
    told(outlook, [0.05] * 10)

    assert outlook.refusal == "9 of 30 minutes seen"


@given(VALUES, st.floats(-5, 5))
def test_a_slope_follows_what_is_added_to_it(values: list[float], rate: float) -> None:
    tilted = [value + rate * index for index, value in enumerate(values)]

    assert slope(tilted).rate == pytest.approx(slope(values).rate + rate, abs=1e-6)


@given(VALUES)
def test_the_slope_lies_in_its_interval_and_turns_with_time(values: list[float]) -> None:
    found, back = slope(values), slope(values[::-1])

    assert found.low <= found.rate <= found.high
    assert back.z == pytest.approx(-found.z)


@given(VALUES, st.integers(0, 39))
def test_one_value_alone_does_not_make_a_trend(values: list[float], place: int) -> None:
    calm = [0.0] * 30
    calm[place % 30] = 1e6

    assert abs(slope(calm).rate) < 1e-9


def test_a_disk_that_fills_up_has_its_hour() -> None:
    found = exhausted("the disk", [(n * 60.0, 0.5 + n * 0.01) for n in range(10)], 1.0, 86_400.0)

    assert found is not None
    assert found.eta_seconds == pytest.approx(41 * 60)
    assert found.text == "the disk is full in 41 min (41 min to 41 min)"


@pytest.mark.parametrize(
    "used",
    [[], [(0.0, 1.0)], [(n * 60.0, 5.0) for n in range(9)], [(n * 60.0, 9.0 - n) for n in range(9)], [(0.0, 5.0)] * 9],
    ids=["nothing", "one", "level", "falling", "no-time"],
)
def test_what_does_not_grow_is_never_full(used: list[tuple[float, float]]) -> None:
    assert exhausted("memory", used, 10.0, 86_400.0) is None


def test_restarts_count_within_their_window() -> None:
    assert restarting([(0.0, 0), (60.0, 1), (120.0, 4)], 600.0, 2) == "restarted 4 times in 10 min"
    assert restarting([(0.0, 0), (3600.0, 4), (3700.0, 4)], 600.0, 2) == ""
    assert restarting([], 600.0, 2) == ""


def test_an_open_interval_is_said() -> None:
    assert Prediction("memory is full", 7200.0, 100.0, inf).text == "memory is full in 2 h (100 s to open)"
