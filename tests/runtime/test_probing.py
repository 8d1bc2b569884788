import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.health import Attempt, Kind, Report, State, Target
from cfscale.core.judging import Judging
from cfscale.core.plan import DeploymentPlan, Health, HealthKind
from cfscale.core.rota import JITTER
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import UnavailableError
from cfscale.runtime.probing import Round, Survey, healthy, plan_targets, split_address, timed, until_healthy, watch

JUDGING = Judging.of(load_catalogue().rules)
HEALTH = Health(HealthKind.HTTP, rise=2, fall=3)
UP, DOWN = State.UP, State.DOWN


class World:
    """A clock that only waiting moves, and targets that answer by script, the last answer for good."""

    def __init__(self, **scripts: Sequence[State]) -> None:
        self.scripts = scripts
        self.asked: list[str] = []
        self.time = 1000.0
        self.slept: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.seconds_of_a_round = 0.0
        self.stop_at: float | None = None

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, seconds: float) -> bool:
        self.time += max(seconds, 0.0)
        return self.stop_at is not None and self.time >= self.stop_at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    async def ask(self, target: Target) -> Attempt:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        script = self.scripts.get(target.name, [UP])
        state = script[min(self.asked.count(target.name), len(script) - 1)]
        self.asked.append(target.name)
        return Attempt(state, state.value, 0.01)

    def survey(self) -> Survey:
        return Survey(self.ask, self, JUDGING, sleep=self.sleep, confirm_seconds=JUDGING.confirm_seconds)


def target(name: str, group: str = "web") -> Target:
    return Target(name, "127.0.0.1", 80, HEALTH, group)


def reports(rounds: Iterable[Round]) -> list[Report]:
    return [found.report for found in rounds]


def one_round(world: World, *targets: Target) -> Report:
    return asyncio.run(world.survey().round(targets)).report


def states(report: Report) -> list[str]:
    return [result.state.value for result in report.results]


def test_results_stand_in_the_order_of_the_targets() -> None:
    report = one_round(World(b=[DOWN]), target("a"), target("b"), target("c"))

    assert [result.target for result in report.results] == ["a", "b", "c"]
    assert states(report) == ["up", "down", "up"]


def test_a_failure_is_confirmed_before_it_counts() -> None:
    world = World(a=[DOWN])
    report = one_round(world, target("a"), target("b"))

    assert states(report) == ["down", "up"]
    assert world.asked.count("a") == 3
    assert world.asked.count("b") == 1
    assert world.slept == [0.5, 0.5]


def test_a_single_failure_is_flaky_not_down() -> None:
    report = one_round(World(a=[DOWN, UP]), target("a"))

    assert report.results[0].state is UP
    assert "flaky: down" in report.results[0].reason


def test_unknown_is_not_asked_again() -> None:
    world = World(a=[State.UNKNOWN])
    report = one_round(world, target("a"))

    assert states(report) == ["unknown"]
    assert world.asked == ["a"]


def test_a_target_back_from_the_dead_has_to_answer_twice_within_a_round() -> None:
    world = World(a=[DOWN, DOWN, DOWN, UP])
    survey = world.survey()

    async def main() -> Report:
        return (await survey.round([target("a")], await survey.round([target("a")]))).report

    assert states(asyncio.run(main())) == ["up"]
    assert world.asked.count("a") == 5


def test_no_more_than_the_workers_ask_at_once() -> None:
    world = World()
    asyncio.run(replace(world.survey(), workers=7).round([target(f"t{n}") for n in range(100)]))

    assert world.most_in_flight == 7
    assert len(world.asked) == 100


def test_silent_targets_do_not_hold_up_the_others() -> None:
    """Workers that only wait get company, up to what the machine has room for."""
    silence = asyncio.Event()
    asked: list[str] = []

    async def ask(one: Target) -> Attempt:
        asked.append(one.name)
        if one.name.startswith("silent"):
            await silence.wait()
        elif len(asked) == 60:
            silence.set()
        return Attempt(UP, "up", 0.01)

    targets = [target(f"silent-{n}") for n in range(50)] + [target(f"t{n}") for n in range(10)]
    survey = replace(World().survey(), ask=ask, workers=5, most=60)
    report = asyncio.run(survey.round(targets)).report

    assert report.summary.up == 60


