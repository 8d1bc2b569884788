"""What the founding document says twice: every contradiction is stated, and a plan says which of them changed it."""

import pytest

from cfscale.adapters.assets import load_catalogue
from cfscale.core.sizing import size
from cfscale.core.workload import Environment, Profile

CATALOGUE = load_catalogue()
ALWAYS = {"memory-rule-vs-environments", "production-limit-vs-enterprise", "tier-edges-overlap", "doubling-scale-law"}


def conflicts(users: int, agents: int, tasks: int, environment: Environment = "production") -> dict[str, bool]:
    plan = size(Profile(users=users, agents=agents, tasks=tasks, environment=environment), CATALOGUE)
    return {conflict.id: conflict.changed for conflict in plan.conflicts}


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ((3, 20, 20), ALWAYS | {"memory-rule-vs-single-user"}),
        (
            (10, 100, 100),
            ALWAYS | {"memory-rule-vs-team", "phases-vs-tiers", "backups-vs-replication-factor"},
        ),
        (
            (40, 400, 800),
            ALWAYS
            | {
                "memory-rule-vs-department",
                "phases-vs-tiers",
                "backups-vs-replication-factor",
                "failover-across-regions-vs-phase",
            },
        ),
        ((500, 4000, 1), ALWAYS | {"memory-rule-vs-enterprise", "backups-vs-replication-factor"}),
    ],
)
def test_a_plan_states_the_contradictions_that_concern_its_tier_and_phase(
    load: tuple[int, int, int], expected: set[str]
) -> None:
    assert conflicts(*load).keys() - {"memory-demand-over-tier"} == expected


def test_few_users_on_a_large_tier_are_in_the_phase_that_contradicts_it() -> None:
    assert conflicts(10, 5000, 1)["phases-vs-tiers"]


@pytest.mark.parametrize(
    ("conflict", "without", "with_it"),
    [
        ("tier-edges-overlap", (24, 240, 1), (25, 240, 1)),
        ("tier-edges-overlap", (24, 249, 1), (24, 250, 1)),
        ("production-limit-vs-enterprise", (90, 1000, 1), (90, 1001, 1)),
        ("memory-rule-vs-environments", (90, 840, 1), (90, 841, 1)),
        ("memory-rule-vs-team", (20, 250, 150), (20, 250, 151)),
        ("backups-vs-replication-factor", (40, 400, 800), (20, 200, 100)),
    ],
)
def test_a_contradiction_changed_a_plan_only_where_the_other_reading_gives_another_plan(
    conflict: str, without: tuple[int, int, int], with_it: tuple[int, int, int]
) -> None:
    assert (conflicts(*without)[conflict], conflicts(*with_it)[conflict]) == (False, True)


def test_a_single_instance_is_changed_where_its_memory_would_have_admitted_fewer() -> None:
    without, with_it = conflicts(1, 40, 1, "development"), conflicts(1, 41, 1, "development")

    assert not without["memory-rule-vs-environments"]
    assert with_it["memory-rule-vs-environments"]


def test_a_demand_over_the_range_of_its_tier_is_stated_with_both_figures() -> None:
    plan = size(Profile(users=25, agents=250, tasks=500), CATALOGUE)
    (found,) = [conflict for conflict in plan.conflicts if conflict.id == "memory-demand-over-tier"]

    assert found.values == ("memory rule: 20 GiB", "team tier: at most 16 GiB (founding:137)")
    assert found.chosen == "20 GiB"
    assert found.changed


def test_the_law_of_growth_changes_no_number_of_a_plan() -> None:
    assert not conflicts(40, 400, 800)["doubling-scale-law"]
