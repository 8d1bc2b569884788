"""Any sequence of loads, faults and hand-made changes against the pure loop with every kind of policy: what must never be.

The model is a fleet that obeys; what is checked after each tick is what the documentation promises.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import replace

from cfscale.core.autoscale import decide
from cfscale.core.decision import Action
from cfscale.core.foresight import Foresight
from cfscale.core.history import History
from cfscale.core.laws import laws_of
from cfscale.core.plan import Policy
from cfscale.core.policy import Backlog, Observation
from cfscale.core.samples import Quality, Replica, ReplicaState
from cfscale.core.situation import situation_of
from tests.fake_service import AGENTS, SCALING, a_replica, a_usage

POLICIES = (
    (Policy("slo"),),
    (Policy("slo", {"goal": "1%"}),),
    (Policy("target", {"usage": "60%"}),),
    (Policy("pool"), Policy("resource")),
    (Policy("predictive", {"law": "founding"}),),
    (Policy("resource"), Policy("queue", {"name": "q", "per_replica": "5"})),
)


class Loop(RuleBasedStateMachine):
    """The loop over one service; a rule is a tick under some circumstances."""

    @initialize(policies=st.sampled_from(POLICIES), count=st.integers(1, 10))
    def begin(self, policies: tuple[Policy, ...], count: int) -> None:
        self.scaling = replace(SCALING, policies=policies)
        self.now, self.born, self.changed = 600_000.0, 0, float("-inf")
        self.members: list[Replica] = []
        self.history = History()
        self.foresight = Foresight(SCALING.forecast, 0.005, strict=False)
        self.resize(count)

    def resize(self, count: int) -> None:
        while len(self.members) < count:
            self.born += 1
            self.members.append(replace(a_replica(self.born), started_at=self.now))
        del self.members[count:]

    def tick(self, load: float, *, blind: int = 0, stale: bool = False, backlog: float | None = 0.0) -> None:
        if self.history.replicas not in (None, len(self.members)):  # by hand, and not back to what it was
            self.changed = self.now
        replicas = tuple(
            replace(one, state=ReplicaState.READY if self.now - one.started_at >= 60 else ReplicaState.STARTING)
            for one in self.members
        )
        ready = [one for one in replicas if one.state is ReplicaState.READY]
        busy = min(1.0, load / max(1, len(ready)))
        taken = self.now - 600 if stale else self.now
        usages = tuple(replace(a_usage(1, busy, 0.3, taken), replica=one.id) for one in ready[blind:])
        seen = Observation(AGENTS, "fake", self.now, replicas, usages, backlogs={"q": Backlog("q", backlog, 5.0)})
        situation = situation_of(seen, self.scaling)
        outlook = self.foresight.see(situation, self.history.startup_seconds)
        situation = replace(situation, outlook=outlook)
        decision, history = decide(seen, self.scaling, self.history, laws_of(self.scaling), situation)
        again, _ = decide(seen, self.scaling, self.history, laws_of(self.scaling), situation)

        assert decision == again
        assert decision.reason
        if decision.action is not Action.HOLD:
            assert AGENTS.min_replicas <= decision.desired <= AGENTS.max_replicas
        if decision.action is Action.SCALE_DOWN:
            assert not stale
            assert blind < 0.3 * len(ready) + 1e-9 or decision.current > AGENTS.max_replicas
            measured = [sample for sample in decision.samples if sample.resource != "backlog"]
            assert all(sample.quality is not Quality.STALE for sample in measured)
            assert backlog is not None or all(policy.kind != "queue" for policy in self.scaling.policies)
            assert self.now - self.changed >= SCALING.scale_down.cooldown_seconds
            assert decision.desired >= decision.current - -(-decision.current // 2)
        if decision.action is Action.SCALE_UP and decision.current >= AGENTS.min_replicas:
            assert self.now - self.changed >= SCALING.scale_up.cooldown_seconds
        self.history = history
        if decision.action is not Action.HOLD:
            self.resize(decision.desired)
            self.changed = self.now
            self.history = history.succeeded(decision.desired, self.now)
        self.now += self.scaling.interval_seconds

    @rule(load=st.floats(0, 20), ticks=st.integers(1, 60), backlog=st.one_of(st.none(), st.floats(0, 100)))
    def work(self, load: float, ticks: int, backlog: float | None) -> None:
        for _ in range(ticks):
            self.tick(load, backlog=backlog)

    @rule(load=st.floats(0, 20), blind=st.integers(1, 10))
    def some_do_not_report(self, load: float, blind: int) -> None:
        self.tick(load, blind=blind)

    @rule(load=st.floats(0, 20))
    def metrics_are_stale(self, load: float) -> None:
        self.tick(load, stale=True)

    @rule(count=st.integers(1, 10))
    def somebody_scales_by_hand(self, count: int) -> None:
        self.resize(count)

    @rule(seconds=st.floats(1, 7200))
    def the_scaler_is_away(self, seconds: float) -> None:
        kept = self.foresight.loads
        self.foresight = Foresight(SCALING.forecast, 0.005, strict=False)
        self.foresight.recall(kept)
        self.now += seconds


Loop.TestCase.settings = settings(max_examples=25, stateful_step_count=20)
TestLoop = Loop.TestCase
