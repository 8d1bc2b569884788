"""Sizing: a profile and the catalogue in, a deployment plan out.

Order: growth, then the environment's cap on agents, then tier and cells, then replicas, then nodes. Each step adds
ledger entries, so that every number of the plan can be traced to a rule and a source.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.conflicts import conflicts_of
from cfscale.core.drivers import Cell
from cfscale.core.ledger import entry, stated_entries
from cfscale.core.nodes import Packing, choose_nodes, memory_of, shapes_of
from cfscale.core.plan import PLAN_SCHEMA, Amounts, Demand, DeploymentPlan, LedgerEntry, Service, Settings
from cfscale.core.queueing import minimal_servers
from cfscale.core.roster import left_out
from cfscale.core.rules import cpu_demand, memory_demand, network_demand, storage_demand
from cfscale.core.services import cell_services, counts_of, image_of, others_of
from cfscale.core.settings import database_of, promises_of, scaling_of, settings_of
from cfscale.core.tier import Catalogue, Phase, Tier, choose_tier, phase_of
from cfscale.core.units import GIB, format_cpu, format_size
from cfscale.core.workload import Profile, Slo, Workload, grown_workload

_STAND_ALONE = ("development", "staging")


class _Placed(Struct, frozen=True):
    """A workload in the tier and the cells that carry it."""

    tier: Tier
    cells: int
    workload: Workload


class _Admission(Struct, frozen=True):
    """What is let in of what was wanted, what an objective needs (None without one), and what the operator is told."""

    workload: Workload
    wanted: Workload
    needed: int | None
    warnings: tuple[str, ...]


def size(profile: Profile, catalogue: Catalogue, *, explained: bool = True) -> DeploymentPlan:
    """The plan for a profile; equal inputs give equal plans. Unexplained it has neither ledger nor conflicts.

    Raises InputError for a profile that contradicts itself, RefusedError for capacity that cannot be had.
    """
    grown = grown_workload(profile)
    admission = _admit(profile, catalogue, grown)
    tier, cells = choose_tier(catalogue, admission.workload, profile.tier)
    settings = settings_of(tier, catalogue.rules, stand_alone=profile.environment in _STAND_ALONE)
    placed = _Placed(tier, cells, admission.workload)
    demand, demand_ledger = _demand(profile, catalogue, placed)
    cell = _cell((profile, catalogue), placed, settings, (demand.cpu_millicores, demand.memory_bytes))
    services, service_ledger = cell_services(cell)
    settings = _completed(cell, services)
    totals, packing = totals_of(services, cells), _packing(cell, services)
    phase = phase_of(catalogue.rules.phases, grown.users)
    plan = DeploymentPlan(
        schema=PLAN_SCHEMA,
        name=profile.name,
        environment=profile.environment,
        tier=tier.name,
        phase=phase.name,
        cells=cells,
        users=grown.users,
        agents=grown.agents,
        tasks=grown.tasks,
        admitted_agents=admission.workload.agents,
        agent_class=profile.agent_class,
        demand=demand,
        totals=totals,
        nodes=packing.nodes,
        services=services,
        settings=settings,
        scaling=scaling_of(profile, catalogue.rules),
        promises=promises_of(tier, catalogue.rules),
        ledger=(),
        conflicts=(),
        warnings=(
            *admission.warnings,
            *_shortfalls(demand, totals),
            *_queue_full(profile, catalogue, services),
            *_warnings(tier, settings, cells),
            *_unused(profile, tier, services),
        ),
    )
    if not explained:  # a search asks for hundreds of plans and reads their counts
        return plan
    ledger = (
        *_admission_entries(profile, catalogue, grown, admission),
        *_place_entries(cell, plan, phase),
        *demand_ledger,
        *_setting_entries(cell, settings),
        *service_ledger,
        *_total_entries(catalogue, totals, cells),
        *_node_entries(catalogue, packing, cell.spare),
        *stated_entries(catalogue, profile, plan),
    )
    return replace(plan, ledger=ledger, conflicts=conflicts_of(catalogue, tier, plan))


def recount(profile: Profile, catalogue: Catalogue, base: DeploymentPlan) -> tuple[int, ...] | None:
    """The replicas of each service of ``base`` if it carried the load of this profile; None in another tier or number of cells.

    ``base`` is a plan of the same profile under another load. The counts are those that ``size`` finds, for a fraction of
    its work. Raises what ``size`` raises.
    """
    placed = _placed_as(profile, catalogue, base)
    if placed is None:
        return None
    cpu, _ = cpu_demand(catalogue, placed.workload, placed.cells)
    memory, _ = memory_demand(catalogue, placed.workload, profile.agent_class)
    return counts_of(_cell((profile, catalogue), placed, base.settings, (cpu, memory)), base.services)


def recount_others(profile: Profile, catalogue: Catalogue, base: DeploymentPlan) -> tuple[int, ...] | None:
    """As ``recount``, without the agents, which take most of it and which the others do not depend on."""
    placed = _placed_as(profile, catalogue, base)
    if placed is None:
        return None
    return tuple(others_of(_cell((profile, catalogue), placed, base.settings, (0, 0)), base.services).values())


def _placed_as(profile: Profile, catalogue: Catalogue, base: DeploymentPlan) -> _Placed | None:
    workload = _admit(profile, catalogue, grown_workload(profile)).workload
    tier, cells = choose_tier(catalogue, workload, profile.tier)
    return _Placed(tier, cells, workload) if (tier.name, cells) == (base.tier, base.cells) else None


def _cell(given: tuple[Profile, Catalogue], placed: _Placed, settings: Settings, demand: tuple[int, int]) -> Cell:
    """The fullest of the cells; the demand of all is in millicores and bytes."""
    (profile, catalogue), (cpu, memory) = given, demand
    return Cell(
        profile,
        catalogue,
        placed.tier,
        _share(placed.workload, placed.cells),
        settings,
        cpu_demand=-(-cpu // placed.cells),
        memory_demand=-(-memory // placed.cells),
    )


def _admit(profile: Profile, catalogue: Catalogue, grown: Workload) -> _Admission:
    """Agents that the objective needs and the environment lets in; tasks and users stay as they are."""
    slo = profile.slo
    needed = None if slo is None else minimal_servers(_offered_load(slo), slo.wait_probability)
    wanted = Workload(users=grown.users, agents=max(grown.agents, needed or 0), tasks=grown.tasks)
    limit = catalogue.rules.leaf(f"environments.{profile.environment}.agents")
    if profile.environment not in _STAND_ALONE or wanted.agents <= limit.exact:
        return _Admission(wanted, wanted, needed, ())
    warning = f"{profile.environment} admits {limit.value} of {wanted.agents} agents: use --environment production for all of them"
    admitted = Workload(users=wanted.users, agents=int(limit.exact), tasks=wanted.tasks)
    return _Admission(admitted, wanted, needed, (warning,))


def _offered_load(slo: Slo) -> float:
    """Erlangs: how many agents the tasks that arrive keep busy on average."""
    return slo.task_rate_per_second * slo.task_seconds


def _admission_entries(
    profile: Profile, catalogue: Catalogue, grown: Workload, admission: _Admission
) -> Iterator[LedgerEntry]:
    """Why this many users, agents and tasks."""
    for name in ("users", "agents", "tasks"):
        words = f"ceil({getattr(profile, name)} x {profile.growth})"
        yield entry(catalogue, f"workload.{name}", getattr(grown, name), words, "profile")
    if profile.slo is not None and admission.needed is not None:
        binds = "the objective binds" if admission.needed > grown.agents else "the declared agents bind"
        words = f"least n with Erlang C(n, {_offered_load(profile.slo):g}) <= {profile.slo.wait_probability:g}; {binds}"
        yield entry(catalogue, "agents.slo", admission.needed, words, "Erlang C (M/M/n)")
    limit = catalogue.rules.leaf(f"environments.{profile.environment}.agents")
    words = f"production scales out: {limit.value} agents are the limit of one coordinator, not of the deployment"
    if profile.environment in _STAND_ALONE:
        words = f"min({admission.wanted.agents}, {limit.value}): {profile.environment} is a single instance"
    yield entry(catalogue, "agents.admitted", admission.workload.agents, words, limit.source)


def _share(workload: Workload, cells: int) -> Workload:
    """What the fullest of the cells carries."""
    return Workload(
        users=ceil(Fraction(workload.users, cells)),
        agents=ceil(Fraction(workload.agents, cells)),
        tasks=ceil(Fraction(workload.tasks, cells)),
    )


def _place_entries(cell: Cell, plan: DeploymentPlan, phase: Phase) -> tuple[LedgerEntry, ...]:
    """Why this tier, this phase and this many cells, and what the fullest of them carries."""
    carried = {"users": plan.users, "agents": plan.admitted_agents, "tasks": plan.tasks}
    holds = ", ".join(f"{amount} of {cell.tier.top(driver)} {driver}" for driver, amount in carried.items())
    shares = (
        entry(
            cell.catalogue,
            f"cell.{driver}",
            getattr(cell.workload, driver),
            f"ceil({amount} / {plan.cells})",
            "the cells of the plan",
        )
        for driver, amount in carried.items()
    )
    smallest = f"smallest that holds {holds}; a shared boundary belongs to the smaller"
    beyond = "cell-based architecture: the largest tier is not extrapolated"
    return (
        entry(cell.catalogue, "tier", cell.tier.name, smallest, cell.tier.source),
        entry(cell.catalogue, "cells", plan.cells, f"max(1, ceil of {holds})", beyond),
        entry(cell.catalogue, "phase", phase.name, f"the phase of {plan.users} users", phase.users.source),
        *shares,
    )


def _demand(profile: Profile, catalogue: Catalogue, placed: _Placed) -> tuple[Demand, tuple[LedgerEntry, ...]]:
    cpu, cpu_entry = cpu_demand(catalogue, placed.workload, placed.cells)
    memory, memory_entry = memory_demand(catalogue, placed.workload, profile.agent_class)
    storage, storage_entry = storage_demand(catalogue, placed.tier, placed.cells)
    network, network_entry = network_demand(catalogue, placed.tier, placed.cells)
    return Demand(cpu, memory, storage, network), (cpu_entry, memory_entry, storage_entry, network_entry)


def _completed(cell: Cell, services: tuple[Service, ...]) -> Settings:
    """The settings of a cell with what follows from its services: the connections that its pools add up to."""
    settings = cell.settings
    monitoring = replace(settings.monitoring, image=image_of(cell, "prometheus"))
    pooler = next((service for service in services if service.name == "pooler"), None)
    database = None if pooler is None else database_of(cell.catalogue.rules, pools=pooler.replicas)
    return replace(settings, monitoring=monitoring, database=database)


def _setting_entries(cell: Cell, settings: Settings) -> Iterator[LedgerEntry]:
    """The copies, the spare, the backups of the shared memory, and the connections of the database."""
    catalogue = cell.catalogue
    copies, failover = cell.tier.configuration.get("replication_factor"), cell.tier.load_balancing.get("failover")
    words = "a single instance" if copies is None or settings.replication_factor == 1 else f"{copies.value} copies"
    yield entry(catalogue, "copies", settings.replication_factor, words, copies.source if copies else cell.tier.source)
    promise = f"failover: {settings.failover}" if settings.failover else "no failover is promised"
    yield entry(catalogue, "spare", cell.spare, promise, failover.source if failover else cell.tier.source)
    if settings.memory is not None:
        backups = f"{settings.replication_factor} copies - 1"
        yield entry(
            catalogue, "memory.backups", settings.memory.backups, backups, copies.source if copies else "design"
        )
    database = settings.database
    if database is None:
        return
    limit = catalogue.rules.leaf("connections.pool_max")
    yield entry(catalogue, "database.pools", database.pools, "one each pooler", "design")
    words = f"{database.pools} pools x {database.pool_max} + {database.reserved}"
    yield entry(catalogue, "database.max_connections", database.max_connections, words, limit.source)


def totals_of(services: tuple[Service, ...], cells: int) -> Amounts:
    """What the replicas of all cells hold."""
    return Amounts(
        cpu_millicores=cells * sum(service.replicas * service.cpu_request_millicores for service in services),
        memory_bytes=cells * sum(service.replicas * memory_of(service) for service in services),
        storage_bytes=cells * sum(service.replicas * service.storage_bytes for service in services),
    )


def _total_entries(catalogue: Catalogue, totals: Amounts, cells: int) -> tuple[LedgerEntry, ...]:
    words, source = f"{cells} cells x the sum of replicas x", "the services of the plan"
    return (
        entry(catalogue, "totals.cpu", totals.cpu_millicores, f"{words} CPU request", source),
        entry(catalogue, "totals.memory", totals.memory_bytes, f"{words} memory limit", source),
        entry(catalogue, "totals.storage", totals.storage_bytes, f"{words} storage", source),
    )


def _packing(cell: Cell, services: tuple[Service, ...]) -> Packing:
    shapes = shapes_of(cell.catalogue.rules)
    return choose_nodes(shapes, services, least=cell.settings.replication_factor, spare=cell.spare)


def _node_entries(catalogue: Catalogue, packing: Packing, spare: int) -> tuple[LedgerEntry, ...]:
    nodes, source = packing.nodes, "node_shapes of tiers/rules.yaml"
    shape = f"{format_cpu(nodes.cpu_millicores)} cores, {format_size(nodes.memory_bytes)}"
    filled = f"whole replicas fill {packing.used} of {shape} first-fit decreasing (no packing takes fewer than {packing.bound})"
    smallest = f"the smallest shape that packs on the copies' machines less {spare}, else the largest"
    return (
        entry(catalogue, "nodes.count", nodes.count, f"{filled}, {spare} spare, at least one a copy", source),
        entry(catalogue, "nodes.cpu", nodes.cpu_millicores, smallest, source),
        entry(catalogue, "nodes.memory", nodes.memory_bytes, smallest, source),
    )


def _queue_full(profile: Profile, catalogue: Catalogue, services: tuple[Service, ...]) -> tuple[str, ...]:
    """Whether a day's finished runs fit the queue, where the profile says how many tasks arrive."""
    if profile.slo is None:
        return ()
    run, kept = catalogue.rules.leaf("sizing.run_record"), catalogue.rules.leaf("sizing.run_kept")
    queue = next(service for service in services if service.name == "queue")
    share = catalogue.rules.leaf("limits.queue_memory").exact / 100
    room, needed = memory_of(queue) * share, run.bytes * kept.seconds * Fraction(profile.slo.task_rate_per_second)
    if needed <= room:
        return ()
    return (
        f"the queue keeps each finished run for {kept.value} {kept.unit} and then refuses writes: {profile.slo.task_rate_per_second:g} tasks/s leave"
        f" {float(needed) / GIB:.3g} GiB and it holds {float(room) / GIB:.3g}: give services.queue.resources.memory {ceil(needed / share / GIB)}G",
    )


