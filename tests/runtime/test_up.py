from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from msgspec.structs import replace

from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import NotRunningError, UnavailableError
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


class Unstarted(FakeService):
    def replicas(self) -> tuple[Replica, ...]:
        raise NotRunningError("no supervisor is running")


def test_an_engine_that_was_never_started_runs_nothing() -> None:
    assert len(live_replicas(FakeService(VirtualClock()).start(2))) == 2
    assert live_replicas(Unstarted(VirtualClock())) == ()


def test_where_an_engine_does_not_say_what_runs_nothing_is_started_that_may_undo_it() -> None:
    service = FakeService(VirtualClock()).start(2)
    service.unreachable = True

    with pytest.raises(UnavailableError):
        live_replicas(service)


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


@pytest.mark.parametrize(("silent_for", "waited"), [(2.0, 2.0), (99.0, 10.0)])
def test_a_balancer_that_does_not_answer_yet_is_waited_for(silent_for: float, waited: float) -> None:
    clock = VirtualClock()
    begun = clock.monotonic()

    def idle(_services: Sequence[str]) -> tuple[str, ...]:
        if clock.monotonic() - begun < silent_for:
            raise UnavailableError("loadbalancer-1: no answer")
        return ()

    with nullcontext() if waited < 10 else pytest.raises(UnavailableError, match="no answer"):
        until_taken_in(a_plan(replace(AGENTS, routes=("/",))), idle, clock, seconds=10)
    assert clock.monotonic() - begun == waited


def test_waiting_for_a_balancer_ends_when_the_operator_says_so() -> None:
    clock = VirtualClock()
    clock.stop_at = clock.time + 1.0
    balancer = FakeBalancer(clock, finds_after=clock.monotonic() + 99)

    plan = replace(a_plan(), services=(replace(AGENTS, routes=("/",)),))

    assert until_taken_in(plan, balancer.idle, clock, seconds=10) == ("agents",)
    assert clock.time == clock.stop_at
