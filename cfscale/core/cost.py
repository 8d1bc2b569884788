"""What a plan costs by the prices of one region: its machines, its storage, and the cheapest machines that would carry it.

All arithmetic is exact; amounts are rounded once, where they are shown.
"""

from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.ledger import entry
from cfscale.core.nodes import Shape, pack
from cfscale.core.plan import Alternative, Cost, DeploymentPlan, LedgerEntry
from cfscale.core.search import spare_of
from cfscale.core.tier import Catalogue
from cfscale.core.units import GIB, format_cpu, format_size
from cfscale.errors import InputError

_DECIMALS = 4  # a hundredth of a cent: an agent may cost little


class Machine(Struct, frozen=True):
    """A machine that can be had, and its price an hour."""

    name: str
    cpu_millicores: int
    memory_bytes: int
    hourly: Fraction


class Prices(Struct, frozen=True):
    """The prices of one region on one day; storage is a GiB a month. ``name`` says where they stand, for messages."""

    name: str
    date: str
    currency: str
    region: str
    machines: tuple[Machine, ...]
    storage_gib_month: Fraction


def priced(plan: DeploymentPlan, catalogue: Catalogue, prices: Prices) -> DeploymentPlan:
    """The plan with its cost and the entries that explain it; raises InputError where no machine is as large as planned."""
    hours, planned = catalogue.rules.leaf("sizing.prices.hours_per_month"), plan.nodes
    fitting = [m for m in prices.machines if _holds(m, planned.cpu_millicores, planned.memory_bytes)]
    if not fitting:
        shape = f"{format_cpu(planned.cpu_millicores)} cores and {format_size(planned.memory_bytes)}"
        raise InputError(f"{prices.name}: no machine of region '{prices.region}' has {shape} or more: add one")
    machine = min(fitting, key=lambda m: (m.hourly, m.cpu_millicores, m.memory_bytes, m.name))
    node = machine.hourly * hours.exact
    count = plan.cells * planned.count
    storage = prices.storage_gib_month * Fraction(plan.totals.storage_bytes, GIB)
    month = node * count + storage
    cost = Cost(
        currency=prices.currency,
        region=prices.region,
        prices_date=prices.date,
        machine=machine.name,
        node_month=_money(node),
        nodes_month=_money(node * count),
        storage_month=_money(storage),
        month=_money(month),
        agent_month=_money(month / plan.admitted_agents) if plan.admitted_agents else None,
        cheapest=_cheapest(plan, catalogue, prices, (machine, node * count)),
    )
    return replace(plan, cost=cost, ledger=(*plan.ledger, *_entries(plan, catalogue, prices, (machine, cost))))


def _holds(machine: Machine, cpu_millicores: int, memory_bytes: int) -> bool:
    return machine.cpu_millicores >= cpu_millicores and machine.memory_bytes >= memory_bytes


def _money(amount: Fraction) -> float:
    return float(round(amount, _DECIMALS))


def _cheapest(
    plan: DeploymentPlan, catalogue: Catalogue, prices: Prices, planned: tuple[Machine, Fraction]
) -> Alternative | None:
    """The machines that carry the same replicas for the least money; None where that is no less than planned."""
    hours = catalogue.rules.leaf("sizing.prices.hours_per_month").exact
    found = [
        (count * machine.hourly * hours, count, machine)
        for machine in prices.machines
        if (count := _needed(plan, catalogue, machine)) is not None
    ]
    month, count, machine = min(
        found, key=lambda item: (item[0], item[1], item[2].name), default=(planned[1], 0, planned[0])
    )
    if month >= planned[1]:
        return None
    return Alternative(machine.name, machine.cpu_millicores, machine.memory_bytes, count, _money(month))


def _needed(plan: DeploymentPlan, catalogue: Catalogue, machine: Machine) -> int | None:
    """How many of these machines all cells take; None where a replica fits none."""
    used = pack(Shape(machine.cpu_millicores, machine.memory_bytes), plan.services)
    if used is None:
        return None
    return plan.cells * max(used + spare_of(plan, catalogue), plan.settings.replication_factor)


def _entries(
    plan: DeploymentPlan, catalogue: Catalogue, prices: Prices, found: tuple[Machine, Cost]
) -> tuple[LedgerEntry, ...]:
    machine, cost = found
    hours = catalogue.rules.leaf("sizing.prices.hours_per_month")
    source = f"prices of {prices.region}, {prices.date}"
    gib = f"{plan.totals.storage_bytes / GIB:g} GiB"
    rows = {
        "cost.node": (cost.node_month, f"{float(machine.hourly):g} an hour for {machine.name} x {hours.value} hours"),
        "cost.nodes": (cost.nodes_month, f"{plan.cells} cells x {plan.nodes.count} nodes x {cost.node_month:g}"),
        "cost.storage": (cost.storage_month, f"{gib} x {float(prices.storage_gib_month):g} a month"),
        "cost.month": (cost.month, f"{cost.nodes_month:g} + {cost.storage_month:g}"),
    }
    if cost.agent_month is not None:
        rows["cost.agent"] = (cost.agent_month, f"{cost.month:g} / {plan.admitted_agents} agents")
    return tuple(entry(catalogue, rule, value, formula, source) for rule, (value, formula) in rows.items())
