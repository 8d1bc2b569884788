import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.health import (
    ALIVE,
    Attempt,
    Report,
    Result,
    State,
    Target,
    Track,
    advance,
    conclude,
    exit_code,
    in_doubt,
    nagios_code,
    panicking,
    report,
    shown,
    standing,
)
from cfscale.core.judging import Judging
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState

JUDGING = Judging.of(load_catalogue().rules)
HEALTH = Health(HealthKind.HTTP, rise=2, fall=3, start_period_seconds=30.0)
TARGET = Target("web-1", "127.0.0.1", 80, HEALTH, "web")
ANSWERS = st.sampled_from([State.UP, State.DEGRADED, State.DOWN, State.UNKNOWN])


def attempt(state: State) -> Attempt:
    return Attempt(state, state.value, 0.01)


def after(*states: State, health: Health = HEALTH) -> Track:
    track = Track()
    for state in states:
        track = advance(track, attempt(state), health)
    return track


def replica(state: ReplicaState, *, started_at: float = 0.0, reason: str = "", address: str | None = "h:80") -> Replica:
    return Replica("id", "web-1", "web", state, started_at, address, reason=reason)


def results(*states: State) -> Report:
    return report([Result(f"t{index}", "http", state, 0.01, "") for index, state in enumerate(states)])


def test_one_answer_is_enough_where_nothing_is_known() -> None:
    assert after(State.UP).settled is State.UP


def test_down_takes_fall_failures_in_a_row() -> None:
    assert after(State.DOWN, State.DOWN).settled is None
    assert after(State.DOWN, State.DOWN, State.DOWN).settled is State.DOWN


def test_a_target_that_is_down_comes_back_after_rise_answers() -> None:
    down = (State.DOWN,) * 3

    assert after(*down, State.UP).settled is State.DOWN
    assert after(*down, State.UP, State.UP).settled is State.UP


def test_flapping_one_to_one_never_changes_the_verdict() -> None:
    assert after(State.UP, *(State.DOWN, State.UP) * 20).settled is State.UP
    assert after(*(State.DOWN,) * 3, *(State.UP, State.DOWN) * 20).settled is State.DOWN


def test_a_success_does_not_hide_the_failure_before_it() -> None:
    assert conclude(TARGET, after(State.DOWN, State.UP), 0.0, JUDGING) == (State.UP, "up; flaky: down")


def test_a_fault_of_the_prober_is_shown_and_forgotten() -> None:
    track = after(State.UP, State.UNKNOWN)

    assert conclude(TARGET, track, 0.0, JUDGING)[0] is State.UNKNOWN
    assert conclude(TARGET, advance(track, attempt(State.UP), HEALTH), 0.0, JUDGING)[0] is State.UP


def test_what_is_not_confirmed_is_not_down() -> None:
    state, reason = conclude(TARGET, after(State.DOWN), 0.0, JUDGING)

    assert (state, reason) == (State.UNKNOWN, "down; not confirmed yet, 1 of 3 times")


def test_a_target_never_asked_is_unknown() -> None:
    assert conclude(TARGET, Track(), 0.0, JUDGING)[0] is State.UNKNOWN


@given(st.lists(ANSWERS, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_down_means_that_fall_failures_came_with_no_success_between(answers: list[State], rise: int, fall: int) -> None:
    health = replace(HEALTH, rise=rise, fall=fall)
    track, run, was_down = Track(), 0, False
    for answer in answers:
        run = 0 if answer in ALIVE else run + (answer is State.DOWN)
        track = advance(track, attempt(answer), health)
        down = track.settled is State.DOWN
        if down and not was_down:
            assert run >= fall
        was_down = down


@given(st.lists(ANSWERS, min_size=1, max_size=40))
def test_unknown_answers_never_move_the_verdict(answers: list[State]) -> None:
    with_unknown = after(*[state for answer in answers for state in (answer, State.UNKNOWN)])
    without = after(*[answer for answer in answers if answer is not State.UNKNOWN])

    assert with_unknown.settled is without.settled


@given(st.lists(ANSWERS, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_doubt_ends_after_so_many_equal_answers(answers: list[State], rise: int, fall: int) -> None:
    health = replace(HEALTH, rise=rise, fall=fall)
    track = after(*answers, health=health)
    for _ in range(max(rise, fall)):
        if track.last is not None and in_doubt(track, health):
            track = advance(track, track.last, health)

    assert not in_doubt(track, health)


@given(st.lists(ANSWERS, max_size=40), st.integers(1, 5))
def test_verdict_changes_are_no_more_frequent_than_rise_and_fall_allow(answers: list[State], times: int) -> None:
    health = replace(HEALTH, rise=times, fall=times)
    track, settled = Track(), []
    for answer in answers:
        track = advance(track, attempt(answer), health)
        settled.append(track.settled is State.DOWN)
    changes = sum(before is not now for before, now in zip([False, *settled], settled, strict=False))

    assert changes <= len(answers) // times


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ReplicaState.STOPPED, State.DOWN),
        (ReplicaState.PAUSED, State.MAINTENANCE),
        (ReplicaState.DRAINING, State.DRAINING),
    ],
)
def test_the_engine_alone_settles_a_replica_that_cannot_be_asked(state: ReplicaState, expected: State) -> None:
    found = standing(replace(TARGET, replica=replica(state, reason="exit code 137")))

    assert found == Attempt(expected, f"{state.value}: exit code 137")


@pytest.mark.parametrize("state", [ReplicaState.STARTING, ReplicaState.READY, ReplicaState.UNHEALTHY])
def test_a_replica_that_runs_is_asked(state: ReplicaState) -> None:
    assert standing(replace(TARGET, replica=replica(state))) is None


def test_a_replica_without_address_is_unknown() -> None:
    found = standing(replace(TARGET, replica=replica(ReplicaState.READY, address=None)))

    assert found is not None
    assert found.state is State.UNKNOWN


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ReplicaState.READY, State.UP),
        (ReplicaState.STARTING, State.STARTING),
        (ReplicaState.UNHEALTHY, State.DOWN),
        (ReplicaState.STOPPED, State.DOWN),
    ],
)
def test_without_a_health_question_the_engine_decides(state: ReplicaState, expected: State) -> None:
    target = replace(TARGET, health=Health(HealthKind.NONE), replica=replica(state))

    assert getattr(standing(target), "state", None) is expected