def _shortfalls(demand: Demand, totals: Amounts) -> tuple[str, ...]:
    """What replicas made smaller than the tier's, in a count that the profile bounds, do not add up to."""
    short = []
    if totals.memory_bytes < demand.memory_bytes:
        short.append(f"{totals.memory_bytes / GIB:.3g} of {demand.memory_bytes // GIB} GiB")
    if totals.cpu_millicores < demand.cpu_millicores:
        short.append(f"{totals.cpu_millicores / 1000:g} of {demand.cpu_millicores / 1000:g} cores")
    if not short:
        return ()
    return (
        f"the services as the profile sizes them hold {' and '.join(short)} of the demand: give them more, or leave out scaling.services.agents",
    )


def _unused(profile: Profile, tier: Tier, services: tuple[Service, ...]) -> tuple[str, ...]:
    """What the profile says of services that this tier does without."""
    names = tuple(service.name for service in services)
    return tuple(
        f"the {tier.name} tier runs no {name}: what the profile says of it is not used"
        for name in left_out(profile, names)
    )


def _warnings(tier: Tier, settings: Settings, cells: int) -> tuple[str, ...]:
    warnings = []
    asked = tier.configuration.get("replication_factor")
    if asked is not None and settings.replication_factor < int(asked.exact):
        warnings.append(f"replication factor 1 instead of {asked.value}: this environment is a single instance")
    if settings.replication_factor > 1:
        warnings.append(
            "on a single host replication protects against process faults only, not against the loss of the host"
        )
    if cells > 1:
        warnings.append(
            f"past the {tier.name} tier the deployment is {cells} separate cells: route users to cells above them"
        )
    return tuple(warnings)
