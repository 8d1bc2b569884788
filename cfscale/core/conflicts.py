"""What the founding document says twice and differently: both values, the one chosen, why, and whether it mattered here."""

from collections.abc import Callable
from math import ceil, floor

from msgspec import Struct

from cfscale.core.plan import Conflict, DeploymentPlan
from cfscale.core.tier import Catalogue, SourceConflict, Tier
from cfscale.core.units import GIB


class _Case(Struct, frozen=True):
    """A plan and what it was sized by."""

    catalogue: Catalogue
    tier: Tier
    plan: DeploymentPlan


def conflicts_of(catalogue: Catalogue, tier: Tier, plan: DeploymentPlan) -> tuple[Conflict, ...]:
    """The contradictions that stand for this plan, those of its own figures first."""
    case = _Case(catalogue, tier, plan)
    standing = (_stated(conflict, case) for conflict in catalogue.rules.conflicts if _concerns(conflict, plan))
    return (*_memory_over_range(case), *standing)


def _concerns(conflict: SourceConflict, plan: DeploymentPlan) -> bool:
    when = conflict.when
    return plan.tier in when.get("tiers", [plan.tier]) and plan.phase in when.get("phases", [plan.phase])


def _stated(conflict: SourceConflict, case: _Case) -> Conflict:
    lines = ", ".join(f"founding:{line}" for line in conflict.lines)
    changed = _CHANGED[conflict.id](case)
    return Conflict(conflict.id, tuple(conflict.values), conflict.chosen, f"{conflict.why} ({lines})", changed)


def _memory_over_range(case: _Case) -> tuple[Conflict, ...]:
    if not _over_range(case):
        return ()
    leaf, wanted = case.tier.resources["memory"], case.plan.demand.memory_bytes // GIB
    top = int(leaf.max or 0) * case.plan.cells
    values = (f"memory rule: {wanted} GiB", f"{case.tier.name} tier: at most {top} GiB ({leaf.source})")
    why = "demand wins and nodes are added: a limit does not make a workload smaller"
    return (Conflict("memory-demand-over-tier", values, f"{wanted} GiB", why, changed=True),)


def _over_range(case: _Case) -> bool:
    """The tier's range would have capped the memory."""
    return case.plan.demand.memory_bytes > int(case.tier.resources["memory"].max or 0) * GIB * case.plan.cells


def _fewer_by_memory(case: _Case) -> bool:
    """The environment's memory, read as the limit, would admit fewer agents or ask for more coordinators."""
    leaf, plan = case.catalogue.rules.leaf, case.plan
    limit, memory = (leaf(f"environments.{plan.environment}.{name}") for name in ("agents", "memory"))
    held = floor((memory.bytes - leaf("sizing.base_memory").bytes) / leaf("sizing.agent_memory").bytes)
    if plan.environment != "production":
        return plan.admitted_agents > held
    agents, copies = -(-plan.admitted_agents // plan.cells), plan.settings.replication_factor
    return max(copies, ceil(agents / held)) != max(copies, ceil(agents / limit.exact))


def _beyond_one_instance(case: _Case) -> bool:
    """The production limit, read as a total, would not admit all agents."""
    limit = case.catalogue.rules.leaf("environments.production.agents")
    return case.plan.environment == "production" and case.plan.admitted_agents > limit.exact


def _on_an_edge(case: _Case) -> bool:
    """A shared boundary, given to the larger tier, would have made it this plan's."""
    amounts = {"users": case.plan.users, "agents": case.plan.admitted_agents}
    smaller = case.tier is not case.catalogue.tiers[-1]
    return smaller and any(amount == case.tier.top(driver) for driver, amount in amounts.items())


def _copies_in_foundation(case: _Case) -> bool:
    """The phase would have kept one instance."""
    return case.plan.settings.replication_factor > 1


def _not_three_copies(case: _Case) -> bool:
    """A key and its two backups would have made another number of copies."""
    backups = case.catalogue.rules.leaf("memory_grid.backups_written").exact
    return case.plan.settings.replication_factor != 1 + backups


def _one_region(case: _Case) -> bool:
    """Failover across regions would have asked for a second one."""
    return case.plan.settings.failover is not None


def _never(_case: _Case) -> bool:
    """The law of growth acts while a deployment runs; no number of a plan follows from it."""
    return False


_CHANGED: dict[str, Callable[[_Case], bool]] = {
    "memory-rule-vs-single-user": _over_range,
    "memory-rule-vs-team": _over_range,
    "memory-rule-vs-department": _over_range,
    "memory-rule-vs-enterprise": _over_range,
    "memory-rule-vs-environments": _fewer_by_memory,
    "production-limit-vs-enterprise": _beyond_one_instance,
    "tier-edges-overlap": _on_an_edge,
    "phases-vs-tiers": _copies_in_foundation,
    "backups-vs-replication-factor": _not_three_copies,
    "doubling-scale-law": _never,
    "failover-across-regions-vs-phase": _one_region,
}
