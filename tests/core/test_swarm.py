import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.core.swarm import carried, fitting, keepers, losses, pin_label, places, require_names
from cfscale.errors import InputError
from tests.render.sized import TIERS, altered, sized

LABELS = st.lists(st.sampled_from([f"cfscale.acme.{name}" for name in "abcdefg"]), unique=True)
NODES = st.dictionaries(st.sampled_from("xyz"), st.frozensets(st.sampled_from([f"cfscale.acme.{n}" for n in "abc"])))


@pytest.mark.parametrize("tier", TIERS)
def test_a_carried_plan_is_carried_as_it_is(tier: str) -> None:
    once = carried(sized(tier))

    assert carried(once) == once
    assert [one.publish for one in once.services if one.publish] == ["0.0.0.0:8080"]


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
    plan = sized("department")

    assert fitting(plan, {"loadbalancer": 3, "agents": 20}, 2) == {"loadbalancer": 2, "agents": 20}
    assert fitting(plan, {"loadbalancer": 3}, 5) == {"loadbalancer": 3}


def test_a_label_names_deployment_and_service() -> None:
    labels = [pin_label(sized("team"), name) for name in keepers(sized("team"))]

    assert labels[:3] == ["cfscale.acme.coordinator", "cfscale.acme.queue-1", "cfscale.acme.queue-2"]
    assert not any("cache" in label or "agents" in label for label in labels)


@pytest.mark.parametrize(("failover", "listed"), [(None, 0), ("automatic", 0), ("cross_region", 1), ("global", 1)])
def test_other_regions_are_a_loss_where_the_tier_promises_them(failover: str | None, listed: int) -> None:
    plan = sized("team")
    found = losses(replace(plan, settings=replace(plan.settings, failover=failover)))

    assert [loss.field for loss in found].count("failover") == listed


def test_what_is_not_in_the_plan_is_no_loss() -> None:
    plan = sized("single-user")
    for name in ("agents", "coordinator"):
        plan = altered(plan, name, build=False, min_replicas=2, max_replicas=2, publish=None)
    fields = {loss.field for loss in losses(plan)}

    assert fields & {"ports", "build", "scaling", "healthcheck"} == set()


@pytest.mark.parametrize(("name", "fits"), [("a" * 50, True), ("a" * 51, False)])
def test_a_name_must_leave_room_for_those_of_the_services(name: str, fits: object) -> None:
    plan = replace(sized("team"), name=name)
    if fits:
        require_names(plan)
    else:
        with pytest.raises(InputError, match="Swarm takes at most 50 characters, with loadbalancer behind it"):
            require_names(plan)


def test_a_loss_is_one_line() -> None:
    loss = losses(sized("team"))[0]

    assert loss.line().startswith("not on swarm: loadbalancer: ports (127.0.0.1:8080-8081): port 8080 of every address")
    assert all("\n" not in item.line() for item in losses(sized("enterprise")))
