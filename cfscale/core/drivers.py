"""Replica counts: what each driver of a service asks for; the largest wins and is named.

A driver divides the load of a cell by what one replica holds. Where the tier promises failover, the drivers of load get
one replica more, so that one may be lost without a shortage.
"""

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from msgspec import Struct

from cfscale.core.ledger import entry
from cfscale.core.plan import LedgerEntry, Settings
from cfscale.core.rules import cpu_of, working_memory
from cfscale.core.tier import Catalogue, Tier
from cfscale.core.units import format_cpu, format_size
from cfscale.core.workload import Profile, Workload


class Cell(Struct, frozen=True):
    """Everything the services of one cell follow from.

    ``cpu_demand`` (millicores) and ``memory_demand`` (bytes) are what the services of the cell must add up to at least,
    ``cpu_others`` and ``memory_others`` what those beside the agents do.
    """

    profile: Profile
    catalogue: Catalogue
    tier: Tier
    workload: Workload
    settings: Settings
    cpu_demand: int = 0
    memory_demand: int = 0
    cpu_others: int = 0
    memory_others: int = 0

    @property
    def spare(self) -> int:
        """How many replicas or machines may be lost without a shortage."""
        return int(self.catalogue.rules.leaf("sizing.failover_spare").exact) if self.settings.failover else 0


class Shape(Struct, frozen=True):
    """The size of one replica in base units."""

    cpu_request: int
    cpu_limit: int | None
    memory_request: int
    memory_limit: int


class Count(Struct, frozen=True):
    """A replica count, the driver that won, the arithmetic in words, and the entries of the drivers."""

    replicas: int
    driver: str
    formula: str
    source: str
    drivers: tuple[LedgerEntry, ...] = ()


def count_of(name: str, cell: Cell, shape: Shape) -> Count:
    """How many replicas a service of a cell needs; raises KeyError for an unknown service."""
    return _COUNTS[name](cell, shape)


def _largest(drivers: dict[str, int], source: str, entries: tuple[LedgerEntry, ...] = ()) -> Count:
    """The largest driver wins; of equals the first."""
    driver = max(drivers, key=lambda name: drivers[name])
    counts = ", ".join(f"{name} {count}" for name, count in drivers.items())
    return Count(drivers[driver], driver, f"max({counts})" if len(drivers) > 1 else counts, source, entries)


def _coordinators(cell: Cell, _shape: Shape) -> Count:
    limit = cell.catalogue.rules.leaf(f"environments.{cell.profile.environment}.agents")
    needed = ceil(cell.workload.agents / limit.exact)
    words = f"ceil({cell.workload.agents} agents / {limit.value} an instance)"
    driver = entry(cell.catalogue, "coordinator.driver.agents", needed, words, limit.source)
    return _largest({"replication_factor": cell.settings.replication_factor, "agents": needed}, limit.source, (driver,))


def _agents(cell: Cell, shape: Shape) -> Count:
    """The largest of memory, CPU, copies, and what the other services leave of the demand."""
    memory, cpu = _agents_memory(cell, shape), _agents_cpu(cell, shape)
    drivers = {
        "memory": int(memory.value) + cell.spare,
        "cpu": int(cpu.value) + cell.spare,
        "replication_factor": cell.settings.replication_factor,
    }
    entries = [memory, cpu]
    if "agents" not in cell.profile.scaling.services:  # a count that the profile bounds is the operator's own
        entries += _agents_demand(cell, shape)
        drivers["demand"] = int(entries[-1].value)
    count = _largest(drivers, f"{memory.source}, {cpu.source}", tuple(entries))
    spare = f"; memory and cpu with {cell.spare} for failover" if cell.spare else ""
    return Count(count.replicas, count.driver, f"{count.formula}{spare}", count.source, count.drivers)


def _agents_memory(cell: Cell, shape: Shape) -> LedgerEntry:
    rules, target = cell.catalogue.rules, cell.catalogue.rules.leaf("sizing.target_utilisation")
    agent, task = rules.leaf(rules.agent_memory(cell.profile.agent_class)), rules.leaf("sizing.task_memory")
    needed = working_memory(rules, cell.workload, cell.profile.agent_class)
    words = (
        f"ceil(({agent.value} {agent.unit} x {cell.workload.agents} agents + {task.value} {task.unit} x {cell.workload.tasks} tasks)"
        f" / ({format_size(shape.memory_limit)} x {target.value}))"
    )
    source = f"{agent.source}, {task.source}, {target.source}"
    replicas = ceil(needed / (shape.memory_limit * target.exact))
    return entry(cell.catalogue, "agents.driver.memory", replicas, words, source)


def _agents_cpu(cell: Cell, shape: Shape) -> LedgerEntry:
    intercept = cell.catalogue.rules.leaf("sizing.cpu_intercept")
    needed = cpu_of(cell.catalogue, cell.workload) - intercept.millicores
    words = f"ceil(({float(needed) / 1000:g} cores beyond the {intercept.value} that no agents need) / {format_cpu(shape.cpu_request)})"
    replicas = ceil(needed / shape.cpu_request)
    return entry(cell.catalogue, "agents.driver.cpu", replicas, words, cell.tier.resources["cpu"].source)


def _agents_demand(cell: Cell, shape: Shape) -> list[LedgerEntry]:
    """What the other services of the cell hold, and how many replicas the rest of its demand takes."""
    memory = max(0, cell.memory_demand - cell.memory_others)
    cpu = max(0, cell.cpu_demand - cell.cpu_others)
    replicas = max(ceil(Fraction(memory, shape.memory_limit)), ceil(Fraction(cpu, shape.cpu_request)))
    words = (
        f"max(ceil({format_size(memory)} / {format_size(shape.memory_limit)}),"
        f" ceil({format_cpu(cpu)} cores / {format_cpu(shape.cpu_request)}))"
    )
    catalogue, others = cell.catalogue, "coordinator, loadbalancer and queue"
    return [
        entry(catalogue, "others.memory", cell.memory_others, f"limits of {others}", "the services of the plan"),
        entry(catalogue, "others.cpu", cell.cpu_others, f"requests of {others}", "the services of the plan"),
        entry(catalogue, "agents.driver.demand", replicas, words, "the demand of the plan"),
    ]


def _balancers(cell: Cell, _shape: Shape) -> Count:
    rules = cell.catalogue.rules
    user, agent = rules.leaf("sizing.user_connections"), rules.leaf("sizing.agent_connections")
    held, target = rules.leaf("limits.connections"), rules.leaf("sizing.target_utilisation")
    connections = user.exact * cell.workload.users + agent.exact * cell.workload.agents
    needed = ceil(connections / (held.exact * target.exact))
    words = f"ceil(({cell.workload.users} users + {cell.workload.agents} agents) connections / ({held.value} x {target.value}))"
    source = f"{user.source}, {held.source}, {target.source}"
    driver = entry(cell.catalogue, "loadbalancer.driver.connections", needed, words, source)
    return _largest(
        {"replication_factor": cell.settings.replication_factor, "connections": needed}, _copies_source(cell), (driver,)
    )


def _copies(cell: Cell, _shape: Shape) -> Count:
    return _largest({"replication_factor": cell.settings.replication_factor}, _copies_source(cell))


def _copies_source(cell: Cell) -> str:
    leaf = cell.tier.configuration.get("replication_factor")
    return leaf.source if leaf else cell.tier.source


_COUNTS: dict[str, Callable[[Cell, Shape], Count]] = {
    "coordinator": _coordinators,
    "agents": _agents,
    "loadbalancer": _balancers,
    "queue": _copies,
}
