"""A state machine of everything that may happen to the scaler, and what must hold whatever happens.

The engine, the balancer, the journal, the state file, the clock, the operator and the scaler's own life misbehave in any
order. After each step: never outside the bounds by the scaler's doing, never fewer on data that cannot be trusted,
never two changes within a cooldown, and nothing in the journal that the next start would not take up.
"""

from collections.abc import Sequence
from contextlib import suppress

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from cfscale.core.decision import Action, Decision, Kind, unfinished
from cfscale.core.plan import Damping
from cfscale.core.plan import Service as PlanService
from cfscale.core.samples import Quality, Replica, Usage
from cfscale.errors import LockedError
from cfscale.runtime.act import Hands
from cfscale.runtime.watch import Scaler
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
)

LEAST, MOST = 2, 8
SERVICE = replace(AGENTS, min_replicas=LEAST, max_replicas=MOST)
COOLING = replace(
    SCALING, scale_up=Damping(0.0, 30.0, 100, 4), scale_down=Damping(20.0, 60.0, 50, None), interval_seconds=10.0
)


class KilledError(BaseException):
    """Kill -9."""


class Faulty(FakeService):
    """Measures with the quality that it is told, and can be killed within an action."""

    quality: Quality = Quality.OK
    age: float = 0.0
    fuse: int = 0

    def burn(self) -> None:
        self.fuse -= 1
        if self.fuse == 0:
            raise KilledError

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        found = FakeService.usage(self, replicas)
        return tuple(replace(one, quality=self.quality, taken_at=one.taken_at - self.age) for one in found)

    def grow(self, service: PlanService, count: int) -> None:
        self.burn()
        FakeService.grow(self, service, count)
        self.burn()

    def shrink(self, service: PlanService, count: int, victims: Sequence[Replica]) -> None:
        self.burn()
        FakeService.shrink(self, service, count, victims)
        self.burn()


