from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.laws import combine, laws_of
from cfscale.core.policy import Observation, resource
from cfscale.core.samples import Quality, ReplicaState, Sample, Usage
from cfscale.core.situation import situation_of
from cfscale.core.units import GIB, MIB, percent
from tests.fake_service import AGENTS, SCALING, a_replica, a_usage

NOW = 1000.0
STARTING, UNHEALTHY, PAUSED = ReplicaState.STARTING, ReplicaState.UNHEALTHY, ReplicaState.PAUSED


def observed(*usages: Usage | None, others: tuple[ReplicaState, ...] = ()) -> Observation:
    """A ready replica for each usage (None: it does not report), and others in these states."""
    ready = [a_replica(number) for number in range(1, len(usages) + 1)]
    rest = [a_replica(100 + number, state) for number, state in enumerate(others)]
    return Observation(AGENTS, "process", NOW, (*ready, *rest), tuple(usage for usage in usages if usage))


def busy(*cpus: float | None, memory: float = 0.5) -> list[Usage]:
    return [a_usage(number, cpu, memory, NOW) for number, cpu in enumerate(cpus, start=1)]


class Said(Struct, frozen=True):
    """A proposal, and what the situation it rests on says."""

    replicas: int
    reason: str
    shrinkable: bool
    critical: bool
    samples: tuple[Sample, ...]


def said(observation: Observation) -> Said:
    situation = situation_of(observation, SCALING)
    proposal = combine(situation, SCALING, [law(situation, SCALING) for law in laws_of(SCALING)])
    return Said(proposal.replicas, proposal.reason, proposal.shrinkable, situation.critical(SCALING), situation.samples)


def proposed(*usages: Usage | None, others: tuple[ReplicaState, ...] = ()) -> Said:
    return said(observed(*usages, others=others))


@pytest.mark.parametrize(
    ("cpus", "memory", "expected"),
    [
        pytest.param([0.8, 0.8], 0.5, 2, id="at the upper threshold"),
        pytest.param([0.81, 0.81], 0.5, 3, id="just above it"),
        pytest.param([1.0, 1.0, 1.0, 1.0], 0.5, 5, id="saturated"),
        pytest.param([0.3, 0.3], 0.5, 2, id="at the lower threshold"),
        pytest.param([0.1, 0.1, 0.1, 0.1], 0.1, 1, id="idle"),
        pytest.param([0.0, 0.0], 0.0, 1, id="never below one"),
        pytest.param([0.5, 0.5], 0.5, 2, id="within the band"),
        pytest.param([0.1, 0.1], 0.9, 3, id="memory grows while cpu idles"),
        pytest.param([0.9, 0.9], 0.99, 3, id="the larger wish wins"),
        pytest.param([0.1] * 4, 0.7, 4, id="memory vetoes a shrink it could not hold"),
        pytest.param([0.1] * 4, 0.5, 3, id="memory allows the shrink it can hold"),
        pytest.param([1.0, 0.2, 0.2, 0.2], 0.5, 4, id="the mean counts, not the peak"),
    ],
)
def test_the_count_carries_the_load_at_the_upper_threshold(cpus: list[float], memory: float, expected: int) -> None:
    assert proposed(*busy(*cpus, memory=memory)).replicas == expected


def test_a_starting_replica_counts_as_capacity_on_its_way_up() -> None:
    proposal = proposed(*busy(1.0, 1.0), others=(STARTING,))
    assert proposal.replicas == 3
    assert "1 still starting" in proposal.reason


def test_starting_replicas_that_are_too_few_do_not_hold_growth_back() -> None:
    assert proposed(*busy(1.0, 1.0, 1.0, 1.0, 1.0), others=(STARTING,)).replicas == 7


def test_a_starting_replica_never_counts_as_idle() -> None:
    assert proposed(*busy(0.5, 0.5), others=(STARTING,) * 6).replicas == 8


def test_unhealthy_replicas_never_make_it_grow_without_end() -> None:
    assert proposed(*busy(1.0), others=(UNHEALTHY,) * 5).replicas == 6


def failing(cpu: float, proven: bool = True) -> Said:  # noqa: FBT001, FBT002 - what the tests below are about
    """Two ready replicas at 90 % of CPU, and two that fail their checks."""
    seen = observed(*busy(0.9, 0.9), others=(UNHEALTHY, UNHEALTHY))
    sick = [replica.id for replica in seen.replicas if replica.state is UNHEALTHY]
    more = tuple(replace(a_usage(1, cpu, 0.5, NOW), replica=one) for one in sick)
    return said(replace(seen, usages=(*seen.usages, *more), proven=frozenset(sick if proven else ())))


