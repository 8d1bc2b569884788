import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.core.autoscale import decide, unavailable
from cfscale.core.decision import Action, Decision, Urgency
from cfscale.core.history import History, Recommendation
from cfscale.core.plan import Damping, Scaling
from cfscale.core.policy import Observation, Pause
from cfscale.core.samples import Quality, ReplicaState
from tests.fake_service import AGENTS, SCALING, UNDAMPED, a_replica, a_usage

NOW = 1_000_000.0
READY, STARTING, UNHEALTHY = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.UNHEALTHY


def observed(count: int, cpu: float, memory: float = 0.5, *, others: tuple[ReplicaState, ...] = ()) -> Observation:
    ready = [a_replica(number) for number in range(1, count + 1)]
    rest = [a_replica(1000 + number, state) for number, state in enumerate(others)]
    usages = tuple(a_usage(number, cpu, memory, NOW) for number in range(1, count + 1))
    return Observation(AGENTS, "process", NOW, (*ready, *rest), usages)


def stale(observation: Observation) -> Observation:
    return replace(observation, usages=tuple(replace(usage, taken_at=NOW - 1000) for usage in observation.usages))


def bounded(observation: Observation, least: int, most: int) -> Observation:
    return replace(observation, service=replace(AGENTS, min_replicas=least, max_replicas=most))


def decided(observation: Observation, scaling: Scaling = UNDAMPED, history: History | None = None) -> Decision:
    return decide(observation, scaling, history or History(replicas=observation.current))[0]


def test_a_decision_says_what_why_and_on_which_data() -> None:
    decision = decided(observed(2, 1.0))
    assert (decision.schema, decision.service, decision.engine) == ("cfscale/decision/v1", "agents", "process")
    assert (decision.current, decision.desired, decision.action, decision.applied) == (2, 3, Action.SCALE_UP, False)
    assert decision.time == "1970-01-12T13:46:40.000Z"
    assert decision.reason == "cpu 100% is above 80%: 3 needed"
    assert [sample.resource for sample in decision.samples] == ["cpu", "memory"]


@pytest.mark.parametrize(
    ("cpu", "urgency"), [(0.9, Urgency.HIGH), (0.96, Urgency.CRITICAL), (0.5, Urgency.LOW), (0.1, Urgency.LOW)]
)
def test_urgency_is_high_when_growing_and_critical_near_the_limit(cpu: float, urgency: Urgency) -> None:
    assert decided(observed(2, cpu, 0.1)).urgency is urgency


def test_a_change_within_the_tolerance_is_not_made() -> None:
    scaling = replace(UNDAMPED, tolerance_ratio=0.1)
    assert decided(observed(10, 0.85), scaling).action is Action.HOLD
    assert decided(bounded(observed(10, 0.89), 1, 20), scaling).desired == 12
    assert decided(observed(2, 0.85), scaling).desired == 3


def test_growth_waits_for_the_lowest_recommendation_of_its_window() -> None:
    scaling = replace(UNDAMPED, scale_up=Damping(60.0, 0.0, 10_000, None))
    calm = History(replicas=2, recommendations=(Recommendation(NOW - 50, 2),))
    busy = History(replicas=2, recommendations=(Recommendation(NOW - 70, 2), Recommendation(NOW - 50, 3)))
    assert decided(observed(2, 1.0), scaling, calm).action is Action.HOLD
    assert decided(observed(2, 1.0), scaling, busy).desired == 3


def test_a_shrink_goes_to_the_highest_recommendation_of_its_window() -> None:
    scaling = replace(UNDAMPED, scale_down=Damping(300.0, 0.0, 100, None))
    history = History(replicas=8, recommendations=(Recommendation(NOW - 301, 8), Recommendation(NOW - 299, 5)))
    decision = decided(observed(8, 0.05, 0.05), scaling, history)
    assert decision.desired == 5
    assert "highest recommendation of the last 5m" in decision.reason


def test_the_first_look_never_shrinks_within_a_window() -> None:
    assert decided(observed(8, 0.05, 0.05), SCALING, History()).action is Action.HOLD


def test_ticks_further_apart_than_the_window_still_shrink() -> None:
    history = History(replicas=8, recommendations=(Recommendation(NOW - 1000, 4),))
    assert decided(observed(8, 0.05, 0.05), SCALING, history).desired == 4


@pytest.mark.parametrize(
    ("count", "percent", "replicas", "expected"),
    [(2, 100, 4, 6), (8, 100, 4, 16), (3, 10, None, 4), (1, 100, None, 2)],
    ids=["replicas", "percent", "rounded up", "one"],
)
def test_growth_takes_the_larger_of_the_two_steps(
    count: int, percent: int, replicas: int | None, expected: int
) -> None:
    scaling = replace(
        UNDAMPED,
        scale_up=Damping(0.0, 0.0, percent, replicas),
        cpu=msgspec.structs.replace(SCALING.cpu, scale_up_ratio=0.01),
    )
    assert decided(bounded(observed(count, 1.0), 1, 1000), scaling).desired == expected