class ScalerUnderFaults(RuleBasedStateMachine):
    """The scaler and everything around it."""

    @initialize(count=st.integers(LEAST, MOST))
    def begin(self, count: int) -> None:
        self.clock = VirtualClock()
        self.load = 2.0
        self.service = Faulty(self.clock, lambda _time: self.load, startup_seconds=15.0)
        self.service.start(count)
        self.balancer, self.journal = FakeBalancer(self.clock), FakeJournal()
        self.lock, self.memory = FakeLock(), FakeMemory()
        self.changes: list[tuple[float, Action, int]] = []
        self.decision: Decision | None = None
        self.trusted, self.unwritten = True, False
        self.start_again()

    def start_again(self) -> None:
        if self.unwritten:  # on a full disk neither the intent nor its result was kept
            self.changes.clear()
            self.unwritten = False
        hands = Hands(self.service, self.clock, self.journal, self.lock, self.balancer)
        plan = a_plan(SERVICE, COOLING)
        self.scaler = Scaler(self.service, plan, (SERVICE,), self.clock, self.memory, lambda _: None, hands)
        self.scaler.begin(tuple(self.journal.lines))

    @rule(times=st.integers(1, 6))
    def time_passes(self, times: int) -> None:
        for _ in range(times):
            self.tick()
            self.one_change_per_cooldown()

    def tick(self) -> None:
        before, calls = len(self.service.members), len(self.service.calls)
        quality, age, blind = self.service.quality, self.service.age, self.service.blind
        self.trusted = quality in (Quality.OK, Quality.APPROX) and age < 30 and not blind
        killed = False
        try:
            (self.decision,) = self.scaler.tick()
        except KilledError:
            self.decision = None
            killed = True
        after = len(self.service.members)
        if len(self.service.calls) > calls and after != before:
            action = Action.SCALE_UP if after > before else Action.SCALE_DOWN
            self.changes.append((self.clock.time, action, before))
            assert after <= max(MOST, before)
            assert after >= min(LEAST, before)
            assert action is Action.SCALE_UP or self.trusted
            self.unwritten = self.memory.full
        self.unwritten &= killed or self.memory.full
        if killed:
            self.start_again()
        self.clock.time += 10.0

    @rule(load=st.floats(0.0, 12.0))
    def the_load_changes(self, load: float) -> None:
        self.load = load
        self.time_passes(2)

    @rule(quality=st.sampled_from(Quality), age=st.sampled_from([0.0, 0.0, 45.0, 4000.0]), blind=st.booleans())
    def measuring_changes(self, quality: Quality, age: float, *, blind: bool) -> None:
        self.service.quality, self.service.age, self.service.blind = quality, age, blind

    @rule(down=st.booleans())
    def the_engine_goes_or_comes(self, *, down: bool) -> None:
        self.service.unreachable = down

    @rule(most=st.sampled_from([0, 1, 1000]))
    def the_engine_has_room_for(self, most: int) -> None:
        self.service.grows_at_most = most

    @rule(unreachable=st.booleans(), deaf=st.booleans(), busy=st.sampled_from([0.0, 3.0, 1e6]))
    def the_balancer_changes(self, busy: float, *, unreachable: bool, deaf: bool) -> None:
        self.balancer.unreachable, self.balancer.deaf, self.balancer.busy_seconds = unreachable, deaf, busy

    @rule(full=st.booleans())
    def the_disk_fills_or_empties(self, *, full: bool) -> None:
        self.journal.full = self.memory.full = full

    @rule(step=st.integers(1, 2), load=st.sampled_from([0.1, 12.0]))
    def it_is_killed_within_an_action(self, step: int, load: float) -> None:
        self.service.fuse, self.load = step, load
        self.time_passes(8)

    @rule()
    def it_is_started_again(self) -> None:
        self.start_again()

    @rule(jump=st.sampled_from([-3600.0, 3600.0]))
    def the_clock_jumps(self, jump: float) -> None:
        self.clock.set_forward(jump)
        # how long a replica of the fake takes to start is told by its clock
        self.service.members = [replace(one, started_at=one.started_at + jump) for one in self.service.members]
        self.changes = [(time + jump, action, before) for time, action, before in self.changes]

    @rule(count=st.integers(1, MOST + 2))
    def somebody_scales_by_hand(self, count: int) -> None:
        self.service.members = self.service.members[:count]
        while len(self.service.members) < count:
            self.service.born += 1
            born = replace(self.service.members[0], id=f"hand-{self.service.born}", started_at=self.clock.time)
            self.service.members.append(born)

    @precondition(lambda self: not self.lock.lost)
    @rule()
    def the_lock_is_lost_for_one_tick(self) -> None:
        calls, lines, stored = len(self.service.calls), len(self.journal.lines), self.memory.stored
        self.lock.lost = True
        with suppress(LockedError):
            list(self.scaler.tick())
        self.lock.lost = False
        assert (len(self.service.calls), len(self.journal.lines)) == (calls, lines)
        assert self.memory.stored == stored
        self.start_again()

    @invariant()
    def one_change_per_cooldown(self) -> None:
        for (before, *_), (after, action, count) in zip(self.changes, self.changes[1:], strict=False):
            damping = COOLING.scale_up if action is Action.SCALE_UP else COOLING.scale_down
            # a count below the minimum is raised at once
            assert count < LEAST or after - before >= damping.cooldown_seconds

    @invariant()
    def intents_have_results(self) -> None:
        if self.journal.full:
            return
        open_intents = unfinished(self.journal.lines)
        assert all(line.kind is Kind.INTENT for line in open_intents)
        assert len(open_intents) <= 1

    def teardown(self) -> None:
        """When all faults are over it converges to what the load asks for, whatever happened before."""
        if not hasattr(self, "service"):
            return
        self.service.unreachable = self.service.blind = self.journal.full = self.memory.full = False
        self.balancer.unreachable = self.balancer.deaf = False
        self.service.quality, self.service.age, self.service.fuse, self.service.grows_at_most = Quality.OK, 0.0, 0, 1000
        self.balancer.busy_seconds, self.load = 0.0, 2.9
        self.start_again()
        for _ in range(400):
            list(self.scaler.tick())
            self.clock.time += 10.0
        count = len(self.service.members)
        assert 4 <= count <= 9
        assert count <= MOST
        assert unfinished(self.journal.lines) == ()


TestScalerUnderFaults = ScalerUnderFaults.TestCase
TestScalerUnderFaults.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
