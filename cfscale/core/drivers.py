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
from cfscale.core.roster import shares_of
from cfscale.core.rules import cpu_of, working_memory
from cfscale.core.tier import AGENTS, Catalogue, Leaf, Tier, pool_kind
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
    return _agents(name, cell, shape) if pool_kind(name) == AGENTS else _COUNTS[name](cell)


def follows_load(name: str) -> bool:
    """Whether the replicas of a service may differ between two loads of the same tier and cells."""
    return pool_kind(name) == AGENTS or name in _LOADS


def replicas_of(name: str, cell: Cell, shape: Shape) -> int:
    """The count alone, without the words for it, of a service that follows the load; raises KeyError for any other."""
    drivers = _agents_drivers(name, cell, shape) if pool_kind(name) == AGENTS else _LOADS[name](cell)
    return max(drivers.values())


def _largest(drivers: dict[str, int], source: str, entries: tuple[LedgerEntry, ...] = ()) -> Count:
    """The largest driver wins; of equals the first."""
    driver = max(drivers, key=lambda name: drivers[name])
    counts = ", ".join(f"{name} {count}" for name, count in drivers.items())
    return Count(drivers[driver], driver, f"max({counts})" if len(drivers) > 1 else counts, source, entries)


def _coordinators(cell: Cell) -> Count:
    drivers, limit = _coordinator_drivers(cell), _agents_limit(cell)
    words = f"ceil({cell.workload.agents} agents / {limit.value} an instance)"
    driver = entry(cell.catalogue, "coordinator.driver.agents", drivers["agents"], words, limit.source)
    return _largest(drivers, limit.source, (driver,))


def _coordinator_drivers(cell: Cell) -> dict[str, int]:
    needed = ceil(cell.workload.agents / _agents_limit(cell).exact)
    return {"replication_factor": cell.settings.replication_factor, "agents": needed}


def _agents_limit(cell: Cell) -> Leaf:
    return cell.catalogue.rules.leaf(f"environments.{cell.profile.environment}.agents")


def _agents(name: str, cell: Cell, shape: Shape) -> Count:
    """The largest of memory, CPU, copies, and for the first pool what the other services leave of the demand."""
    share, drivers = shares_of(cell.profile)[name], _agents_drivers(name, cell, shape)
    memory = _agents_memory(name, cell, shape, (share, drivers["memory"] - cell.spare))
    cpu = _agents_cpu(name, cell, shape, (share, drivers["cpu"] - cell.spare))
    words = "all that no pool carries" if name == AGENTS else f"services.{name}.share, else as much as each other"
    entries = [entry(cell.catalogue, f"{name}.share", float(share), words, "profile"), memory, cpu]
    if "demand" in drivers:
        entries += _agents_demand(cell, shape, drivers["demand"])
    count = _largest(drivers, f"{memory.source}, {cpu.source}", tuple(entries))
    spare = f"; memory and cpu with {cell.spare} for failover" if cell.spare else ""
    return Count(count.replicas, count.driver, f"{count.formula}{spare}", count.source, count.drivers)


