"""What the loop refuses to do: act on what is no longer so, after the lock is lost, or against what befell the replicas."""

import dataclasses
import gc
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sin

import pytest
from msgspec.structs import replace

from cfscale.core.decision import Action, unfinished
from cfscale.core.plan import Damping, Drain, Health, HealthKind
from cfscale.core.plan import Service as PlanService
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import LockedError, UnavailableError
from cfscale.runtime.act import Hands
from tests.fake_service import AGENTS, SCALING, FakeBalancer, FakeService
from tests.runtime.test_watch import Lab, lab

__all__ = ["lab"]
STOPPED = ReplicaState.STOPPED


class Meddled(FakeService):
    """Somebody else changes the count when the scaler looks for the n-th time."""

    at = 0

    def replicas(self) -> tuple[Replica, ...]:
        self.at -= 1
        if self.at == 0:
            self.members.append(replace(self.members[0], id="by-hand", name="agents-9", address="10.0.0.9:8080"))
        return FakeService.replicas(self)


def meddled(here: Lab, at: int) -> Lab:
    service = Meddled(here.clock, here.service.load, startup_seconds=0.0, members=here.service.members)
    service.at = at
    return dataclasses.replace(here, service=service)


@pytest.mark.parametrize("load", [4.0, 0.2], ids=["growing", "shrinking"])
def test_fault_38_a_count_changed_while_it_was_decided_refuses_the_action(lab: Callable[..., Lab], load: float) -> None:
    here = meddled(lab(load=load, replicas=2), at=2)
    decision = here.tick()
    assert (decision.action, here.service.calls, decision.applied) == (Action.HOLD, [], False)
    assert decision.reason.endswith("3 run by now, no longer 2: nothing is changed")
    assert here.tick().reason == "the count was changed from outside from 2 to 3: adopted"


def test_fault_38_a_count_changed_while_it_drained_undoes_the_drain(lab: Callable[..., Lab]) -> None:
    here = meddled(lab(load=0.2, replicas=2), at=3)
    decision = here.tick()
    assert (decision.applied, here.service.calls) == (False, [])
    assert "no longer 2: nothing is changed: undone" in decision.reason
    assert here.balancer.calls == ["drain 10.0.0.1:8080", "ready 10.0.0.1:8080"]


def test_a_victim_that_was_replaced_meanwhile_is_not_stopped_for_its_successor(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)

    class Replaced(FakeService):
        looks = 0

        def replicas(self) -> tuple[Replica, ...]:
            self.looks += 1
            seen = FakeService.replicas(self)
            return tuple(replace(one, id=f"{one.id}-new") for one in seen) if self.looks == 2 else seen

    here.service = Replaced(here.clock, here.service.load, startup_seconds=0.0, members=here.service.members)
    decision = here.tick()
    assert (decision.action, here.service.calls) == (Action.HOLD, [])
    assert "1 of the replicas to be stopped are others by now" in decision.reason


def test_fault_32_a_lock_lost_while_draining_stops_everything_at_once(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)

    class Losing(FakeBalancer):
        def drain(self, addresses: Sequence[str]) -> None:
            FakeBalancer.drain(self, addresses)
            here.lock.lost = True

    here.balancer = Losing(here.clock)
    with pytest.raises(LockedError):
        here.tick()
    assert here.service.calls == []
    assert here.balancer.calls == ["drain 10.0.0.1:8080"]
    assert (len(unfinished(here.journal.lines)), here.memory.stored) == (1, {})


def test_fault_32_a_lock_lost_before_the_result_is_written_leaves_it_to_the_next_holder(
    lab: Callable[..., Lab],
) -> None:
    here = lab(load=4.0, replicas=2)

    class Losing(FakeService):
        def grow(self, service: PlanService, count: int) -> None:
            FakeService.grow(self, service, count)
            here.lock.lost = True

    here.service = Losing(here.clock, here.service.load, members=here.service.members, born=2)
    with pytest.raises(LockedError):
        here.tick()
    assert (len(unfinished(here.journal.lines)), here.memory.stored) == (1, {})
    here.lock.lost = False
    scaler = here.scaler()
    scaler.begin(here.journal.lines)
    assert unfinished(here.journal.lines) == ()


def test_slots_that_could_not_be_given_back_are_given_back_with_the_next_tick(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)

    class Forgetful(FakeBalancer):
        deaf_to_ready = True

        def ready(self, addresses: Sequence[str]) -> None:
            if self.deaf_to_ready:
                raise UnavailableError("balancer: restarting")
            FakeBalancer.ready(self, addresses)

    here.balancer = balancer = Forgetful(here.clock)
    scaler = here.scaler()
    (decision,) = scaler.tick()
    assert (decision.applied, decision.reason.endswith("balancer: restarting")) == (True, True)
    list(scaler.tick())
    assert "10.0.0.1:8080 may still be out of rotation" in here.warnings[-1]
    balancer.deaf_to_ready = False
    list(scaler.tick())
    list(scaler.tick())
    assert balancer.calls.count("ready 10.0.0.1:8080") == 1


