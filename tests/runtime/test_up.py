import pytest
from msgspec.structs import replace

from cfscale.core.samples import ReplicaState
from cfscale.runtime.up import counts_to_start, live_replicas, until_taken_in
from tests.fake_service import AGENTS, FakeBalancer, FakeService, VirtualClock, a_plan, a_replica


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


@pytest.mark.parametrize(("found_after", "waited", "idle"), [(0.0, 0.0, ()), (2.0, 2.0, ()), (99.0, 10.0, ("agents",))])
def test_a_deployment_is_up_once_its_balancer_has_found_somebody(
    found_after: float, waited: float, idle: tuple[str, ...]
) -> None:
    clock = VirtualClock()
    begun = clock.monotonic()
    services = (replace(AGENTS, routes=("/",)), replace(AGENTS, name="coordinator", routes=()))
    plan = replace(a_plan(), services=services)
    balancer = FakeBalancer(clock, finds_after=begun + found_after)

    assert until_taken_in(plan, balancer.idle, clock, seconds=10) == idle
    assert clock.monotonic() - begun == waited


def test_waiting_for_a_balancer_ends_when_the_operator_says_so() -> None:
    clock = VirtualClock()
    clock.stop_at = clock.time + 1.0
    balancer = FakeBalancer(clock, finds_after=clock.monotonic() + 99)

    plan = replace(a_plan(), services=(replace(AGENTS, routes=("/",)),))

    assert until_taken_in(plan, balancer.idle, clock, seconds=10) == ("agents",)
    assert clock.time == clock.stop_at