def _agents_drivers(name: str, cell: Cell, shape: Shape) -> dict[str, int]:
    rules, share = cell.catalogue.rules, shares_of(cell.profile)[name]
    room = shape.memory_limit * rules.leaf("sizing.target_utilisation").exact
    memory = share * working_memory(rules, cell.workload, cell.profile.agent_class)
    drivers = {
        "memory": ceil(memory / room) + cell.spare,
        "cpu": ceil(_agents_millicores(cell, share) / shape.cpu_request) + cell.spare,
        "replication_factor": cell.settings.replication_factor,
    }
    # a count that the profile bounds is the operator's own
    if name == AGENTS and AGENTS not in cell.profile.scaling.services:
        memory_left, cpu_left = _left(cell)
        drivers["demand"] = max(-(-memory_left // shape.memory_limit), -(-cpu_left // shape.cpu_request))
    return drivers


def _agents_millicores(cell: Cell, share: Fraction) -> Fraction:
    """What a share of the agents needs beyond the CPU that no agents need."""
    intercept = cell.catalogue.rules.leaf("sizing.cpu_intercept")
    return share * (cpu_of(cell.catalogue, cell.workload) - intercept.millicores)


def _left(cell: Cell) -> tuple[int, int]:
    """What the other services leave of the demand, in bytes and millicores."""
    return max(0, cell.memory_demand - cell.memory_others), max(0, cell.cpu_demand - cell.cpu_others)


def _agents_memory(name: str, cell: Cell, shape: Shape, asked: tuple[Fraction, int]) -> LedgerEntry:
    rules, target = cell.catalogue.rules, cell.catalogue.rules.leaf("sizing.target_utilisation")
    agent, task = rules.leaf(rules.agent_memory(cell.profile.agent_class)), rules.leaf("sizing.task_memory")
    share, replicas = asked
    words = (
        f"ceil({_part(share)}({agent.value} {agent.unit} x {cell.workload.agents} agents + {task.value} {task.unit} x {cell.workload.tasks} tasks)"
        f" / ({format_size(shape.memory_limit)} x {target.value}))"
    )
    source = f"{agent.source}, {task.source}, {target.source}"
    return entry(cell.catalogue, f"{name}.driver.memory", replicas, words, source)


def _part(share: Fraction) -> str:
    return "" if share == 1 else f"{float(share):g} x "


def _agents_cpu(name: str, cell: Cell, shape: Shape, asked: tuple[Fraction, int]) -> LedgerEntry:
    intercept, (share, replicas) = cell.catalogue.rules.leaf("sizing.cpu_intercept"), asked
    needed = float(_agents_millicores(cell, share)) / 1000
    words = (
        f"ceil(({needed:g} cores beyond the {intercept.value} that no agents need) / {format_cpu(shape.cpu_request)})"
    )
    return entry(cell.catalogue, f"{name}.driver.cpu", replicas, words, cell.tier.resources["cpu"].source)


def _agents_demand(cell: Cell, shape: Shape, replicas: int) -> list[LedgerEntry]:
    """What the other services of the cell hold, and how many replicas the rest of its demand takes."""
    memory, cpu = _left(cell)
    words = (
        f"max(ceil({format_size(memory)} / {format_size(shape.memory_limit)}),"
        f" ceil({format_cpu(cpu)} cores / {format_cpu(shape.cpu_request)}))"
    )
    catalogue, others = cell.catalogue, "all other services"
    return [
        entry(catalogue, "others.memory", cell.memory_others, f"limits of {others}", "the services of the plan"),
        entry(catalogue, "others.cpu", cell.cpu_others, f"requests of {others}", "the services of the plan"),
        entry(catalogue, "agents.driver.demand", replicas, words, "the demand of the plan"),
    ]


def _balancers(cell: Cell) -> Count:
    rules, drivers = cell.catalogue.rules, _balancer_drivers(cell)
    user, held, target = (
        rules.leaf(name) for name in ("sizing.user_connections", "limits.connections", "sizing.target_utilisation")
    )
    words = f"ceil(({cell.workload.users} users + {cell.workload.agents} agents) connections / ({held.value} x {target.value}))"
    source = f"{user.source}, {held.source}, {target.source}"
    driver = entry(cell.catalogue, "loadbalancer.driver.connections", drivers["connections"], words, source)
    return _largest(drivers, _copies_source(cell), (driver,))


def _balancer_drivers(cell: Cell) -> dict[str, int]:
    leaf, workload = cell.catalogue.rules.leaf, cell.workload
    user, agent = leaf("sizing.user_connections").exact, leaf("sizing.agent_connections").exact
    room = leaf("limits.connections").exact * leaf("sizing.target_utilisation").exact
    needed = ceil((user * workload.users + agent * workload.agents) / room)
    return {"replication_factor": cell.settings.replication_factor, "connections": needed}


def _copies(cell: Cell) -> Count:
    return _largest({"replication_factor": cell.settings.replication_factor}, _copies_source(cell))


def _copies_source(cell: Cell) -> str:
    leaf = cell.tier.configuration.get("replication_factor")
    return leaf.source if leaf else cell.tier.source


def _shards(cell: Cell) -> Count:
    """A primary for each shard, and the copies of it."""
    shards, copies = cell.catalogue.rules.leaf("memory_grid.shards"), cell.settings.replication_factor
    words = f"{shards.value} shards x {copies} copies"
    return Count(int(shards.exact) * copies, "shards", words, f"{shards.source}, {_copies_source(cell)}")


def _voters(cell: Cell) -> Count:
    """As many as decide with one of them lost, and one for each copy; where there is one copy, nothing is decided."""
    leaf, copies = cell.catalogue.rules.leaf("sizing.voters"), cell.settings.replication_factor
    if copies == 1:
        return Count(1, "majority", "one copy needs no vote", leaf.source)
    return Count(max(int(leaf.exact), copies), "majority", f"max({leaf.value} voters, {copies} copies)", leaf.source)


# those whose counts the load moves beside the agents
_LOADS: dict[str, Callable[[Cell], dict[str, int]]] = {
    "coordinator": _coordinator_drivers,
    "loadbalancer": _balancer_drivers,
}
_COUNTS: dict[str, Callable[[Cell], Count]] = {
    "coordinator": _coordinators,
    "loadbalancer": _balancers,
    "queue": _copies,
    "memory": _shards,
    "cache": _copies,
    "database": _copies,
    "pooler": _copies,
    "sentinel": _voters,
    "etcd": _voters,
}