def test_a_replica_that_ended_is_neither_a_manual_change_nor_a_cooldown(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.scaling = SCALING
    scaler = here.scaler()
    list(scaler.tick())
    one, two = here.service.members
    here.service.members = [one, replace(two, state=STOPPED, reason="Exited (137)")]
    here.clock.time += 10
    (decision,) = scaler.tick()
    assert here.warnings == ["agents-2 ended (Exited (137)): it is not counted"]
    assert decision.action is Action.SCALE_UP
    assert "outside" not in decision.reason


def test_fault_37_what_ends_right_after_its_start_is_not_added_to(lab: Callable[..., Lab]) -> None:
    here = lab(load=50.0, replicas=6)
    scaler = here.scaler()
    crashing = here.service.members[5]
    reasons = []
    for number in range(1, 30):
        here.service.members[5] = replace(crashing, restarts=4 * number, started_at=here.clock.time)
        (decision,) = scaler.tick()
        reasons.append(decision.reason)
        here.clock.time += 10
    assert len(here.service.members) == 7  # the first look cannot know yet
    assert all(reason.endswith("crash loop of agents-6: more of the same would not help") for reason in reasons[2:])


def test_fault_42_no_shrink_within_the_window_of_a_kill_for_memory(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.scaling = replace(here.scaling, scale_down=Damping(0.0, 60.0, 50, None))
    here.service.members[0] = replace(here.service.members[0], oom_killed_at=here.clock.time - 5, restarts=1)
    assert "killed for lack of memory: no shrinking for another 55s" in here.tick().reason
    here.clock.time += 60
    assert here.tick().applied


DONE = Health(HealthKind.HTTP, path="/tasks", json={"active": "0"})
WORKING = replace(AGENTS, drain=Drain(600.0, DONE))


def finishing(here: Lab, at: float) -> Hands:
    """Hands with a prober to whom a victim says that it is done from this time on."""

    def ask(address: str, health: Health) -> tuple[bool, float, str]:
        assert health is DONE
        return here.clock.time >= at, 0.01, ""

    return Hands(here.service, here.clock, here.journal, here.lock, here.balancer, ask)


@pytest.mark.parametrize(("after", "waited"), [(100.0, 100.0), (1e9, 600.0)], ids=["its own word", "the limit"])
def test_a_replica_at_work_is_waited_for_until_it_says_that_it_is_done(
    lab: Callable[..., Lab], after: float, waited: float
) -> None:
    here = lab(load=0.2, replicas=2)
    begin = here.clock.time
    scaler = here.scaler()
    scaler.services, scaler.hands = (WORKING,), finishing(here, begin + after)
    (decision,) = scaler.tick()
    assert decision.applied
    assert here.clock.time - begin == pytest.approx(waited, abs=0.3)
    assert here.balancer.calls == ["drain 10.0.0.1:8080", "ready 10.0.0.1:8080"]


def test_fault_40_asked_to_stop_while_a_replica_is_at_work_the_drain_is_undone(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    scaler = here.scaler()
    scaler.services, scaler.hands = (WORKING,), finishing(here, 1e12)
    here.clock.stop_at = here.clock.time + 30
    (decision,) = scaler.tick()
    assert (decision.applied, here.service.calls) == (False, [])
    assert "interrupted while draining: undone" in decision.reason
    assert unfinished(here.journal.lines) == ()


def test_fault_41_a_load_that_swings_around_the_threshold_moves_the_count_once_a_cooldown_at_most(
    lab: Callable[..., Lab],
) -> None:
    here = lab(load=1.0, replicas=2)
    here.scaling = replace(SCALING, scale_down=Damping(0.0, 300.0, 50, None))
    here.service.load = lambda time: 3.0 if int(time // 10) % 2 else 0.1
    changes = [(here.clock.time, each.action) for each in here.scaler().watch(3600.0) if each.applied]
    assert len(changes) > 2
    for (before, _), (after, action) in pairwise(changes):
        assert after - before >= (30.0 if action is Action.SCALE_UP else 300.0)


def test_fault_39_equal_bounds_pin_the_count_and_a_count_beyond_them_comes_back(lab: Callable[..., Lab]) -> None:
    here = lab(load=9.0, replicas=3)
    scaler = here.scaler()
    scaler.services = (replace(AGENTS, min_replicas=3, max_replicas=3),)
    list(scaler.tick())
    here.service.load = lambda _time: 0.0
    list(scaler.tick())
    assert here.service.calls == []
    scaler.services = (replace(AGENTS, min_replicas=1, max_replicas=2),)
    here.service.load = lambda _time: 2.9
    here.clock.time += 10
    list(scaler.tick())
    assert len(here.service.members) == 2


def test_a_night_of_ticks_takes_no_more_memory_than_its_first_hour(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=3)
    here.scaling = SCALING
    here.service.load = lambda time: 4.0 + 3.5 * sin(time / 3600.0)
    watched = here.scaler().watch(8 * 3600.0)
    tracemalloc.start()
    try:
        sizes = []
        for number, _ in enumerate(watched):
            here.service.calls.clear()
            here.journal.lines.clear()
            if number in (360, 2870):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    early, late = sizes
    assert late - early < 64 * 1024