def test_replicas_that_fail_their_checks_for_want_of_cpu_are_load() -> None:
    proposal = failing(1.0)
    assert proposal.replicas == 5
    assert "cpu 95% is above 80%" in proposal.reason


def test_replicas_that_fail_their_checks_and_do_nothing_are_none() -> None:
    assert failing(0.1).replicas == 4


def test_replicas_that_never_were_ready_and_spin_do_not_make_it_grow() -> None:
    """A broken image: more of the same would spin too."""
    assert failing(1.0, proven=False).replicas == 4


def test_a_service_of_which_all_are_too_busy_to_answer_their_checks_grows() -> None:
    seen = observed(*busy(1.0, 1.0, 1.0))
    sick = tuple(replace(replica, state=UNHEALTHY) for replica in seen.replicas)
    proposal = said(replace(seen, replicas=sick, proven=frozenset(replica.id for replica in sick)))
    assert proposal.replicas == 4


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0, 1), max_size=6), st.sets(st.integers(0, 5))
)
def test_a_replica_that_fails_its_check_never_argues_for_a_shrink(
    ready: list[float], sick: list[float], proven: set[int]
) -> None:
    """Measured or not, fewer are never asked for with it than where it reports nothing."""
    blind = observed(*busy(*ready), others=(UNHEALTHY,) * len(sick))
    ids = [replica.id for replica in blind.replicas if replica.state is UNHEALTHY]
    more = tuple(replace(a_usage(1, cpu, 0.5, NOW), replica=one) for one, cpu in zip(ids, sick, strict=True))
    known = frozenset(one for number, one in enumerate(ids) if number in proven)
    told = said(replace(blind, usages=(*blind.usages, *more), proven=known))
    assert told.replicas >= said(blind).replicas
    assert told.replicas <= max(len(blind.replicas), ceil(sum(ready + sick) / SCALING.cpu.scale_up_ratio - 1e-9))


def test_fault_7_a_paused_replica_forbids_a_shrink() -> None:
    proposal = proposed(*busy(0.1, 0.1), others=(PAUSED,))
    assert (proposal.replicas, proposal.shrinkable) == (3, False)
    assert "1 paused" in proposal.reason


def test_fault_31_nothing_reporting_changes_nothing() -> None:
    proposal = proposed(None, None)
    assert (proposal.replicas, proposal.shrinkable, proposal.samples) == (2, False, ())
    assert "no usable metrics" in proposal.reason


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"cpu_cores": nan}, id="nan"),
        pytest.param({"cpu_cores": inf}, id="infinite"),
        pytest.param({"cpu_cores": -1.0}, id="negative"),
        pytest.param({"cpu_cores": 5000.0}, id="absurd"),
        pytest.param({"cpu_cores": 0.01, "cpu_limit_cores": inf}, id="infinite limit"),
        pytest.param({"memory_bytes": -1}, id="negative memory"),
        pytest.param({"memory_bytes": 1 << 60}, id="absurd memory"),
        pytest.param({"taken_at": NOW - 31}, id="stale"),
        pytest.param({"taken_at": NOW + 3600}, id="from the future"),
        pytest.param({"window_seconds": 31.0}, id="window across a suspension"),
        pytest.param({"quality": Quality.STALE}, id="called stale"),
        pytest.param({"quality": Quality.PARTIAL}, id="partial"),
        pytest.param({"quality": Quality.WARMING, "cpu_cores": None}, id="warming"),
    ],
)
def test_fault_31_a_value_that_cannot_be_trusted_forbids_a_shrink(fault: dict[str, object]) -> None:
    usages = [replace(usage, **fault) for usage in busy(0.05, 0.05, memory=0.1)]
    proposal = proposed(*usages)
    assert (proposal.replicas, proposal.shrinkable) == (2, False)


@pytest.mark.parametrize("fault", [{"cpu_cores": nan}, {"taken_at": 0.0}])
def test_fault_31_bad_values_of_all_replicas_never_make_it_grow(fault: dict[str, float]) -> None:
    usages = [replace(usage, **fault) for usage in busy(1.0, 1.0)]
    assert proposed(*usages).replicas == 2


