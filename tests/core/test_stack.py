import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.core.stack import (
    Before,
    Patience,
    StackService,
    Task,
    Update,
    befores,
    has_run,
    problem,
    standing,
    undone,
)

PATIENCE = Patience(placing_seconds=10.0, most_refused=2, most_failed=5)
RUNNING = Task("a", 1, "running", "running", 1.0, container="c")


def task(number: int, state: str = "running", desired: str = "running", **more: object) -> Task:
    return replace(RUNNING, id=f"t{number}", slot=number, state=state, desired=desired, **more)


def service(*tasks: Task, update: Update = Update()) -> StackService:  # noqa: B008 - a frozen value
    return StackService("agents", len(tasks), tasks, update)


def tries(count: int, state: str, trouble: str = "why") -> tuple[Task, ...]:
    """So many ended tries of one replica, the newest last."""
    return tuple(
        replace(RUNNING, id=f"{state}{n}", state=state, desired="shutdown", since=float(n), trouble=f"{trouble} {n}")
        for n in range(count)
    )


def test_a_service_has_settled_when_exactly_so_many_run() -> None:
    two = service(task(1), task(2))

    assert two.settled(2)
    assert not two.settled(1)
    assert not two.settled(3)


@pytest.mark.parametrize(
    "other",
    [
        task(2, "starting"),
        task(2, "pending", container=""),
        task(2, current=False),
        task(2, "running", "shutdown"),
        task(2, "failed", "shutdown"),
    ],
    ids=["starting", "without a place", "of the old definition", "leaving", "ended"],
)
def test_one_that_is_not_there_as_it_should_be_keeps_it_from_settling(other: Task) -> None:
    assert not service(task(1), other).settled(2)


def test_nothing_has_settled_while_an_update_runs() -> None:
    assert not service(task(1), update=Update("updating", "now")).settled(1)


def test_tasks_that_leave_or_have_ended_are_no_replicas() -> None:
    seen = service(task(1), task(2, "running", "remove"), task(3, "shutdown", "shutdown"), task(4, "starting"))

    assert (seen.running, seen.started, seen.leaving) == (1, 2, 1)


@pytest.mark.parametrize("state", ["rollback_started", "rollback_completed", "rollback_paused", "paused"])
def test_an_update_that_was_taken_back_is_no_success_however_well_it_runs(state: str) -> None:
    seen = service(task(1), *tries(1, "rejected", "No such image"), update=Update(state, "now", "rolled back"))

    assert seen.settled(1)
    assert undone(seen, Before()).endswith(": No such image 0")


def test_an_update_that_was_taken_back_last_week_is_none_of_this_action() -> None:
    seen = service(task(1), update=Update("rollback_completed", "last week"))

    assert undone(seen, Before.of(seen)) == ""


def test_the_manager_s_words_stand_in_where_no_task_says_why() -> None:
    seen = service(task(1), update=Update("paused", "now", "update paused due to failure"))

    assert undone(seen, Before()) == "the update was stopped: update paused due to failure"


@pytest.mark.parametrize(("waited", "said"), [(9.0, ""), (10.0, "no suitable node")])
def test_without_a_place_there_is_hope_for_a_while(waited: float, said: str) -> None:
    seen = service(task(1, "pending", container="", trouble="no suitable node"))

    assert problem(seen, Before(), waited, PATIENCE) == said


@pytest.mark.parametrize(
    ("state", "count", "said"),
    [("rejected", 1, ""), ("rejected", 2, "why 1"), ("failed", 4, ""), ("failed", 5, "why 4")],
)
def test_a_replica_that_ends_again_and_again_is_broken(state: str, count: int, said: str) -> None:
    assert problem(service(*tries(count, state)), Before(), 0.0, PATIENCE) == said


def test_what_is_refused_during_an_update_is_the_manager_s_to_judge() -> None:
    """Refused twice within a second, before the manager has taken the update back: what becomes of it is not known yet."""
    refused = service(task(2), *tries(2, "rejected"), update=Update("updating", "now"))

    assert problem(refused, Before(), 0.0, PATIENCE) == ""
    assert undone(replace(refused, update=Update("rollback_started", "now")), Before()) == (
        "the update was taken back: why 1"
    )


def test_what_ends_again_and_again_after_it_began_is_broken_during_an_update_too() -> None:
    """The manager may hold such an update for good: it watches a replica for some seconds only."""
    ended = service(task(2), *tries(5, "failed"), update=Update("updating", "now"))

    assert problem(ended, Before(), 0.0, PATIENCE) == "why 4"


def test_one_that_could_not_begin_counts_as_refused() -> None:
    taken = tries(2, "failed", "starting container failed: address already in use")

    assert problem(service(*taken), Before(), 0.0, PATIENCE).endswith("address already in use 1")
    assert not has_run([service(*taken)])
    assert has_run([service(*tries(1, "failed", "task: non-zero exit (1)"))])


def test_what_ended_before_the_action_is_not_its_doing() -> None:
    old = service(*tries(5, "failed"), *tries(2, "rejected"))

    assert problem(old, befores({"agents": old})["agents"], 99.0, PATIENCE) == ""
    assert Before.of(None) == Before()


def test_whoever_gave_up_waiting_is_told_the_newest_trouble_or_how_far_it_came() -> None:
    assert standing(service(*tries(3, "failed"))) == "why 2"
    assert standing(service(task(1), task(2, "starting"))) == "2 started, 1 healthy"
    assert standing(service(task(1), task(2, "running", "remove"))) == "1 started, 1 healthy, 1 leaving"


TASKS = st.builds(
    Task,
    id=st.uuids().map(str),
    slot=st.integers(1, 5),
    state=st.sampled_from(["new", "pending", "preparing", "starting", "running", "failed", "rejected", "shutdown"]),
    desired=st.sampled_from(["ready", "running", "shutdown", "remove"]),
    since=st.floats(0, 100),
    container=st.sampled_from(["", "c"]),
    trouble=st.sampled_from(["", "why"]),
    current=st.booleans(),
)


@given(st.lists(TASKS, max_size=12), st.integers(0, 12))
def test_counts_never_contradict_each_other(tasks: list[Task], count: int) -> None:
    seen = service(*tasks)

    assert 0 <= seen.running <= seen.started <= len(tasks)
    assert seen.started + seen.leaving <= len(tasks)
    if seen.settled(count):
        assert seen.running == seen.started == count