def test_a_watch_asks_each_target_in_its_own_place() -> None:
    class Timed(World):
        times: ClassVar[dict[str, list[float]]] = {}

        async def ask(self, target: Target) -> Attempt:
            self.times.setdefault(target.name, []).append(self.time)
            return await super().ask(target)

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(0)
            await super().sleep(seconds)

    world = Timed()
    list(watch(world.survey(), lambda: group_of(20), interval_seconds=10.0, seconds=30.0))
    second = [times[1] - 1000.0 for times in world.times.values()]
    apart = [(times[2] - times[1]) for times in world.times.values()]

    assert len({round(at, 1) for at in second}) > 10
    near = [between for between in apart if abs(between - 10.0) < 7.0 * JITTER + 0.3]
    assert len(near) > 15  # but for the few whose place wraps around the turn


def test_while_the_engine_does_not_answer_nothing_can_be_told() -> None:
    there = iter([True, False, True])

    def look() -> Sequence[Target]:
        if not next(there):
            raise UnavailableError("the engine is gone")
        return [target("a")]

    found = reports(watch(World().survey(), look, interval_seconds=10.0, seconds=30.0))

    assert [states(report) for report in found] == [["up"], ["unknown"], ["up"]]
    assert found[1].results[0].reason == "the engine is gone"


def test_nothing_to_ask_is_an_empty_report() -> None:
    assert one_round(World()).results == ()


def test_an_engine_state_is_passed_through_without_asking() -> None:
    world = World()
    paused = replace(target("a"), replica=Replica("1", "a", "web", ReplicaState.PAUSED, 0.0, "h:1"))

    assert states(one_round(world, paused)) == ["maintenance"]
    assert world.asked == []


def group_of(size: int) -> list[Target]:
    return [target(f"t{n}") for n in range(size)]


def test_most_of_a_group_down_at_once_is_flagged_and_stays_down() -> None:
    world = World(**{f"t{n}": [UP, DOWN] for n in range(4)})
    first, second, third = reports(watch(world.survey(), lambda: group_of(6), interval_seconds=10.0, seconds=30.0))

    assert (first.panic, second.panic, third.panic) == ((), ("web",), ())
    assert second.summary.down == third.summary.down == 4


def test_a_first_round_never_panics() -> None:
    assert one_round(World(**{f"t{n}": [DOWN] for n in range(6)}), *group_of(6)).panic == ()


def test_a_watch_keeps_its_schedule_and_ends_in_time() -> None:
    world = World()
    times = [world.time for _ in watch(world.survey(), lambda: [target("a")], interval_seconds=10.0, seconds=35.0)]

    assert times == [1000.0, 1010.0, 1020.0, 1030.0]


def test_a_round_longer_than_the_interval_skips_turns() -> None:
    world = World()
    times = []
    for _ in watch(world.survey(), lambda: [target("a")], interval_seconds=10.0, seconds=60.0):
        times.append(world.time)
        world.time += 13.0

    assert times == [1000.0, 1020.0, 1040.0]


def test_a_watch_ends_when_asked_to() -> None:
    world = World()
    world.stop_at = 1015.0

    assert len(list(watch(world.survey(), lambda: [target("a")], interval_seconds=10.0))) == 2


def test_a_watch_looks_up_its_targets_anew() -> None:
    names = iter(["ab", "b"])
    found = reports(
        watch(World().survey(), lambda: [target(name) for name in next(names)], interval_seconds=10.0, seconds=20.0)
    )

    assert [len(report.results) for report in found] == [2, 1]


@given(st.lists(st.sampled_from([UP, DOWN]), min_size=1, max_size=12))
def test_a_watch_always_gives_a_verdict(script: list[State]) -> None:
    world = World(a=script)
    found = reports(watch(world.survey(), lambda: [target("a")], interval_seconds=10.0, seconds=50.0))

    assert {state for report in found for state in states(report)} <= {"up", "down"}


def wait_until_healthy(world: World, targets: Callable[[], Sequence[Target]], seconds: float = 60.0) -> Report:
    waiting: Awaitable[Report] = until_healthy(world.survey(), targets, seconds=seconds)

    async def main() -> Report:
        return await waiting

    return asyncio.run(main())


def test_waiting_ends_when_all_are_alive() -> None:
    world = World(a=[DOWN, DOWN, State.DEGRADED], b=[DOWN, UP])
    report = wait_until_healthy(world, lambda: [target("a"), target("b")])

    assert healthy(report)
    assert states(report) == ["degraded", "up"]
    assert world.time == 1002.0