@pytest.mark.parametrize(("age", "replicas"), [(15.0, 3), (16.0, 2)])
def test_where_intervals_are_short_a_value_counts_for_fifteen_seconds(age: float, replicas: int) -> None:
    """A tick that waits for checks takes longer than three intervals of one second."""
    scaling = replace(SCALING, interval_seconds=1.0)
    for old in ({"taken_at": NOW - age}, {"window_seconds": age}):
        seen = observed(*(replace(usage, **old) for usage in busy(1.0, 1.0)))
        assert resource(situation_of(seen, scaling), scaling).replicas == replicas


def test_a_stale_value_is_shown_with_its_age_and_quality() -> None:
    sample = proposed(*(replace(usage, taken_at=NOW - 60) for usage in busy(0.9, 0.9))).samples[0]
    assert (sample.quality, sample.age_seconds, sample.window_seconds) == (Quality.STALE, 60.0, 1.0)
    assert sample.value_ratio == pytest.approx(0.9)


def test_fewer_than_seventy_percent_reporting_forbids_a_shrink() -> None:
    proposal = proposed(*busy(0.01, 0.01), None, others=())
    assert (proposal.replicas, proposal.shrinkable) == (3, False)
    assert "2 of 3 report cpu" in proposal.reason
    assert proposal.samples[0].quality is Quality.PARTIAL


def test_the_few_that_do_not_report_count_as_full_when_shrinking() -> None:
    assert proposed(*busy(*[0.0] * 7), None, None, None).replicas == 10
    assert proposed(*busy(*[0.0] * 9, memory=0.1), None).replicas == 3


def test_the_few_that_do_not_report_count_as_idle_when_growing() -> None:
    assert proposed(*busy(1.0), None, None).replicas == 3
    assert proposed(*busy(1.0, 1.0, 1.0, 1.0), None).replicas == 5
    assert proposed(*busy(*[1.0] * 8), None).replicas == 10


def test_disk_raises_an_alert_and_never_replicas() -> None:
    proposal = proposed(*(replace(usage, disk_ratio=0.97) for usage in busy(0.5, 0.5)))
    assert (proposal.replicas, proposal.critical) == (2, True)
    assert "alert: disk 97% is above 90%" in proposal.reason


@pytest.mark.parametrize(("cpu", "memory", "critical"), [(0.95, 0.5, False), (0.96, 0.5, True), (0.5, 0.96, True)])
def test_above_95_percent_is_critical(cpu: float, memory: float, *, critical: bool) -> None:
    assert proposed(*busy(cpu, memory=memory)).critical is critical


def test_fault_42_an_oom_kill_is_critical_and_forbids_a_shrink() -> None:
    first, second = busy(0.1, 0.1, memory=0.1)
    proposal = proposed(replace(first, oom_kills=1), second)
    assert (proposal.replicas, proposal.critical, proposal.shrinkable) == (2, True, False)


def test_page_cache_in_active_use_is_not_demand() -> None:
    usages = [replace(usage, memory_bytes=1000 * MIB, reclaimable_bytes=600 * MIB) for usage in busy(0.5)]
    assert proposed(*usages).samples[1].value_ratio == pytest.approx(400 / 1024)


def test_fault_15_a_replica_throttled_at_its_quota_is_saturated_not_half_used() -> None:
    assert proposed(*(replace(usage, throttled_ratio=1.0) for usage in busy(0.5, 0.5))).replicas == 3


@pytest.mark.parametrize(
    ("limit", "request_millicores", "expected"), [(2000, 500, 0.5), (None, 500, 2.0)], ids=["limit", "request"]
)
def test_without_an_enforced_limit_usage_is_measured_against_the_plan(
    limit: int | None, request_millicores: int, expected: float
) -> None:
    usage = replace(a_usage(1, 1.0, time=NOW), cpu_limit_cores=None, memory_limit_bytes=None)
    service = replace(
        AGENTS, cpu_limit_millicores=limit, cpu_request_millicores=request_millicores, memory_limit_bytes=2 * GIB
    )
    cpu, memory = said(replace(observed(usage), service=service)).samples
    assert (cpu.value_ratio, memory.value_ratio) == (expected, 0.25)


@pytest.mark.parametrize(("ratio", "text"), [(0.85, "85%"), (0.8049, "80.5%"), (0.0, "0%"), (1.0, "100%")])
def test_percent_is_exact_to_a_tenth(ratio: float, text: str) -> None:
    assert percent(ratio) == text


def test_use_far_above_a_limit_that_nothing_enforces_is_load() -> None:
    assert proposed(*busy(4.0, 4.0)).replicas == 10
