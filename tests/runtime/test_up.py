import pytest
from msgspec.structs import replace

from cfscale.core.samples import ReplicaState
from cfscale.runtime.up import counts_to_start, live_replicas
from tests.fake_service import AGENTS, FakeService, VirtualClock, a_plan, a_replica


@pytest.mark.parametrize(
    ("live", "expected"), [(0, 2), (1, 1), (7, 7), (12, 10)], ids=["nothing runs", "min", "scaled", "above max"]
)
def test_what_scaling_has_made_of_it_is_kept_within_the_bounds(live: int, expected: int) -> None:
    running = [a_replica(number) for number in range(live)]

    assert counts_to_start(a_plan(), running, reset=False) == {"agents": expected}


def test_a_reset_starts_what_the_plan_says() -> None:
    running = [a_replica(number) for number in range(7)]

    assert counts_to_start(a_plan(), running, reset=True) == {"agents": 2}


def test_a_fixed_count_is_not_what_runs_but_what_is_planned() -> None:
    fixed = replace(AGENTS, replicas=3, min_replicas=3, max_replicas=3)

    assert counts_to_start(a_plan(fixed), [a_replica(1)], reset=False) == {"agents": 3}


@pytest.mark.parametrize("state", [ReplicaState.STOPPED, ReplicaState.DRAINING])
def test_what_is_on_its_way_out_does_not_count(state: ReplicaState) -> None:
    running = [a_replica(1), a_replica(2), a_replica(3), a_replica(4, state)]

    assert counts_to_start(a_plan(), running, reset=False) == {"agents": 3}


def test_an_engine_that_was_never_started_runs_nothing() -> None:
    service = FakeService(VirtualClock()).start(2)
    assert len(live_replicas(service)) == 2

    service.unreachable = True
    assert live_replicas(service) == ()
