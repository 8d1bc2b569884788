"""The services of one cell: how many replicas, how large, and which driver decided.

A replica count is driver / what one replica holds at target utilisation, never below the replication factor, plus
one where the tier promises failover. Coordinators follow the environment's limit per instance instead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from cfscale.core.nodes import memory_of
from cfscale.core.overrides import health_of, path_of, published, resources_of
from cfscale.core.plan import LedgerEntry, Service, Settings
from cfscale.core.rules import cpu_at, working_memory
from cfscale.core.tier import Catalogue, Leaf, Tier
from cfscale.core.units import format_size
from cfscale.core.workload import (
    HealthOverride,
    Profile,
    ScalingBounds,
    ServiceOverride,
    Workload,
    checked_env,
    duration,
)
from cfscale.errors import InputError, RefusedError

SERVICES = ("coordinator", "agents", "loadbalancer", "queue")
MOST_REPLICAS = 100_000
# a balancer takes one published port each, and a queue has one primary: neither may be grown like a worker
_FIXED = ("loadbalancer", "queue")


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything the services of one cell follow from.

    ``cpu_demand`` (millicores) and ``memory_demand`` (bytes) are what the services of the cell must add up to, at least.
    """

    profile: Profile
    catalogue: Catalogue
    tier: Tier
    workload: Workload
    settings: Settings
    cpu_demand: int = 0
    memory_demand: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one replica in base units and the source of its limits."""

    cpu_request: int
    cpu_limit: int | None
    memory_request: int
    memory_limit: int
    cpu_source: str
    memory_source: str


@dataclass(frozen=True, slots=True)
class Count:
    """A replica count, what drove it, and the arithmetic in words."""

    replicas: int
    driver: str
    formula: str
    source: str


def cell_services(cell: Cell) -> tuple[tuple[Service, ...], tuple[LedgerEntry, ...]]:
    """All services of a cell and the ledger entries of their numbers; raises InputError for a wrong override."""
    unknown = sorted({*cell.profile.services, *cell.profile.scaling.services} - set(SERVICES))
    if unknown:
        raise InputError(f"no service is called '{unknown[0]}': the services are {', '.join(SERVICES)}")
    built = {name: _service(cell, name) for name in SERVICES if name != "agents"}
    built["agents"] = _service(_left_by(cell, [service for service, _ in built.values()]), "agents")
    ordered = [built[name] for name in SERVICES]
    return tuple(service for service, _ in ordered), tuple(entry for _, entries in ordered for entry in entries)


def _left_by(cell: Cell, others: Iterable[Service]) -> Cell:
    """The cell with the demand that these services leave to the agents: none where the profile bounds their count itself."""
    if "agents" in cell.profile.scaling.services:
        return replace(cell, cpu_demand=0, memory_demand=0)
    cpu = sum(service.replicas * service.cpu_request_millicores for service in others)
    memory = sum(service.replicas * memory_of(service) for service in others)
    return replace(cell, cpu_demand=max(0, cell.cpu_demand - cpu), memory_demand=max(0, cell.memory_demand - memory))


def _service(cell: Cell, name: str) -> tuple[Service, tuple[LedgerEntry, ...]]:
    override = cell.profile.services.get(name, ServiceOverride())
    kind, shape = cell.catalogue.services[name], _shape(cell, name, override)
    count = _COUNTS[name](cell, shape, cell.workload)
    replicas, least, most = _bounds(cell, name, count, shape)
    entries = _entries(name, count, replicas, shape)
    service = Service(
        name=name,
        image=override.image or kind.image,
        replicas=replicas,
        min_replicas=least,
        max_replicas=most,
        cpu_request_millicores=shape.cpu_request,
        cpu_limit_millicores=shape.cpu_limit,
        memory_request_bytes=shape.memory_request,
        memory_limit_bytes=shape.memory_limit,
        storage_bytes=_storage(cell, name, shape, replicas),
        driver=count.driver,
        rules=tuple(entry.rule for entry in entries),
        port=override.port or kind.port,
        health=health_of(cell.catalogue.rules, name, kind, override.health or HealthOverride()),
        command=tuple(kind.command if override.command is None else override.command),
        env=checked_env(name, override.env or {}),
        publish=published(override.publish or kind.publish, replicas, name),
        routes=tuple(
            path_of(route, f"services.{name}.routes")
            for route in (kind.routes if override.routes is None else override.routes)
        ),
        sticky_header=override.sticky_header or kind.sticky_header,
        one_writer=kind.one_writer and override.image is None,
        stop_grace_seconds=duration(override.stop_grace, kind.stop_grace, f"services.{name}.stop_grace"),
        build=kind.build and override.image is None,
    )
    return service, entries


def _shape(cell: Cell, name: str, override: ServiceOverride) -> Shape:
    leaves = cell.tier.services[name]
    limit = leaves["cpu_limit"]
    shape = Shape(
        leaves["cpu_request"].millicores,
        None if limit.value is None else limit.millicores,
        int(leaves["memory_request"].bytes),
        int(leaves["memory_limit"].bytes),
        leaves["cpu_request"].source,
        leaves["memory_limit"].source,
    )
    if override.resources is None:
        return shape
    given_cpu, given_memory = resources_of(name, override.resources)
    cpu = given_cpu or shape.cpu_limit
    memory = given_memory or shape.memory_limit
    return Shape(
        min(shape.cpu_request, cpu or shape.cpu_request),
        cpu,
        min(shape.memory_request, memory),
        memory,
        "profile",
        "profile",
    )


def _target(cell: Cell) -> Leaf:
    return cell.catalogue.rules.leaf("sizing.target_utilisation")


def _spare(cell: Cell) -> int:
    return 1 if cell.settings.failover else 0


def _coordinators(cell: Cell, _shape: Shape, workload: Workload) -> Count:
    limit = cell.catalogue.rules.leaf(f"environments.{cell.profile.environment}.agents")
    factor, needed = cell.settings.replication_factor, ceil(Fraction(workload.agents) / limit.exact)
    driver = "agents" if needed > factor else "replication_factor"
    return Count(
        max(factor, needed),
        driver,
        f"max({factor} copies, ceil({workload.agents} agents / {limit.value} an instance))",
        limit.source,
    )


def _agents(cell: Cell, shape: Shape, workload: Workload) -> Count:
    """The largest of the drivers memory, CPU and replication factor; more where the services would fall short of demand."""
    rules, target = cell.catalogue.rules, _target(cell)
    memory = working_memory(rules, workload)
    cpu = cpu_at(cell.catalogue, Fraction(workload.agents)) - rules.leaf("sizing.cpu_intercept").millicores
    drivers = {
        "memory": ceil(memory / (shape.memory_limit * target.exact)),
        "cpu": ceil(cpu / shape.cpu_request),
        "replication_factor": cell.settings.replication_factor - _spare(cell),
    }
    missing = max(ceil(cell.memory_demand / shape.memory_limit), ceil(cell.cpu_demand / shape.cpu_request)) - _spare(
        cell
    )
    if missing > max(drivers.values()):
        drivers["demand"] = missing
    driver = max(drivers, key=lambda name: drivers[name])
    spare = f" + {_spare(cell)} for failover" if _spare(cell) else ""
    counts = ", ".join(f"{name} {count}" for name, count in drivers.items())
    held = float(shape.memory_limit * target.exact / rules.leaf("sizing.agent_memory").bytes)
    formula = f"max({counts}){spare}; one replica holds {held:g} agents at {float(target.exact):.0%} of its memory"
    return Count(
        max(1, drivers[driver]) + _spare(cell),
        driver,
        formula,
        f"{rules.leaf('sizing.agent_memory').source}, {target.source}",
    )


def _copies(cell: Cell, _shape: Shape, _workload: Workload) -> Count:
    factor = cell.settings.replication_factor
    leaf = cell.tier.configuration.get("replication_factor")
    return Count(factor, "replication_factor", f"{factor} copies", leaf.source if leaf else cell.tier.source)


_COUNTS: dict[str, Callable[[Cell, Shape, Workload], Count]] = {
    "coordinator": _coordinators,
    "agents": _agents,
    "loadbalancer": _copies,
    "queue": _copies,
}


def _bounds(cell: Cell, name: str, count: Count, shape: Shape) -> tuple[int, int, int]:
    """(replicas, min, max); agents may move between the replication factor and what the tier's top needs."""
    given = cell.profile.scaling.services.get(name, ScalingBounds())
    least, most = count.replicas, count.replicas
    if name == "agents":
        top = Workload(users=cell.workload.users, agents=cell.tier.top("agents"), tasks=cell.tier.top("tasks"))
        least, most = cell.settings.replication_factor, _agents(cell, shape, top).replicas
    least = least if given.min is None else given.min
    most = max(most, least) if given.max is None else given.max
    if count.replicas > MOST_REPLICAS:
        raise RefusedError(
            f"{name} would take {count.replicas} replicas of {format_size(shape.memory_limit)}, more than {MOST_REPLICAS}: give services.{name}.resources more"
        )
    if least > most:
        raise InputError(f"scaling.services.{name}: min {least} is above max {most}: swap or change them")
    if least < most and name in _FIXED:
        raise InputError(
            f"scaling.services.{name}: its count cannot move while it runs: give min and max the same value"
        )
    if count.replicas > most:
        raise InputError(
            f"scaling.services.{name}.max is {most} but the workload needs {count.replicas}: raise it or plan for less"
        )
    return max(count.replicas, least), least, most


def _storage(cell: Cell, name: str, shape: Shape, replicas: int) -> int:
    """Bytes of one replica's share: the queue's log follows its memory, the coordinators share the rest of the tier's."""
    factor = int(cell.catalogue.rules.leaf("sizing.queue_log").exact)
    if name == "queue":
        return factor * shape.memory_limit
    if name != "coordinator":
        return 0
    queue = _shape(cell, "queue", cell.profile.services.get("queue", ServiceOverride()))
    return ceil(Fraction(max(0, int(cell.tier.resources["storage"].bytes) - factor * queue.memory_limit), replicas))


def _entries(name: str, count: Count, replicas: int, shape: Shape) -> tuple[LedgerEntry, ...]:
    formula = count.formula if replicas == count.replicas else f"{count.formula}; raised to the minimum of the profile"
    return (
        LedgerEntry(f"{name}.replicas", replicas, "replicas", formula, count.source),
        LedgerEntry(f"{name}.memory_limit", shape.memory_limit, "bytes", "size of one replica", shape.memory_source),
        LedgerEntry(f"{name}.cpu_request", shape.cpu_request, "millicores", "size of one replica", shape.cpu_source),
    )
