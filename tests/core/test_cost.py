"""What a plan costs."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.cost import Machine, Prices, priced
from cfscale.core.nodes import Shape, pack
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.units import GIB
from cfscale.core.workload import Profile
from cfscale.errors import InputError

CATALOGUE = load_catalogue()
MACHINES = (
    Machine("small", 4000, 8 * GIB, Fraction("0.1")),
    Machine("middle", 16_000, 64 * GIB, Fraction("0.5")),
    Machine("dear", 16_000, 64 * GIB, Fraction("0.9")),
    Machine("large", 64_000, 256 * GIB, Fraction("1.9")),
)


def prices(*machines: Machine) -> Prices:
    return Prices("prices.yaml", "2026-11-01", "EUR", "west", machines or MACHINES, Fraction("0.05"))


def plan(agents: int = 400) -> DeploymentPlan:
    return size(Profile(users=40, agents=agents, tasks=800), CATALOGUE)


def test_nodes_storage_and_the_share_of_an_agent_add_up() -> None:
    found = priced(plan(), CATALOGUE, prices())
    cost = found.cost

    assert cost is not None
    assert (found.nodes.cpu_millicores, found.nodes.memory_bytes, found.nodes.count) == (16_000, 64 * GIB, 3)
    assert (cost.machine, cost.node_month) == ("middle", 365.0)  # 0.5 an hour x 730
    assert cost.nodes_month == 3 * 365.0
    assert cost.storage_month == pytest.approx(found.totals.storage_bytes / GIB * 0.05)
    assert cost.month == pytest.approx(cost.nodes_month + cost.storage_month)
    assert cost.agent_month == pytest.approx(cost.month / 400, abs=0.0005)


def test_every_amount_of_the_cost_has_a_rule() -> None:
    found = priced(plan(), CATALOGUE, prices())
    by_field = {entry.field: entry.value for entry in found.ledger if entry.rule.startswith("cost.")}

    assert found.cost is not None
    assert by_field == {
        "cost.node_month": found.cost.node_month,
        "cost.nodes_month": found.cost.nodes_month,
        "cost.storage_month": found.cost.storage_month,
        "cost.month": found.cost.month,
        "cost.agent_month": found.cost.agent_month,
    }


@settings(max_examples=50)
@given(st.integers(1, 30_000))
def test_the_cheapest_machines_carry_all_replicas_for_less(agents: int) -> None:
    found = priced(plan(agents), CATALOGUE, prices())
    other = found.cost.cheapest if found.cost else None

    if other is not None:
        assert found.cost is not None
        assert other.nodes_month < found.cost.nodes_month
        needed = pack(Shape(other.cpu_millicores, other.memory_bytes), found.services)
        assert needed is not None
        assert other.nodes >= needed * found.cells


def test_without_cheaper_machines_none_is_named() -> None:
    found = priced(plan(), CATALOGUE, prices(MACHINES[1]))

    assert found.cost is not None
    assert found.cost.cheapest is None


def test_no_agents_have_no_share() -> None:
    found = priced(plan(0), CATALOGUE, prices())

    assert found.cost is not None
    assert found.cost.agent_month is None


def test_a_region_without_a_machine_as_large_as_planned_is_refused() -> None:
    with pytest.raises(InputError, match="no machine of region 'west' has 16 cores and 64G or more: add one"):
        priced(plan(), CATALOGUE, prices(MACHINES[0]))
