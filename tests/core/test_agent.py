import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.core.agent import agent_line, free_percent
from cfscale.core.health import Result, State
from cfscale.core.rota import JITTER, place
from cfscale.core.samples import Quality, Usage

USAGE = Usage("id", "cgroup", 0.0, 1.0, Quality.OK, 0.5, 300, 100, cpu_limit_cores=2.0, memory_limit_bytes=1000)


def told(state: State, free: int | None = None, before: str = "") -> str:
    return agent_line(Result("web-1", "http", state, 0.1, "why"), free, before)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State.UP, "up 40%"),
        (State.DEGRADED, "up 40%"),
        (State.DRAINING, "drain"),
        (State.MAINTENANCE, "maint"),
        (State.DOWN, "down #why"),
        (State.UNKNOWN, ""),
        (State.STARTING, ""),
    ],
)
def test_the_line_for_each_state(state: State, line: str) -> None:
    assert told(state, 40) == line


@pytest.mark.parametrize(("before", "line"), [("drain", "ready up"), ("maint", "ready up"), ("up", "up"), ("", "up")])
def test_only_what_the_agent_began_does_it_end(before: str, line: str) -> None:
    assert told(State.UP, None, before) == line


def test_the_weight_is_what_is_free_of_the_scarcer_resource() -> None:
    assert free_percent(USAGE) == 75
    assert free_percent(replace(USAGE, memory_bytes=1000)) == 10
    assert free_percent(replace(USAGE, memory_bytes=5000)) == 1
    assert free_percent(replace(USAGE, cpu_limit_cores=None, memory_limit_bytes=None)) is None
    assert free_percent(replace(USAGE, quality=Quality.STALE)) is None
    assert free_percent(None) is None


@given(st.text(max_size=40), st.integers(0, 10_000))
def test_a_target_keeps_its_place_but_for_the_jitter(name: str, turn: int) -> None:
    here, there = place(name, 0), place(name, turn)
    apart = min(abs(here - there), 1 - abs(here - there))

    assert 0 <= there < 1
    assert apart <= JITTER


def test_places_are_spread_evenly() -> None:
    quarters = [int(place(f"http://10.0.0.{n}/", 3) * 4) for n in range(1000)]

    assert min(quarters.count(quarter) for quarter in range(4)) > 200
