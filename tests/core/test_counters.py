import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.core.counters import SHORTEST_WINDOW_SECONDS, Reading, usages
from cfscale.core.samples import Quality, Usage

FIRST = Reading("a", "cgroup", 100.0, 0.0, "life", cpu_seconds=10.0, memory_bytes=5, periods=10, throttled_periods=4)


def between(first: Reading, second: Reading) -> Usage:
    _, kept = usages({}, [first])
    (usage,), _ = usages(kept, [second])
    return usage


def test_a_first_reading_has_memory_but_no_cpu_figure() -> None:
    (usage,), kept = usages({}, [FIRST])
    assert (usage.quality, usage.cpu_cores, usage.memory_bytes, usage.window_seconds) == (Quality.WARMING, None, 5, 0.0)
    assert kept == {"a": FIRST}


@pytest.mark.parametrize(
    "changes",
    [
        {"life": "another"},
        {"source": "engine-api"},
        {"cpu_seconds": 9.9},
        {"periods": 3},
        {"at_seconds": 100.1},
    ],
    ids=["restarted", "other source", "cpu ran back", "periods ran back", "too soon"],
)
def test_what_cannot_be_compared_is_warming_never_idle(changes: dict[str, float | str]) -> None:
    second = replace(FIRST, at_seconds=110.0, cpu_seconds=11.0)
    usage = between(FIRST, replace(second, **changes))
    assert (usage.quality, usage.cpu_cores, usage.throttled_ratio) == (Quality.WARMING, None, 0.0)


def test_readings_too_close_are_compared_with_an_older_one_next_time() -> None:
    _, kept = usages({}, [FIRST])
    for step in range(1, 4):
        near = replace(FIRST, at_seconds=100.0 + step * 0.06, cpu_seconds=10.0 + step * 0.03)
        _, kept = usages(kept, [near])
    (usage,), kept = usages(kept, [replace(FIRST, at_seconds=101.0, cpu_seconds=10.5)])
    assert (usage.cpu_cores, usage.window_seconds) == (0.5, 1.0)
    assert kept["a"].at_seconds == 101.0


@pytest.mark.parametrize("missing", ["cpu_seconds", "memory_bytes"])
def test_a_missing_controller_makes_the_usage_partial(missing: str) -> None:
    first, second = (replace(one, **{missing: None}) for one in (FIRST, replace(FIRST, at_seconds=105.0)))
    assert between(first, second).quality is Quality.PARTIAL


def test_cpu_accounting_that_appears_only_now_gives_no_figure_yet() -> None:
    usage = between(replace(FIRST, cpu_seconds=None), replace(FIRST, at_seconds=105.0))
    assert usage.cpu_cores is None


def test_only_this_windows_oom_kills_count() -> None:
    first, second = replace(FIRST, oom_kills=2), replace(FIRST, at_seconds=105.0, oom_kills=3)
    assert between(first, second).oom_kills == 1


@given(
    window=st.floats(SHORTEST_WINDOW_SECONDS * 1.01, 3600),
    cores=st.floats(0, 256),
    periods=st.integers(0, 1000),
    share=st.floats(0, 1),
)
def test_rates_are_differences_over_the_window(window: float, cores: float, periods: int, share: float) -> None:
    throttled = int(periods * share)
    second = replace(
        FIRST,
        at_seconds=FIRST.at_seconds + window,
        cpu_seconds=10.0 + cores * window,
        periods=10 + periods,
        throttled_periods=4 + throttled,
    )
    usage = between(FIRST, second)
    assert usage.quality is Quality.OK
    assert usage.cpu_cores == pytest.approx(cores, abs=1e-6)
    assert usage.throttled_ratio == (throttled / periods if periods else 0.0)
    assert 0 <= usage.throttled_ratio <= 1
