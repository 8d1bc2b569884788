from msgspec.structs import replace

from cfscale.core.autoscale import decide
from cfscale.core.decision import Action
from cfscale.core.history import History
from cfscale.core.incidents import Record, bar, crashing, explained, newly_ended, record, seeded
from cfscale.core.plan import Damping
from cfscale.core.policy import Observation
from cfscale.core.samples import Replica, ReplicaState
from tests.fake_service import AGENTS, UNDAMPED, a_replica, a_usage

NOW = 1_000_000.0
STOPPED, STARTING = ReplicaState.STOPPED, ReplicaState.STARTING
SCALING = UNDAMPED


def seen(*replicas: Replica, time: float = NOW, cpu: float = 1.0) -> Observation:
    ready = [one for one in replicas if one.state is ReplicaState.READY]
    return Observation(
        AGENTS,
        "compose",
        time,
        replicas,
        tuple(replace(a_usage(1, cpu, 0.1, time), replica=one.id) for one in ready),
    )


def restarted(replica: Replica, times: int, state: ReplicaState = STARTING) -> Replica:
    return replace(replica, restarts=times, state=state)


def after(*observations: Observation) -> Record:
    found = Record()
    for observation in observations:
        found = record(found, observation, SCALING)
    return found


def barred(now: Record, observation: Observation) -> str:
    decision, _ = decide(observation, SCALING, History(replicas=observation.current))
    held = bar(decision, now, observation, SCALING)
    assert decision.action is Action.SCALE_UP
    assert (held.action is Action.HOLD) == (held != decision)
    return held.reason.removeprefix(decision.reason).removeprefix("; ")


def test_a_replica_that_ended_explains_the_smaller_count_and_its_return_the_larger() -> None:
    one, two = a_replica(1), a_replica(2)
    before = after(seen(one, two))
    down = seen(one, replace(two, state=STOPPED))

    assert [item.name for item in newly_ended(before, down)] == ["agents-2"]
    assert explained(before, down) == -1
    between = record(before, down, SCALING)
    assert (newly_ended(between, down), explained(between, down)) == ((), 0)
    assert explained(between, seen(one, two)) == 1


def test_a_replica_that_somebody_stopped_is_no_accident_and_neither_is_its_return() -> None:
    one, two = a_replica(1), a_replica(2)
    before = after(seen(one, two))
    down = seen(one, replace(two, state=STOPPED, by_hand=True))

    assert (newly_ended(before, down), explained(before, down)) == ((), 0)
    assert explained(record(before, down, SCALING), seen(one, two)) == 0


def test_a_replica_that_is_no_longer_listed_was_removed_by_somebody() -> None:
    one, two = a_replica(1), a_replica(2)
    assert explained(after(seen(one, two)), seen(one)) == 0


def test_what_was_ready_before_the_scaler_was_started_again_was_running() -> None:
    two = a_replica(2)
    assert explained(seeded((two.id,)), seen(replace(two, state=STOPPED))) == -1


def test_fault_37_a_crash_loop_bars_growth_until_it_is_over() -> None:
    good, bad = [a_replica(number) for number in range(3, 8)], a_replica(2)
    loop = [seen(*good, restarted(bad, times), time=NOW + times) for times in (0, 1, 3)]

    assert barred(after(*loop[:2]), loop[1]) == ""
    assert barred(after(*loop), loop[2]) == "crash loop of agents-2: more of the same would not help"
    healed = seen(*good, restarted(bad, 3, ReplicaState.READY), time=NOW + 60)
    assert barred(after(*loop, healed), healed) == ""
    again = seen(*good, restarted(bad, 4), time=NOW + 120)
    assert crashing(after(*loop, healed, again), again, SCALING)
    calm = replace(healed, time=NOW + 700)
    once = seen(*good, restarted(bad, 4), time=NOW + 760)
    assert not crashing(after(*loop, healed, calm, once), once, SCALING)


def test_fault_37_restarts_from_before_are_no_crash_loop() -> None:
    old = seen(*(a_replica(number) for number in range(3, 8)), restarted(a_replica(2), 40))
    assert barred(after(old, old), old) == ""


def test_fault_42_no_shrinking_for_a_while_after_a_kill_for_memory() -> None:
    scaling = replace(SCALING, scale_down=Damping(300.0, 0.0, 100, None))
    victim = replace(a_replica(1), oom_killed_at=NOW - 100, restarts=1)
    shaken = seen(victim, a_replica(2), cpu=0.05)
    now = record(Record(), shaken, scaling)
    decision, _ = decide(shaken, SCALING, History(replicas=2))

    assert decision.action is Action.SCALE_DOWN
    held = bar(decision, now, shaken, scaling)
    assert held.reason.endswith("a replica was killed for lack of memory: no shrinking for another 3m20s")
    later = replace(shaken, time=NOW + 201)
    assert bar(decision, record(now, later, scaling), later, scaling) is decision


def test_fault_42_a_kill_that_only_the_kernel_counted_is_remembered_too() -> None:
    scaling = replace(SCALING, scale_down=Damping(0.0, 60.0, 100, None))
    killed = seen(a_replica(1), a_replica(2), cpu=0.05)
    killed = replace(killed, usages=tuple(replace(usage, oom_kills=1) for usage in killed.usages))
    quiet = seen(a_replica(1), a_replica(2), time=NOW + 10, cpu=0.05)
    now = record(record(Record(), killed, scaling), quiet, scaling)
    decision, _ = decide(quiet, SCALING, History(replicas=2))

    assert "killed for lack of memory" in bar(decision, now, quiet, scaling).reason


def test_nothing_is_kept_of_replicas_that_are_gone() -> None:
    many = [seen(*(a_replica(10 * step + number) for number in range(5))) for step in range(50)]
    now = after(*many)
    assert len(now.tallies) == len(now.running) == 5
    assert now.ended == frozenset()