def test_waiting_ends_at_the_deadline_with_the_last_verdicts() -> None:
    world = World(a=[DOWN])
    report = wait_until_healthy(world, lambda: [target("a"), target("b")], seconds=5.0)

    assert not healthy(report)
    assert states(report) == ["down", "up"]
    assert world.time == 1005.0


def test_an_engine_that_does_not_say_whom_to_ask_is_asked_again_until_the_deadline() -> None:
    world = World(a=[UP])

    def targets() -> list[Target]:
        if world.time < 1002.0:
            raise UnavailableError("the engine does not answer in time")
        return [target("a")]

    assert healthy(wait_until_healthy(world, targets, seconds=5.0))
    world.time = 1000.0
    with pytest.raises(UnavailableError, match="in time"):
        wait_until_healthy(world, targets, seconds=1.0)


def test_nothing_at_all_is_not_healthy() -> None:
    assert not healthy(wait_until_healthy(World(), list, seconds=3.0))


@pytest.fixture(scope="module")
def plan() -> DeploymentPlan:
    from cfscale.adapters.assets import load_catalogue

    catalogue: Catalogue = load_catalogue()
    return size(Profile(users=20, agents=100, tasks=200), catalogue)


def running(plan: DeploymentPlan) -> list[Replica]:
    return [
        Replica(f"{service.name}{n}", f"{service.name}-{n}", service.name, ReplicaState.READY, 0.0, f"10.0.0.{n}:1")
        for service in plan.services
        for n in range(1, service.replicas + 1)
    ]


def test_every_replica_and_every_published_port_is_a_target(plan: DeploymentPlan) -> None:
    replicas = running(plan)
    targets = plan_targets(plan, replicas, {"queue": "hunter2"}, all_services=True)
    published = [target.name for target in targets if target.replica is None]

    assert [target.name for target in targets if target.replica] == [replica.name for replica in replicas]
    assert published == [f"loadbalancer 127.0.0.1:{8080 + n}" for n in range(plan.service("loadbalancer").replicas)]
    assert {target.secret for target in targets if target.group == "queue"} == {"hunter2"}
    assert len({target.name for target in targets}) == len(targets)


def test_the_database_and_its_pooler_are_asked_in_their_own_protocol() -> None:
    from cfscale.adapters.assets import load_catalogue

    plan = size(Profile(users=200, agents=1000, tasks=2000), load_catalogue())
    targets = [
        target
        for target in plan_targets(plan, running(plan), {}, all_services=True)
        if target.group in {"database", "pooler"}
    ]

    assert {target.group for target in targets} == {"database", "pooler"}
    assert {(target.kind, target.about, target.user) for target in targets} == {(Kind.POSTGRES, ("app",), "app")}


def test_a_service_without_replicas_is_down_where_the_engine_runs_them_all(plan: DeploymentPlan) -> None:
    rest = [replica for replica in running(plan) if replica.service != "queue"]
    missing = [t for t in plan_targets(plan, rest, {}, all_services=True) if t.group == "queue"]
    report = one_round(World(), *missing)

    assert states(report) == ["down"]
    assert report.results[0].reason == "stopped: no replica of it is there"
    assert not [t for t in plan_targets(plan, rest, {}, all_services=False) if t.group == "queue"]


def test_nothing_is_published_where_no_balancer_runs(plan: DeploymentPlan) -> None:
    rest = [replica for replica in running(plan) if replica.service != "loadbalancer"]

    assert all(target.replica for target in plan_targets(plan, rest, {}, all_services=True))


def test_a_listener_on_every_address_is_asked_on_loopback(plan: DeploymentPlan) -> None:
    services = [replace(s, publish="0.0.0.0:80-80" if s.name == "loadbalancer" else None) for s in plan.services]
    targets = plan_targets(replace(plan, services=tuple(services)), running(plan), {}, all_services=True)

    assert [target.host for target in targets if target.replica is None] == ["127.0.0.1"]


def test_a_time_limit_of_the_command_line_holds_for_all() -> None:
    assert timed([target("a")], 0.5)[0].health.timeout_seconds == 0.5
    assert timed([target("a")], None) == (target("a"),)


@pytest.mark.parametrize(("text", "expected"), [("h:1", ("h", 1)), ("[::1]:80", ("::1", 80))])
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected
