from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.core.swarm import carried, fitting, keepers, losses, pin_label, places
from tests.render.plans import TIERS, changed, plan_for

LABELS = st.lists(st.sampled_from([f"cfscale.acme.{name}" for name in "abcdefg"]), unique=True)
NODES = st.dictionaries(st.sampled_from("xyz"), st.frozensets(st.sampled_from([f"cfscale.acme.{n}" for n in "abc"])))


@pytest.mark.parametrize("tier", TIERS)
def test_a_carried_plan_is_carried_as_it_is(tier: str) -> None:
    once = carried(plan_for(tier))

    assert carried(once) == once
    assert once.service("loadbalancer").publish == "0.0.0.0:8080"


@given(LABELS, NODES)
def test_every_label_gets_one_place_and_none_that_has_one_is_moved(
    labels: list[str], nodes: dict[str, frozenset[str]]
) -> None:
    found = places(labels, nodes)
    placed = set().union(*nodes.values()) if nodes else set()

    assert found.keys() == (set(labels) - placed if nodes else set())
    assert set(found.values()) <= nodes.keys()


@given(st.integers(1, 9), st.integers(1, 9))
def test_labels_are_spread_over_the_nodes(labels: int, nodes: int) -> None:
    found = places([f"l{number}" for number in range(labels)], {f"n{number}": frozenset() for number in range(nodes)})
    load = [list(found.values()).count(f"n{number}") for number in range(nodes)]

    assert max(load) - min(load) <= 1


def test_only_what_takes_a_port_of_its_node_is_bounded_by_the_nodes() -> None:
    plan = plan_for("department")

    assert fitting(plan, {"loadbalancer": 3, "agents": 20}, 2) == {"loadbalancer": 2, "agents": 20}
    assert fitting(plan, {"loadbalancer": 3}, 5) == {"loadbalancer": 3}


def test_a_label_names_deployment_and_service() -> None:
    assert [pin_label(plan_for("team"), name) for name in keepers(plan_for("team"))] == [
        "cfscale.acme.coordinator",
        "cfscale.acme.queue",
    ]


@pytest.mark.parametrize(("failover", "listed"), [(None, 0), ("automatic", 0), ("cross_region", 1), ("global", 1)])
def test_other_regions_are_a_loss_where_the_tier_promises_them(failover: str | None, listed: int) -> None:
    plan = plan_for("team")
    found = losses(replace(plan, settings=replace(plan.settings, failover=failover)))

    assert [loss.field for loss in found].count("failover") == listed


def test_what_is_not_in_the_plan_is_no_loss() -> None:
    plan = plan_for("single-user")
    for name in ("agents", "coordinator"):
        plan = changed(plan, name, build=False, min_replicas=2, max_replicas=2)
    fields = {loss.field for loss in losses(changed(plan, "loadbalancer", publish=None))}

    assert fields & {"ports", "build", "scaling"} == set()


def test_a_loss_is_one_line() -> None:
    loss = losses(plan_for("team"))[0]

    assert loss.line().startswith("not on swarm: loadbalancer: ports (127.0.0.1:8080-8081): port 8080 of every address")
    assert all("\n" not in item.line() for item in losses(plan_for("enterprise")))
