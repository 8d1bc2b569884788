import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from cfscale.core.counters import Reading, usages
from cfscale.core.decision import Action, Decision, Entry, Kind, unfinished
from cfscale.core.foresight import Loads
from cfscale.core.history import History, Remembered
from cfscale.core.plan import Damping, Policy, Scaling
from cfscale.core.plan import Service as PlanService
from cfscale.core.policy import Observation, Pause
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.core.units import GIB
from cfscale.errors import LockedError
from cfscale.runtime.act import Hands, victims
from cfscale.runtime.watch import LEARNED_AT_ONCE, Scaler
from tests.fake_service import (
    AGENTS,
    SCALING,
    FakeBalancer,
    FakeJournal,
    FakeLock,
    FakeMemory,
    FakeService,
    VirtualClock,
    a_plan,
    a_replica,
    a_usage,
)

QUICK = replace(SCALING, scale_up=Damping(0.0, 0.0, 100, 4), scale_down=Damping(0.0, 0.0, 50, None))


@dataclass(slots=True)
class Lab:
    """A scaler with everything around it at hand."""

    clock: VirtualClock
    service: FakeService
    balancer: FakeBalancer
    journal: FakeJournal
    lock: FakeLock
    memory: FakeMemory
    warnings: list[str] = field(default_factory=list)
    scaling: Scaling = QUICK

    def scaler(self, *, apply: bool = True) -> Scaler:
        hands = Hands(self.service, self.clock, self.journal, self.lock, self.balancer)
        plan = a_plan(AGENTS, self.scaling)
        return Scaler(
            self.service, plan, (AGENTS,), self.clock, self.memory, self.warnings.append, hands if apply else None
        )

    def tick(self) -> Decision:
        """One evaluation by a scaler that remembers what the last one stored."""
        scaler = self.scaler()
        scaler.begin(self.journal.lines)
        (decision,) = scaler.tick()
        return decision

    @property
    def kinds(self) -> list[Kind]:
        return [line.kind for line in self.journal.lines]


@pytest.fixture
def lab() -> Callable[..., Lab]:
    def build(load: float, replicas: int) -> Lab:
        clock = VirtualClock()
        service = FakeService(clock, lambda _time: load, startup_seconds=5.0).start(replicas)
        return Lab(clock, service, FakeBalancer(clock), FakeJournal(), FakeLock(), FakeMemory())

    return build