def test_failures_within_the_start_period_are_starting() -> None:
    target = replace(TARGET, replica=replica(ReplicaState.STARTING, started_at=100.0))
    track = after(*(State.DOWN,) * 3)

    assert conclude(target, track, 129.0, JUDGING) == (State.STARTING, "down")
    assert conclude(target, track, 131.0, JUDGING) == (State.DOWN, "down")
    assert conclude(target, after(State.UP), 101.0, JUDGING)[0] is State.UP


def test_a_ready_replica_that_fails_is_down_however_young() -> None:
    target = replace(TARGET, replica=replica(ReplicaState.READY, started_at=100.0))

    assert conclude(target, after(*(State.DOWN,) * 3), 101.0, JUDGING)[0] is State.DOWN


def test_answering_while_the_engine_says_unhealthy_is_degraded() -> None:
    target = replace(TARGET, replica=replica(ReplicaState.UNHEALTHY, reason="health check failed"))
    state, reason = conclude(target, after(State.UP), 0.0, JUDGING)

    assert state is State.DEGRADED
    assert "health check failed" in reason


@pytest.mark.parametrize(
    ("states", "code", "strict", "nagios"),
    [
        ((State.UP,), 0, 0, 0),
        ((State.UP, State.DEGRADED), 0, 1, 1),
        ((State.UP, State.UNKNOWN), 3, 3, 3),
        ((State.DEGRADED, State.UNKNOWN), 3, 1, 3),
        ((State.DOWN, State.UNKNOWN, State.DEGRADED), 1, 1, 2),
        ((State.STARTING, State.DRAINING, State.MAINTENANCE), 0, 0, 0),
        ((), 0, 0, 0),
    ],
)
def test_exit_codes(states: tuple[State, ...], code: int, strict: int, nagios: int) -> None:
    found = results(*states)

    assert (exit_code(found), exit_code(found, fail_on_degraded=True), nagios_code(found)) == (code, strict, nagios)


@given(st.lists(st.sampled_from(State), max_size=30))
def test_the_summary_counts_every_result_once(states: list[State]) -> None:
    summary = results(*states).summary

    assert sum(getattr(summary, state.value) for state in State) == len(states)


def panic_of(size: int, turned: int, before: State = State.UP) -> tuple[str, ...]:
    targets = [replace(TARGET, name=f"web-{index}") for index in range(size)]
    states = {target.name: State.DOWN if index < turned else State.UP for index, target in enumerate(targets)}
    return panicking(targets, {target.name: before for target in targets}, states, JUDGING)


def test_more_than_half_of_a_group_down_at_once_is_a_panic() -> None:
    assert panic_of(10, 6) == ("web",)
    assert panic_of(10, 5) == ()


def test_small_groups_do_not_panic() -> None:
    assert panic_of(5, 5) == ("web",)
    assert panic_of(4, 4) == ()


def test_what_was_down_before_is_no_panic() -> None:
    assert panic_of(10, 10, before=State.DOWN) == ()


def test_a_first_round_is_no_panic() -> None:
    targets = [replace(TARGET, name=f"web-{index}") for index in range(10)]

    assert panicking(targets, {}, {target.name: State.DOWN for target in targets}, JUDGING) == ()


@given(st.text())
def test_shown_text_is_one_short_line_without_control_characters(text: str) -> None:
    plain = shown(text)

    assert len(plain) <= 200
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in plain)
    plain.encode("utf-8")


def test_escape_sequences_lose_their_power() -> None:
    assert shown("\x1b]0;pwned\x07\x1b[31mred\x9b0m") == "]0;pwned[31mred0m"


def test_a_secret_is_not_in_the_text_of_a_target() -> None:
    assert "hunter2" not in repr(replace(TARGET, secret="hunter2"))