@pytest.mark.parametrize(
    ("count", "percent", "replicas", "expected"),
    [(8, 50, None, 4), (3, 50, None, 1), (8, 10, 3, 5), (9, 5, None, 8), (1, 100, None, 1)],
    ids=["half", "truncated as the HPA does", "replicas", "always progress", "one stays"],
)
def test_a_shrink_takes_at_most_its_step(count: int, percent: int, replicas: int | None, expected: int) -> None:
    scaling = replace(UNDAMPED, scale_down=Damping(0.0, 0.0, percent, replicas))
    assert decided(observed(count, 0.0, 0.0), scaling).desired == expected


def test_nothing_changes_within_the_cooldown_of_its_direction() -> None:
    history = History(replicas=4, changed_at=NOW - 29, recommendations=(Recommendation(NOW - 10, 1),))
    assert "cooling down for 1s" in decided(observed(4, 1.0), SCALING, history).reason
    assert decided(observed(4, 1.0), SCALING, replace(history, changed_at=NOW - 30)).action is Action.SCALE_UP
    shrinking = observed(4, 0.05, 0.05)
    assert decided(shrinking, SCALING, replace(history, changed_at=NOW - 299)).action is Action.HOLD
    assert decided(shrinking, SCALING, replace(history, changed_at=NOW - 300)).action is Action.SCALE_DOWN


def test_a_clock_that_was_set_back_does_not_stop_scaling_for_long() -> None:
    history = History(replicas=2, changed_at=NOW + 3600, recommendations=(Recommendation(NOW + 3600, 9),))
    _, later = decide(observed(2, 1.0), SCALING, history)
    assert later.changed_at == NOW
    assert [item.time for item in later.recommendations] == [NOW]


def test_a_count_below_the_minimum_is_raised_even_without_metrics() -> None:
    decision = decided(stale(bounded(observed(1, 0.1), 3, 5)), SCALING)
    assert (decision.desired, decision.action) == (3, Action.SCALE_UP)


def test_a_count_above_the_maximum_is_lowered_only_on_good_data() -> None:
    crowded = bounded(observed(8, 0.9), 1, 5)
    assert decided(crowded).desired == 5
    assert decided(stale(crowded)).desired == 8
    assert decided(crowded, SCALING, History(replicas=8, changed_at=NOW)).desired == 8


def test_a_count_changed_from_outside_is_adopted_and_starts_the_cooldown() -> None:
    decision, history = decide(observed(5, 1.0), SCALING, History(replicas=3))
    assert (decision.desired, decision.action) == (5, Action.HOLD)
    assert decision.reason == "the count was changed from outside from 3 to 5: adopted"
    assert (history.replicas, history.changed_at) == (5, NOW)


def test_most_of_a_group_turning_unhealthy_at_once_is_a_panic() -> None:
    ready = tuple(replica.id for replica in observed(6, 1.0).replicas)
    sick = observed(6, 1.0)
    sick = replace(
        sick, replicas=tuple(replace(r, state=UNHEALTHY if i < 4 else READY) for i, r in enumerate(sick.replicas))
    )
    assert decided(sick, UNDAMPED, History(replicas=6, ready=ready)).reason.startswith("4 of 6 turned unhealthy")
    assert "turned unhealthy" not in decided(sick, UNDAMPED, History(replicas=6, ready=ready[4:])).reason


@pytest.mark.parametrize(
    ("cpu", "pause", "word"),
    [(1.0, Pause(scale_out_until=NOW + 1), "out is paused"), (0.0, Pause(scale_in_until=NOW + 1), "in is paused")],
)
def test_a_paused_direction_holds_until_the_pause_ends(cpu: float, pause: Pause, word: str) -> None:
    paused = replace(observed(4, cpu, 0.1), pause=pause)
    assert word in decided(paused).reason
    assert decided(paused).action is Action.HOLD
    assert decided(replace(paused, pause=Pause(NOW, NOW))).action is not Action.HOLD


def test_failed_actions_are_retried_ever_later_and_bar_only_their_own_direction() -> None:
    history = History(replicas=2).failed(Action.SCALE_UP, 2, NOW, SCALING)
    assert history.retry_at == NOW + 20
    assert "did not take effect" in decided(observed(2, 1.0), UNDAMPED, history).reason
    assert decided(observed(2, 0.0, 0.0), UNDAMPED, history).action is Action.SCALE_DOWN
    for _ in range(2):
        history = history.failed(Action.SCALE_UP, 2, NOW, SCALING)
    assert history.retry_at == NOW + SCALING.safety.breaker_open_seconds
    assert history.succeeded(3, NOW).failures == 0