def test_without_hands_nothing_is_touched_or_written(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    decisions = list(here.scaler(apply=False).watch(60.0))
    assert len(decisions) == 6
    assert all(decision.action is Action.SCALE_UP and not decision.applied for decision in decisions)
    assert (here.service.calls, here.journal.lines, here.memory.stored) == ([], [], {})


def test_growth_is_journalled_before_and_after(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    decision = here.tick()
    assert (decision.action, decision.applied, len(here.service.members)) == (Action.SCALE_UP, True, 3)
    intent, result = here.journal.lines
    assert (intent.kind, result.kind, intent.id) == (Kind.INTENT, Kind.RESULT, result.id)
    assert (intent.decision.applied, result.decision) == (False, decision)


def test_a_shrink_drains_waits_stops_and_frees_the_slots(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    before = here.clock.time
    assert here.tick().applied
    assert here.balancer.calls == ["drain 10.0.0.1:8080", "ready 10.0.0.1:8080"]
    assert here.service.calls == ["shrink 1 agents-1"]
    assert here.clock.time - before == pytest.approx(3.0, abs=0.3)


def test_the_balancer_is_told_what_each_replica_has_free(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.tick()

    assert here.balancer.weights == {"10.0.0.1:8080": 50, "10.0.0.2:8080": 50}


def test_weights_that_cannot_be_told_stop_nothing(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.balancer.unreachable = True

    assert here.tick().applied
    assert here.warnings == ["new agents go by the weights of before: balancer: connection refused"]


def test_without_hands_nobody_is_weighed(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    list(here.scaler(apply=False).tick())

    assert here.balancer.weights == {}


def test_a_replica_that_stays_busy_is_waited_for_no_longer_than_its_grace(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.balancer.busy_seconds = 1e6
    before = here.clock.time
    assert here.tick().applied
    assert here.clock.time - before == pytest.approx(AGENTS.stop_grace_seconds, abs=0.3)


def test_no_balancer_no_shrink_but_growth_goes_on(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.balancer.unreachable = True
    decision = here.tick()
    assert (decision.action, here.service.calls, here.kinds) == (Action.HOLD, [], [Kind.DECISION])
    assert "no shrinking while the balancer does not answer" in decision.reason
    here.service.load = lambda _time: 4.0
    assert here.tick().applied


def test_a_drain_that_fails_leaves_everybody_in_rotation(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.balancer.deaf = True
    decision = here.tick()
    assert (decision.applied, len(here.service.members)) == (False, 2)
    assert "drain was not answered; 0 of 1 stopped, 2 running" in decision.reason


def test_without_a_journal_nothing_shrinks_and_growth_raises_the_alarm(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.journal.full = True
    assert "no shrinking without a journal" in here.tick().reason
    assert here.service.calls == []
    here.service.load = lambda _time: 4.0
    assert here.tick().applied
    assert any("no space left on device: agents grows all the same" in warning for warning in here.warnings)


def test_memory_that_cannot_be_kept_is_a_warning(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.memory.full = True
    assert here.tick().action is Action.HOLD
    assert here.warnings == ["state: no space left on device"]


def test_an_action_that_takes_effect_in_part_says_how_far_it_came(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=4)
    here.service.load, here.service.grows_at_most = (lambda _time: 5.0), 0
    scaler = here.scaler()
    (decision,) = scaler.tick()
    assert (decision.action, decision.applied, scaler.codes) == (Action.SCALE_UP, False, {"agents": 1})
    assert decision.reason.endswith("no room for more; 0 of 1 started, 4 running")


def test_fault_36_what_fails_is_not_repeated_blindly(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.service.grows_at_most = 0
    decisions = list(here.scaler().watch(600.0))
    attempts = [index for index, decision in enumerate(decisions) if decision.action is Action.SCALE_UP]
    assert attempts == [0, 2, 6]
    assert "3 actions in a row did not take effect" in decisions[-1].reason


def test_fault_36_the_next_attempt_waits_from_the_end_of_one_that_failed_slowly(lab: Callable[..., Lab]) -> None:
    class Slow(FakeService):
        def grow(self, service: PlanService, count: int) -> None:
            self.clock.wait(100.0)
            FakeService.grow(self, service, count)

    here = lab(load=4.0, replicas=2)
    here.service = Slow(here.clock, load=lambda _time: 4.0, members=here.service.members, grows_at_most=0)
    scaler = here.scaler()
    (failed,) = scaler.tick()
    (waiting,) = scaler.tick()
    assert (failed.applied, waiting.action) == (False, Action.HOLD)
    assert "did not take effect: next attempt in" in waiting.reason


def test_an_engine_out_of_reach_is_a_hold_and_the_loop_goes_on(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.service.unreachable = True
    scaler = here.scaler()
    decisions = []
    for decision in scaler.watch(40.0):
        decisions.append(decision)
        here.service.unreachable = len(decisions) < 2
    assert [decision.action for decision in decisions[:3]] == [Action.HOLD, Action.HOLD, Action.SCALE_UP]
    assert decisions[0].reason == "engine: connection refused"


def test_what_was_taken_down_is_not_raised_to_its_minimum(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.service.members = []
    decision = here.tick()
    assert (decision.action, here.service.calls) == (Action.HOLD, [])
    assert "start it with 'cfscale up'" in decision.reason


def test_a_service_that_died_out_is_raised_to_its_minimum(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.service.members = [replace(member, state=ReplicaState.STOPPED) for member in here.service.members]
    here.memory.stored = {"agents": History(replicas=0)}
    assert here.scaler().plan.services[0].min_replicas == 1
    assert "the minimum is 1" in here.tick().reason


def test_missing_data_is_no_verdict(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.service.blind = True
    scaler = here.scaler(apply=False)
    (decision,) = scaler.tick()
    assert (decision.action, decision.samples, scaler.codes) == (Action.HOLD, (), {"agents": 3})


def test_holds_are_journalled_once_per_change_of_reason(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    decisions = iter(here.scaler().watch(100.0))
    for number, _ in enumerate(decisions):
        here.service.load = lambda _time, number=number: 1.0 + number / 100  # type: ignore[misc]
        here.service.blind = number >= 4
    assert [line.decision.reason for line in here.journal.lines] == [
        "cpu 50%, memory 30%: within the bands",
        "no usable metrics: nothing is changed",
    ]


def test_a_hold_that_the_last_run_wrote_is_not_written_again(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.tick()
    here.tick()
    assert here.kinds == [Kind.DECISION]


def test_fault_32_a_lost_lock_ends_the_loop_before_anything_is_done(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.lock.lost = True
    with pytest.raises(LockedError):
        here.tick()
    assert (here.service.calls, here.journal.lines) == ([], [])


def test_a_pause_is_obeyed(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.memory.pause = Pause(scale_out_until=here.clock.time + 60)
    assert "scaling out is paused" in here.tick().reason


def test_cooldowns_survive_a_restart(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.scaling = SCALING
    assert here.tick().applied
    here.clock.time += 25
    assert "cooling down for 5s" in here.tick().reason
    here.clock.time += 5
    assert here.tick().applied


ALREADY = float("-inf")  # ready at once, whatever the clock was set to since the start


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["forward", "back"])
@pytest.mark.parametrize("restarts", [True, False], ids=["while-it-was-away", "under-way"])
def test_a_clock_that_is_set_neither_ends_a_cooldown_nor_prolongs_it(
    lab: Callable[..., Lab], step: float, *, restarts: bool
) -> None:
    here = lab(load=4.0, replicas=2)
    here.scaling, here.service.startup_seconds = SCALING, ALREADY
    scaler = here.scaler()

    def tick() -> Decision:
        return here.tick() if restarts else next(iter(list(scaler.tick())))

    assert tick().applied
    here.clock.time += 15
    here.clock.set_forward(step)
    assert "cooling down for 15s" in tick().reason
    here.clock.time += 10
    assert "cooling down for 5s" in tick().reason
    here.clock.time += 5
    assert tick().applied


def test_minutes_kept_move_with_a_clock_that_is_set_between_two_scalers(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.5, replicas=3)
    here.scaling = replace(SCALING, policies=(Policy("slo"),))

    def watched(seconds: float) -> int:
        scaler = here.scaler()
        scaler.begin()
        list(scaler.watch(seconds))
        return len(here.memory.stored_loads["agents"].loads)

    before = watched(1800.0)
    here.clock.set_forward(-600.0)

    assert before < watched(180.0) < before + 6


def test_a_single_evaluation_learns_all_that_is_kept_however_many_services_there_are(lab: Callable[..., Lab]) -> None:
    here, names = lab(load=1.5, replicas=3), ("agents", "tasks")
    plan = a_plan(AGENTS, replace(SCALING, policies=(Policy("slo"),)))
    minutes = LEARNED_AT_ONCE // len(names) + 100
    kept = Loads(here.clock.time - 60 * minutes, (1.5,) * minutes, (0.5,) * minutes)
    here.memory.stored_loads = dict.fromkeys(names, kept)
    services = tuple(replace(AGENTS, name=name) for name in names)
    scaler = Scaler(here.service, plan, services, here.clock, here.memory, here.warnings.append)

    scaler.begin()
    first, _ = scaler.once()

    assert "replicas' load expected within" in first.reason


def test_the_clock_set_while_an_action_is_under_way_starts_no_cooldown_in_the_future(lab: Callable[..., Lab]) -> None:
    class Slow(FakeService):
        def grow(self, service: PlanService, count: int) -> None:
            FakeService.grow(self, service, count)
            self.clock.set_forward(-3600.0)

    here = lab(load=4.0, replicas=2)
    here = dataclasses.replace(
        here,
        scaling=SCALING,
        service=Slow(here.clock, here.service.load, startup_seconds=ALREADY, members=here.service.members),
    )
    assert here.tick().applied
    here.clock.time += 20
    assert "cooling down for 10s" in here.tick().reason


def test_a_count_changed_from_outside_is_adopted_and_journalled(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.tick()
    here.service.start(4)
    assert here.tick().reason == "the count was changed from outside from 2 to 4: adopted"
    assert (here.kinds[-1], here.journal.lines[-1].decision.current) == (Kind.DECISION, 4)


def test_an_action_cut_short_is_reported_undone_and_counted_again(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    assert here.tick().applied
    here.journal.lines.pop()
    here.service.start(3)
    scaler = here.scaler()
    here.balancer.calls.clear()
    scaler.begin(here.journal.lines)
    assert here.balancer.calls[0].startswith("ready ")
    assert "cut short" in here.warnings[0]
    assert unfinished(here.journal.lines) == ()
    (decision,) = scaler.tick()
    assert "outside" not in decision.reason
    assert here.memory.stored["agents"].changed_at is not None


def test_taking_up_goes_on_where_the_balancer_or_the_engine_is_gone(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.tick()
    here.journal.lines.pop()
    here.service.unreachable = True
    here.scaler().begin(here.journal.lines)
    assert "may still be out of rotation" in here.warnings[-1]


def test_fault_40_asked_to_stop_while_draining_it_undoes_the_drain(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    here.clock.stop_at = here.clock.time + 2.5
    here.balancer.busy_seconds = 1e6
    (decision,) = here.scaler().watch()
    assert (decision.applied, len(here.service.members)) == (False, 2)
    assert "interrupted while draining: undone" in decision.reason
    assert here.balancer.calls[-1].startswith("ready ")
    assert unfinished(here.journal.lines) == ()


def test_asked_to_stop_it_ends_after_the_tick_in_hand(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.clock.stop_at = here.clock.time + 25
    assert len(list(here.scaler().watch())) == 3
    here.clock.stop_at = here.clock.time
    assert list(here.scaler().watch()) == []


def test_ticks_keep_their_rhythm_and_a_late_one_is_reported(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    times = []
    for _ in here.scaler().watch(60.0):
        times.append(here.clock.time)
        here.clock.time += 25 if len(times) == 2 else 1
    assert [time - times[0] for time in times] == [0, 10, 36, 46, 56]
    assert here.warnings == ["the tick took 15s longer than the interval"]


@dataclass(slots=True)
class Overloaded(FakeService):
    """Replicas whose checks time out as long as they are full, and whose CPU is counted from one look to the next."""

    looked: dict[str, Reading] = field(default_factory=dict)
    checked_at: float = 0.0

    def replicas(self) -> tuple[Replica, ...]:
        """Each look takes the checks' time limit, but for one that comes within a second."""
        full = self.load(self.clock.time) >= len(self.members)
        if self.clock.time - self.checked_at >= 1.0:
            self.clock.time += 3.0 if full else 0.0
            self.checked_at = self.clock.time
        found = FakeService.replicas(self)
        return tuple(
            replace(one, state=ReplicaState.UNHEALTHY) if full and one.started_at == 0 else one for one in found
        )

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        now, count = self.clock.time, len(self.members)
        used = sum(min(1.0, self.load(second) / count) for second in range(int(now) - 1000, int(now)))
        readings = [Reading(one.id, "fake", now, now, "", used, GIB // 2, cpu_limit_cores=1.0) for one in replicas]
        found, self.looked = usages(self.looked, readings)
        return found


def test_replicas_too_busy_to_answer_their_checks_do_not_blind_the_scaler() -> None:
    """An interval of a second, checks of three: each tick is late, and all replicas fail while the load lasts."""
    clock = VirtualClock()
    begin = clock.time + 5.0
    service = Overloaded(clock, lambda time: 6.0 if time >= begin else 0.5, startup_seconds=4.0)
    service.start(2)
    scaling = replace(QUICK, interval_seconds=1.0)
    here = Lab(clock, service, FakeBalancer(clock), FakeJournal(), FakeLock(), FakeMemory(), scaling=scaling)
    decisions = list(here.scaler().watch(60.0))
    assert [one for one in decisions if one.applied and one.action is Action.SCALE_UP], [
        one.reason for one in decisions
    ]
    assert len(service.members) > 6


def test_victims_are_the_sick_then_the_starting_then_the_least_busy() -> None:
    replicas = tuple(a_replica(number) for number in range(1, 5))
    sick, new = a_replica(5, ReplicaState.UNHEALTHY), a_replica(6, ReplicaState.STARTING)
    usages = tuple(a_usage(number, cpu) for number, cpu in ((1, 0.5), (2, 0.1), (3, 0.9)))
    observation = Observation(AGENTS, "process", 0.0, (*replicas, new, sick), usages)
    assert [victim.name for victim in victims(observation, 1)] == [f"agents-{n}" for n in (5, 6, 2, 1, 3)]


def test_a_service_that_the_balancer_does_not_know_is_not_drained(lab: Callable[..., Lab]) -> None:
    here = lab(load=0.2, replicas=2)
    plain = replace(AGENTS, routes=())
    scaler = here.scaler()
    scaler.services = (plain,)
    (decision,) = scaler.tick()
    assert (decision.applied, here.balancer.calls) == (True, [])


def test_a_result_that_cannot_be_verified_is_not_called_done(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    grow = here.service.grow

    class Fading(FakeService):
        def grow(self, service: PlanService, count: int) -> None:
            grow(service, count)
            self.unreachable = True

    here.service = Fading(here.clock, here.service.load, members=here.service.members)
    decision = here.tick()
    assert (decision.applied, here.memory.stored["agents"].replicas) == (False, None)
    assert "the result is not known" in decision.reason


def test_a_history_is_kept_for_each_service(lab: Callable[..., Lab]) -> None:
    here = lab(load=1.0, replicas=2)
    here.memory.stored = {"other": History(replicas=9)}
    here.tick()
    assert sorted(here.memory.stored) == ["agents", "other"]


class KilledError(BaseException):
    """What ends a process in the middle of anything."""


@dataclass(slots=True)
class Fuse:
    """Kills at the n-th thing that is done."""

    left: int

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


def fused(here: Lab, fuse: Fuse) -> Lab:
    """The lab with a fuse before and after each step that leaves a trace."""

    class Service(FakeService):
        def grow(self, service: PlanService, count: int) -> None:
            fuse.burn()
            FakeService.grow(self, service, count)
            fuse.burn()

        def shrink(self, service: PlanService, count: int, victims: Sequence[Replica]) -> None:
            fuse.burn()
            FakeService.shrink(self, service, count, victims)
            fuse.burn()

    class Journal(FakeJournal):
        def write(self, entry: Entry) -> None:
            fuse.burn()
            FakeJournal.write(self, entry)
            fuse.burn()

    class Memory(FakeMemory):
        def remember(self, remembered: Remembered) -> None:
            fuse.burn()
            FakeMemory.remember(self, remembered)
            fuse.burn()

    old = here.service
    service = Service(old.clock, old.load, startup_seconds=old.startup_seconds, members=old.members, born=old.born)
    return dataclasses.replace(here, service=service, journal=Journal(), memory=Memory())


@pytest.mark.parametrize("load", [4.0, 0.2], ids=["growing", "shrinking"])
@pytest.mark.parametrize("step", range(1, 9))
def test_fault_33_killed_at_any_step_the_next_run_converges_and_the_journal_is_whole(
    lab: Callable[..., Lab], load: float, step: int
) -> None:
    first = fused(lab(load=load, replicas=4), Fuse(step))
    with pytest.raises(KilledError):
        list(first.scaler().watch(60.0))
    again = dataclasses.replace(
        first,
        service=FakeService(first.clock, first.service.load, members=first.service.members, born=first.service.born),
        journal=FakeJournal(first.journal.lines),
        memory=FakeMemory(first.memory.stored),
    )
    scaler = again.scaler()
    scaler.begin(again.journal.lines)
    decisions = list(scaler.watch(600.0))
    assert len(again.service.members) == {4.0: 5, 0.2: 1}[load]
    assert all(decision.applied for decision in decisions if decision.action is not Action.HOLD)
    assert unfinished(again.journal.lines) == ()
    assert len({member.id for member in again.service.members}) == len(again.service.members)


def test_asked_to_stop_before_the_only_tick_it_decides_nothing(lab: Callable[..., Lab]) -> None:
    here = lab(load=4.0, replicas=2)
    here.clock.stop_at = here.clock.time
    assert list(here.scaler().once()) == []
    assert here.service.calls == []
