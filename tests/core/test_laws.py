"""The policies by tables: the HPA's rules with its own cases, the founding ones, windows, queues, and all together."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from cfscale.core.autoscale import decide, judge
from cfscale.core.cron import parse_cron
from cfscale.core.forecast import Outlook
from cfscale.core.history import History
from cfscale.core.laws import combine, laws_of
from cfscale.core.plan import Policy, Scaling
from cfscale.core.policies import policies_of
from cfscale.core.policy import Backlog, Observation, Proposal, Reading, Situation
from cfscale.core.samples import Quality, ReplicaState
from cfscale.core.workload import PolicyProfile, WindowProfile
from cfscale.errors import InputError
from tests.fake_service import AGENTS, SCALING, UNDAMPED, a_replica, a_usage

MONDAY_NOON = 1_767_614_400.0  # 2026-01-05 12:00 UTC
NONE = Reading("disk", 0.0, 0, 0, Quality.OK, "", 0.0)


def reading(resource: str, mean: float, reporting: int, expected: int | None = None) -> Reading:
    return Reading(
        resource,
        mean if reporting else 0.0,
        reporting,
        reporting if expected is None else expected,
        Quality.OK,
        "fake",
        0.0,
    )


def seen(
    cpu: float, ready: int, *, starting: int = 0, missing: int = 0, memory: float = 0.2, **more: object
) -> Situation:
    return Situation(
        time=1000.0,
        current=ready + starting,
        ready=ready,
        starting=starting,
        cpu=reading("cpu", cpu, ready - missing, ready),
        memory=reading("memory", memory, ready - missing, ready),
        disk=NONE,
        **more,  # type: ignore[arg-type]
    )


def asked(situation: Situation, *policies: Policy, scaling: Scaling = SCALING) -> Proposal:
    scaling = replace(scaling, policies=policies)
    return combine(situation, scaling, [law(situation, scaling) for law in laws_of(scaling)])


def target(usage: int, **options: str) -> Policy:
    return Policy("target", {"usage": f"{usage}%", **options})


@pytest.mark.parametrize(
    ("situation", "usage", "expected"),
    [
        pytest.param(seen(0.9, 3), 30, 9, id="ready replicas times the ratio"),
        pytest.param(seen(0.4, 4), 80, 2, id="down to what the target needs"),
        pytest.param(seen(0.55, 10), 50, 10, id="a ratio of 1.1 is within the tolerance"),
        pytest.param(seen(0.5501, 10), 50, 12, id="a ratio just above it is not"),
        pytest.param(seen(0.45, 10), 50, 10, id="a ratio of 0.9 is within the tolerance"),
        pytest.param(seen(0.4499, 10), 50, 9, id="a ratio just below it is not"),
        pytest.param(seen(1.0, 2, starting=2), 50, 4, id="those not ready count as idle on the way up"),
        pytest.param(seen(0.9, 3, starting=1), 30, 9, id="idle ones do not hide what is needed beyond them"),
        pytest.param(seen(0.6, 2, starting=2), 50, 4, id="and where that turns the direction nothing is done"),
        pytest.param(seen(0.2, 2, starting=2), 50, 1, id="those not ready do not count on the way down"),
        pytest.param(seen(0.2, 4, missing=1), 50, 4, id="one that does not report counts as full on the way down"),
        pytest.param(seen(0.05, 8, missing=1), 50, 3, id="and the rest may still go"),
        pytest.param(seen(1.0, 4, missing=2), 50, 4, id="one that does not report counts as idle on the way up"),
        pytest.param(seen(1.0, 5, missing=1), 50, 8, id="and the rest still ask for more"),
        pytest.param(seen(0.0, 5), 50, 1, id="never below one"),
    ],
)
def test_the_target_policy_counts_as_the_hpa_does(situation: Situation, usage: int, expected: int) -> None:
    assert asked(situation, target(usage)).replicas == expected


def test_without_any_metric_the_target_policy_changes_nothing() -> None:
    proposal = asked(seen(0.9, 3, missing=3), target(50))

    assert (proposal.replicas, proposal.shrinkable) == (3, False)


def test_a_target_may_be_of_memory() -> None:
    assert asked(seen(0.1, 4, memory=0.9), target(60, resource="memory")).replicas == 6


@pytest.mark.parametrize(
    ("cpu", "ready", "expected"), [(0.81, 4, 5), (0.8, 4, 4), (0.3, 10, 10), (0.2, 10, 6), (0.29, 2, 2), (0.0, 1, 1)]
)
def test_the_pool_grows_above_its_band_and_lets_half_of_the_idle_go_below(
    cpu: float, ready: int, expected: int
) -> None:
    assert asked(seen(cpu, ready), Policy("pool")).replicas == expected


def outlook(expected: float, doubt: str = "") -> Outlook:
    return Outlook(expected, 1.0, expected + 1.0, 180.0, 0.005, 0.001, 0.8, doubt, f"{expected} expected, 1.0 margin")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 11), ({"law": "founding"}, 20)],
    ids=["in proportion", "as it was written: it doubles just above 70 percent"],
)
def test_the_predictive_policy_grows_by_its_law(options: Mapping[str, str], expected: int) -> None:
    assert asked(seen(0.7001, 10), Policy("predictive", options)).replicas == expected


def test_the_predictive_policy_follows_the_forecast_where_there_is_one() -> None:
    assert asked(seen(0.5, 10, outlook=outlook(14.0)), Policy("predictive")).replicas == 20
    assert asked(seen(0.5, 10, outlook=outlook(14.0, "too short")), Policy("predictive")).replicas == 10


@pytest.mark.parametrize(("since", "expected"), [(None, 8), (500.0, 8), (400.0, 4)], ids=["not", "500 s", "600 s"])
def test_the_predictive_policy_halves_after_ten_minutes_of_low_load(since: float | None, expected: int) -> None:
    assert asked(seen(0.2, 8, low_since=since), Policy("predictive")).replicas == expected


def test_low_load_is_counted_from_the_last_change_on() -> None:
    scaling = replace(UNDAMPED, policies=(Policy("predictive"),))
    history = History()
    counts: list[int] = []
    for tick in range(130):
        now = 1000.0 + 10 * tick
        situation = replace(seen(0.1, 8 if not counts else counts[-1]), time=now, low_since=history.low_since)
        draft, history = judge(situation, AGENTS, scaling, history, laws_of(scaling))
        if draft.desired != draft.current:
            history = history.succeeded(draft.desired, now)
        counts.append(draft.desired)

    assert [counts.count(count) for count in (8, 4, 2)] == [60, 61, 9]


def test_the_slo_policy_takes_the_forecast_and_says_so() -> None:
    proposal = asked(seen(0.5, 4, outlook=outlook(5.4)), Policy("slo"))

    assert proposal.replicas == 7
    assert proposal.reason == "5.4 expected, 1.0 margin: 7 needed"


def test_the_slo_policy_falls_back_to_the_thresholds_and_says_so() -> None:
    for situation in (seen(0.95, 4, outlook=outlook(99.0, "the forecast errs")), seen(0.95, 4)):
        proposal = asked(situation, Policy("slo"))
        assert proposal.replicas == 5
        assert proposal.reason.startswith("cpu 95% is above 80%: 5 needed; ")
        assert proposal.reason.endswith(("the forecast errs", "no forecast yet"))


def test_the_slo_policy_heeds_memory_and_missing_metrics() -> None:
    assert asked(seen(0.2, 4, memory=0.7, outlook=outlook(0.5)), Policy("slo")).replicas == 4
    assert asked(seen(0.2, 4, memory=0.95, outlook=outlook(0.5)), Policy("slo")).replicas == 5
    assert asked(seen(0.2, 4, missing=2, outlook=outlook(0.5)), Policy("slo")).replicas == 4


def test_a_load_above_what_was_foreseen_counts() -> None:
    assert asked(seen(1.0, 6, outlook=outlook(2.0)), Policy("slo")).replicas == 6


SCHEDULE = PolicyProfile(
    kind="schedule",
    windows=[WindowProfile("0 8 * * 1-5", "10h", 6), WindowProfile("30 11 * * *", "1h", 9)],
)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0, 9), (0.5, 6), (-4, 6), (-4.1, 1), (6, 1), (5 * 24 - 1, 1), (-0.5, 9)],
)
def test_a_window_asks_for_its_count_while_it_is_open(hours: float, expected: int) -> None:
    situation = replace(seen(0.5, 2), time=MONDAY_NOON + hours * 3600)

    assert asked(situation, *policies_of([SCHEDULE])).replicas == expected


@pytest.mark.parametrize(
    ("line", "moment", "starts"),
    [
        ("*/15 * * * *", MONDAY_NOON, True),
        ("*/15 * * * *", MONDAY_NOON + 60, False),
        ("0 12 5 1 *", MONDAY_NOON, True),
        ("0 12 6 1 *", MONDAY_NOON, False),
        ("0 12 6 * mon", MONDAY_NOON, True),  # either of two restricted day fields
        ("0 12 * * 0", MONDAY_NOON, False),
        ("0 12 * * 7", MONDAY_NOON - 86_400, True),
        ("0 8-14/2 * * *", MONDAY_NOON, True),
        ("0 9,12 * * *", MONDAY_NOON, True),
    ],
)
def test_a_cron_line_names_times(line: str, moment: float, *, starts: bool) -> None:
    assert parse_cron(line).within(moment + 30, 60) is starts


@pytest.mark.parametrize(
    "line",
    ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "5-2 * * * *", "*/0 * * * *", "x * * * *", "٣ * * * *"],
)
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    with pytest.raises(InputError):
        parse_cron(line)


def queue(waiting: float | None) -> Mapping[str, Backlog]:
    return {"q": Backlog("q", waiting, 10.0, problem="" if waiting is not None else "redis: refused")}


QUEUE = Policy("queue", {"name": "q", "per_replica": "10"})


@pytest.mark.parametrize(("waiting", "expected"), [(0, 1), (10, 1), (11, 2), (95, 10)])
def test_a_queue_asks_for_what_its_backlog_needs(waiting: int, expected: int) -> None:
    assert asked(seen(0.5, 4, backlogs=queue(waiting)), QUEUE).replicas == expected


def test_a_backlog_that_is_not_known_keeps_the_count_and_forbids_shrinking() -> None:
    situation = seen(0.1, 4, backlogs=queue(None))
    proposal = asked(situation, QUEUE, Policy("resource"))

    assert (proposal.replicas, proposal.shrinkable) == (4, False)
    assert asked(seen(0.95, 4, backlogs=queue(None)), QUEUE, Policy("resource")).replicas == 5


def test_of_several_policies_the_largest_wish_wins() -> None:
    situation = seen(0.5, 4, backlogs=queue(65))

    assert asked(situation, Policy("resource"), QUEUE, target(60)).replicas == 7


def test_a_decision_writes_down_what_each_policy_wished() -> None:
    scaling = replace(UNDAMPED, policies=(Policy("resource"), target(50)))
    replicas = tuple(a_replica(number, ReplicaState.READY) for number in (1, 2))
    usages = tuple(a_usage(number, 0.7, time=1000.0) for number in (1, 2))

    decision, _ = decide(Observation(AGENTS, "fake", 1000.0, replicas, usages), scaling, History())

    assert decision.basis is not None
    assert decision.basis.proposals == {"resource": 2, "target": 3}


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (PolicyProfile(kind="pool", usage="70%"), "usage is no option of 'pool'"),
        (PolicyProfile(kind="target", usage="170%"), "is not a share"),
        (PolicyProfile(kind="schedule"), "windows is missing"),
        (PolicyProfile(kind="schedule", windows=[WindowProfile("0 8 * * *", "0s", 3)]), "lasts no time"),
        (PolicyProfile(kind="queue", source="redis"), "takes source, url and per_replica"),
        (PolicyProfile(kind="queue", source="redis", url="redis://h", per_replica=5), "key is missing"),
        (PolicyProfile(kind="queue", source="http", url="file:///x", field="n", per_replica=5), "write http://"),
        (
            PolicyProfile(kind="queue", source="redis", url="redis://:pw@h", key="k", per_replica=5),
            "CFSCALE_QUEUE_PASSWORD",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(policy: PolicyProfile, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        policies_of([policy])
