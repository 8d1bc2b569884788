"""What Compose cannot carry: told for every plan that it concerns, to no other, and never without what would do it."""

import pytest
from msgspec.structs import replace

from cfscale.core.composeloss import TARGET, losses
from cfscale.core.plan import DeploymentPlan
from tests.render.sized import TIERS, altered, sized

ALWAYS = {
    "batches of ten messages",
    "weights by free resources",
    "an update that is rolled back",
    "storage",
    "health.rise",
}
COPIES = {
    "machines of their own",
    "backups of the database",
    "votes of etcd and Sentinel",
    "a queue whose primary died and never came back before everything was stopped",
}
EXPECTED = {
    "single-user": ALWAYS | {"metrics and their retention"},
    "team": ALWAYS | COPIES,
    "department": ALWAYS | COPIES | {"sharding of the database", "failover across regions"},
    "enterprise": ALWAYS
    | COPIES
    | {
        "sharding of the database",
        "failover across regions",
        "geographic distribution",
        "content delivery network",
        "multi-master database",
        "encryption at rest and between services",
    },
}


def lost(plan: DeploymentPlan) -> set[str]:
    return {loss.field for loss in losses(plan)}


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_is_told_what_it_promises_and_compose_cannot_do(tier: str) -> None:
    assert lost(sized(tier)) == EXPECTED[tier]


def test_more_than_one_cell_is_a_loss() -> None:
    plan = sized("enterprise")

    assert lost(replace(plan, cells=2)) - lost(plan) == {"cells"}


def test_failover_across_regions_is_lost_where_it_is_promised_only() -> None:
    plan = sized("team")
    for promise in ("cross_region", "global"):
        promised = replace(plan, settings=replace(plan.settings, failover=promise))

        assert lost(promised) - lost(plan) == {"failover across regions"}


def test_what_an_answer_s_body_says_is_lost_for_the_service_that_is_asked_for_it() -> None:
    plan = sized("team")
    health = replace(plan.service("agents").health, json={"ok": "true"})
    asked = altered(plan, "agents", health=health)

    assert [loss.services for loss in losses(asked) if loss.field == "health.json"] == [("agents",)]


def test_one_good_answer_is_enough_where_the_balancer_does_not_ask_too() -> None:
    plan = sized("team")
    (settled,) = (loss.services for loss in losses(plan) if loss.field == "health.rise")

    assert set(settled) == {service.name for service in plan.services} - {"agents", "coordinator"}


def test_a_part_that_is_not_there_loses_nothing() -> None:
    plan = sized("department")
    without = replace(
        plan, services=tuple(one for one in plan.services if one.name not in ("memory", "etcd", "sentinel"))
    )

    assert lost(plan) - lost(without) == {
        "sharding of the database",
        "votes of etcd and Sentinel",
        "a queue whose primary died and never came back before everything was stopped",
    }


@pytest.mark.parametrize("tier", TIERS)
def test_every_loss_says_what_there_is_instead_and_what_would_do_it_in_one_line(tier: str) -> None:
    for loss in losses(sized(tier)):
        line = loss.line()

        assert loss.target == TARGET
        assert loss.field in line
        assert all(words in line for words in (loss.carried, loss.why))
        assert "\n" not in line
