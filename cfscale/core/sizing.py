"""Sizing: a profile and the catalogue in, a deployment plan out.

Order: growth, then the environment's cap on agents, then tier and cells, then replicas, then nodes. Each step adds
ledger entries, so that every number of the plan can be traced to a rule and a source.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from cfscale.core.conflicts import conflicts_of
from cfscale.core.nodes import Shape, choose_nodes, memory_of
from cfscale.core.plan import PLAN_SCHEMA, Amounts, Demand, DeploymentPlan, LedgerEntry, Nodes, Service, Settings
from cfscale.core.queueing import minimal_servers
from cfscale.core.rules import cpu_demand, memory_demand, network_demand, storage_demand
from cfscale.core.services import Cell, cell_services
from cfscale.core.settings import scaling_of, settings_of
from cfscale.core.tier import Catalogue, Tier, choose_tier, phase_of
from cfscale.core.units import GIB
from cfscale.core.workload import Profile, Slo, Workload, grown_workload

_STAND_ALONE = ("development", "staging")


@dataclass(frozen=True, slots=True)
class _Admission:
    """What is let in, and what the ledger and the operator are told of it."""

    workload: Workload
    ledger: tuple[LedgerEntry, ...]
    warnings: tuple[str, ...]


def size(profile: Profile, catalogue: Catalogue) -> DeploymentPlan:
    """The plan for a profile; equal inputs give equal plans.

    Raises InputError for a profile that contradicts itself, RefusedError for capacity that cannot be had.
    """
    grown = grown_workload(profile)
    admission = _admit(profile, catalogue, grown)
    tier, cells = choose_tier(catalogue, admission.workload, profile.tier)
    share = _share(admission.workload, cells)
    settings = settings_of(tier, catalogue.rules, stand_alone=profile.environment in _STAND_ALONE)
    demand, demand_ledger = _demand(catalogue, tier, admission.workload, cells)
    cell = Cell(
        profile, catalogue, tier, share, settings, -(-demand.cpu_millicores // cells), -(-demand.memory_bytes // cells)
    )
    services, service_ledger = cell_services(cell)
    totals = _totals(services, cells)
    nodes = _nodes(catalogue, services, settings)
    ledger = (
        *admission.ledger,
        *_tier_entries(tier, cells, admission.workload),
        *demand_ledger,
        *service_ledger,
        _node_entry(nodes),
    )
    return DeploymentPlan(
        schema=PLAN_SCHEMA,
        name=profile.name,
        environment=profile.environment,
        tier=tier.name,
        phase=phase_of(catalogue.rules.phases, grown.users).name,
        cells=cells,
        users=grown.users,
        agents=grown.agents,
        tasks=grown.tasks,
        admitted_agents=admission.workload.agents,
        demand=demand,
        totals=totals,
        nodes=nodes,
        services=services,
        settings=settings,
        scaling=scaling_of(profile, catalogue.rules),
        ledger=ledger,
        conflicts=conflicts_of(catalogue, tier, demand, cells),
        warnings=(*admission.warnings, *_shortfalls(demand, totals), *_warnings(tier, settings, cells)),
    )


def _admit(profile: Profile, catalogue: Catalogue, grown: Workload) -> _Admission:
    """Agents that the environment lets in; tasks and users stay as they are."""
    wanted, ledger = _with_slo(profile.slo, grown)
    limit = catalogue.rules.leaf(f"environments.{profile.environment}.agents")
    admitted = wanted.agents
    warnings: tuple[str, ...] = ()
    formula = f"production scales out: {limit.value} agents are the limit of one coordinator, not of the deployment"
    if profile.environment in _STAND_ALONE:
        admitted = min(wanted.agents, int(limit.exact))
        formula = f"min({wanted.agents}, {limit.value}): {profile.environment} is a single instance"
        if admitted < wanted.agents:
            warnings = (
                f"{profile.environment} admits {admitted} of {wanted.agents} agents: use --environment production for all of them",
            )
    entry = LedgerEntry("agents.admitted", admitted, "agents", formula, limit.source)
    return _Admission(
        Workload(users=wanted.users, agents=admitted, tasks=wanted.tasks),
        (*_growth_entries(profile, grown), *ledger, entry),
        warnings,
    )


def _growth_entries(profile: Profile, grown: Workload) -> tuple[LedgerEntry, ...]:
    given = {"users": profile.users, "agents": profile.agents, "tasks": profile.tasks}
    return tuple(
        LedgerEntry(f"workload.{name}", getattr(grown, name), name, f"ceil({value} x {profile.growth})", "profile")
        for name, value in given.items()
    )


def _with_slo(slo: Slo | None, grown: Workload) -> tuple[Workload, tuple[LedgerEntry, ...]]:
    """The workload with as many agents as the objective needs, where that is more than declared."""
    if slo is None:
        return grown, ()
    load = slo.task_rate_per_second * slo.task_seconds
    needed = minimal_servers(load, slo.wait_probability)
    binds = "the objective binds" if needed > grown.agents else "the declared agents bind"
    formula = f"least n with Erlang C(n, {load:g}) <= {slo.wait_probability:g}; {binds}"
    entry = LedgerEntry("agents.slo", needed, "agents", formula, "Erlang C (M/M/n)")
    return Workload(users=grown.users, agents=max(grown.agents, needed), tasks=grown.tasks), (entry,)


def _share(workload: Workload, cells: int) -> Workload:
    """What the fullest of the cells carries."""
    return Workload(
        users=ceil(Fraction(workload.users, cells)),
        agents=ceil(Fraction(workload.agents, cells)),
        tasks=ceil(Fraction(workload.tasks, cells)),
    )


def _tier_entries(tier: Tier, cells: int, workload: Workload) -> tuple[LedgerEntry, ...]:
    holds = ", ".join(
        f"{getattr(workload, driver)} of {tier.top(driver)} {driver}" for driver in ("users", "agents", "tasks")
    )
    return (
        LedgerEntry(
            "tier",
            tier.name,
            "tier",
            f"smallest that holds {holds}; a shared boundary belongs to the smaller",
            tier.source,
        ),
        LedgerEntry(
            "cells",
            cells,
            "cells",
            f"max(1, ceil of {holds})",
            "cell-based architecture: the largest tier is not extrapolated",
        ),
    )


def _demand(catalogue: Catalogue, tier: Tier, workload: Workload, cells: int) -> tuple[Demand, tuple[LedgerEntry, ...]]:
    cpu, cpu_entry = cpu_demand(catalogue, workload, cells)
    memory, memory_entry = memory_demand(catalogue.rules, workload)
    storage, storage_entry = storage_demand(tier, cells)
    network, network_entry = network_demand(tier, cells)
    return Demand(cpu, memory, storage, network), (cpu_entry, memory_entry, storage_entry, network_entry)


def _totals(services: tuple[Service, ...], cells: int) -> Amounts:
    return Amounts(
        cpu_millicores=cells * sum(service.replicas * service.cpu_request_millicores for service in services),
        memory_bytes=cells * sum(service.replicas * memory_of(service) for service in services),
        storage_bytes=cells * sum(service.replicas * service.storage_bytes for service in services),
    )


def _nodes(catalogue: Catalogue, services: tuple[Service, ...], settings: Settings) -> Nodes:
    shapes = [Shape(shape["cpu"].millicores, int(shape["memory"].bytes)) for shape in catalogue.rules.node_shapes]
    spare = 1 if settings.failover else 0
    return choose_nodes(shapes, services, least=settings.replication_factor, spare=spare)


def _node_entry(nodes: Nodes) -> LedgerEntry:
    shape = f"{nodes.cpu_millicores // 1000} cores, {nodes.memory_bytes // GIB} GiB"
    return LedgerEntry(
        "nodes",
        nodes.count,
        "nodes",
        f"first-fit decreasing of whole replicas on {shape}, spare included",
        "node_shapes of tiers/rules.yaml",
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