def test_what_cannot_be_observed_stays_as_it_was() -> None:
    decision = unavailable(observed(0, 0.0), "engine: connection refused", History(replicas=7))
    assert (decision.current, decision.desired, decision.action) == (7, 7, Action.HOLD)
    assert not decision.grounded


def test_a_history_survives_json() -> None:
    _, history = decide(observed(3, 0.9), SCALING, History(replicas=3, changed_at=NOW - 5))
    assert msgspec.json.decode(msgspec.json.encode(history), type=History) == history


unhurried = settings(deadline=None)
ratios = st.floats(min_value=0, max_value=2)
counts = st.integers(min_value=1, max_value=40)
states = st.lists(st.sampled_from([STARTING, UNHEALTHY]), max_size=5).map(tuple)
dampings = st.builds(
    Damping,
    st.sampled_from([0.0, 60.0, 300.0]),
    st.sampled_from([0.0, 30.0, 300.0]),
    st.integers(1, 300),
    st.none() | st.integers(1, 10),
)
scalings = st.builds(
    lambda up, down, tolerance: replace(SCALING, scale_up=up, scale_down=down, tolerance_ratio=tolerance),
    dampings,
    dampings,
    st.floats(0, 0.5),
)
recommendations = st.lists(st.builds(Recommendation, st.floats(NOW - 600, NOW), st.integers(1, 60)), max_size=5).map(
    lambda items: tuple(sorted(items, key=lambda item: item.time))
)
histories = st.builds(
    History,
    replicas=st.none() | counts,
    changed_at=st.none() | st.floats(NOW - 600, NOW),
    recommendations=recommendations,
)
situations = st.builds(
    lambda n, cpu, memory, others: observed(n, cpu, memory, others=others), counts, ratios, ratios, states
)
bounds = st.tuples(counts, counts).map(sorted)


@unhurried
@given(situations, scalings, histories, bounds)
def test_a_change_stays_within_the_bounds(
    situation: Observation, scaling: Scaling, history: History, bound: list[int]
) -> None:
    decision = decided(bounded(situation, *bound), scaling, history)
    if bound[0] <= decision.current <= bound[1] or decision.action is not Action.HOLD:
        assert bound[0] <= decision.desired <= bound[1]


@unhurried
@given(situations, scalings, histories)
def test_a_change_never_exceeds_the_larger_step(situation: Observation, scaling: Scaling, history: History) -> None:
    decision = decided(bounded(situation, 1, 1000), scaling, history)
    damping = scaling.scale_up if decision.action is Action.SCALE_UP else scaling.scale_down
    step = max(-(-decision.current * damping.max_percent // 100), damping.max_replicas or 0)
    assert abs(decision.desired - decision.current) <= step


@unhurried
@given(counts, st.tuples(ratios, ratios).map(sorted), ratios, scalings, histories)
def test_more_load_never_means_fewer_replicas(
    count: int, cpus: list[float], memory: float, scaling: Scaling, history: History
) -> None:
    past = replace(history, replicas=count)
    low, high = (bounded(observed(count, cpu, memory), 1, 1000) for cpu in cpus)
    assert decided(low, scaling, past).desired <= decided(high, scaling, past).desired


@unhurried
@given(situations, scalings, histories, bounds)
def test_stale_data_never_shrinks(situation: Observation, scaling: Scaling, history: History, bound: list[int]) -> None:
    decision = decided(stale(bounded(situation, *bound)), scaling, history)
    assert decision.desired >= decision.current
    assert not decision.grounded
    assert all(sample.quality is Quality.STALE for sample in decision.samples)


@unhurried
@given(situations, scalings, histories)
def test_nothing_changes_in_a_direction_within_its_cooldown(
    situation: Observation, scaling: Scaling, history: History
) -> None:
    decision = decided(bounded(situation, 1, 1000), scaling, history)
    damping = scaling.scale_up if decision.action is Action.SCALE_UP else scaling.scale_down
    if history.changed_at is not None and NOW - history.changed_at < damping.cooldown_seconds:
        assert decision.action is Action.HOLD


@unhurried
@given(situations, scalings, histories)
def test_equal_arguments_give_equal_decisions(situation: Observation, scaling: Scaling, history: History) -> None:
    assert decide(situation, scaling, history) == decide(situation, scaling, history)


@unhurried
@given(situations, scalings, histories)
def test_somebody_healthy_always_stays(situation: Observation, scaling: Scaling, history: History) -> None:
    assert decided(situation, scaling, history).desired >= 1


@pytest.mark.parametrize(("failures", "wait"), [(1, 20.0), (2, 600.0)])
def test_the_breaker_opens_after_as_many_failures_as_the_plan_says(failures: int, wait: float) -> None:
    strict = replace(SCALING, safety=msgspec.structs.replace(SCALING.safety, breaker_failures=2))
    history = History(replicas=2)
    for _ in range(failures):
        history = history.failed(Action.SCALE_UP, 2, NOW, strict)

    assert history.retry_at == NOW + wait
