from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.health import Report, Result, State, Target, report
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.trend import Tuning
from cfscale.runtime.foresight import Depth, Foresight
from cfscale.runtime.probing import Round
from cfscale.runtime.readiness import ProbedEngine, judged
from tests.runtime.test_probing import World

TUNING = Tuning.of(load_catalogue().rules)
HEALTH = Health(HealthKind.HTTP, timeout_seconds=2.0)
REPLICA = Replica("id", "web-1", "web", ReplicaState.READY, 0.0, "127.0.0.1:80")
TARGET = Target("web-1", "127.0.0.1", 80, HEALTH, "web", replica=REPLICA)


def found(state: State = State.UP, latency: float = 0.02) -> Report:
    return report([Result("web-1", "http", state, latency, "HTTP 200")])


def usage(memory: int) -> Usage:
    return Usage("id", "cgroup", 0.0, 1.0, Quality.OK, 0.1, memory, memory_limit_bytes=1000)


def watched(depth: Depth, memories: Sequence[int], state: State = State.UP) -> list[Result]:
    foresight = Foresight(depth, TUNING)
    return [
        foresight.look(found(state), [TARGET], [usage(memory)], number * 10.0).results[0]
        for number, memory in enumerate(memories)
    ]


def test_memory_on_its_way_to_its_limit_is_degraded_with_its_hour() -> None:
    last = watched(Depth.PREDICTIVE, range(400, 500, 10))[-1]

    assert last.state is State.DEGRADED
    assert last.reason.startswith("HTTP 200; memory is full in 8 min")
    assert last.predicted_seconds == pytest.approx(510)


@pytest.mark.parametrize("depth", [Depth.ENABLED, Depth.COMPREHENSIVE])
def test_a_tier_that_did_not_ask_for_predictions_has_none(depth: Depth) -> None:
    assert watched(depth, range(400, 500, 10))[-1].state is State.UP


@pytest.mark.parametrize("state", [State.DOWN, State.UNKNOWN, State.STARTING, State.DRAINING])
def test_a_prediction_never_changes_another_verdict(state: State) -> None:
    assert {result.state for result in watched(Depth.PREDICTIVE, range(400, 500, 10), state)} == {state}


def test_a_replica_that_starts_again_and_again_is_degraded() -> None:
    foresight = Foresight(Depth.COMPREHENSIVE, TUNING)
    for number in range(5):
        target = replace(TARGET, replica=replace(REPLICA, restarts=number))
        last = foresight.look(found(), [target], [], number * 10.0).results[0]

    assert (last.state, last.reason) == (State.DEGRADED, "HTTP 200; restarted 4 times in 10 min")


def test_what_has_gone_is_forgotten() -> None:
    foresight = Foresight(Depth.PREDICTIVE, TUNING)
    for number in range(6):
        foresight.look(found(), [TARGET], [usage(400 + 50 * number)], number * 10.0)
    foresight.look(report([]), [], [], 100.0)

    assert foresight.look(found(), [TARGET], [usage(800)], 110.0).results[0].state is State.UP


def one_round(state: State, panic: tuple[str, ...] = ()) -> Round:
    return Round(report([Result("web-1", "http", state, 0.1, "why")], panic))


@pytest.mark.parametrize(
    ("before", "verdict", "after"),
    [
        ("ready", "down", "unhealthy"),
        ("ready", "up", "ready"),
        ("ready", "unknown", "ready"),
        ("starting", "up", "ready"),
        ("starting", "degraded", "ready"),
        ("starting", "starting", "starting"),
        ("unhealthy", "up", "unhealthy"),
        ("paused", "maintenance", "paused"),
    ],
)
def test_a_replica_is_ready_when_the_prober_says_so(before: str, verdict: str, after: str) -> None:
    replicas = (replace(REPLICA, state=ReplicaState(before)),)

    assert judged(replicas, one_round(State(verdict)))[0].state.value == after


def test_in_panic_the_word_of_the_engine_counts() -> None:
    assert judged((REPLICA,), one_round(State.DOWN, ("web",))) == (REPLICA,)


class Engine:
    """An engine of one replica that counts how often it is asked."""

    name, target = "compose", "t"

    def replicas(self) -> tuple[Replica, ...]:
        return (REPLICA,)


def test_the_scaler_sees_a_replica_fall_after_three_failures_and_asks_once_a_second() -> None:
    world = World(**{"web-1": [State.UP, State.DOWN]})
    engine = ProbedEngine(Engine(), world.survey, lambda _replicas: [TARGET], world.monotonic)  # type: ignore[arg-type]
    states = []
    for _ in range(5):
        states.append(engine.replicas()[0].state.value)
        engine.replicas()
        world.time += 10.0

    assert states == ["ready", "ready", "ready", "unhealthy", "unhealthy"]
    assert len(world.asked) == 5
