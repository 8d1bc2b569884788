"""What the founding document says twice and differently, as far as it concerns a plan."""

from cfscale.core.plan import Conflict, Demand
from cfscale.core.tier import Catalogue, SourceConflict, Tier
from cfscale.core.units import GIB


def conflicts_of(catalogue: Catalogue, tier: Tier, demand: Demand, cells: int) -> tuple[Conflict, ...]:
    """The contradictions that stand for this tier, and the one that this very plan ran into, if any."""
    standing = (_stated(conflict) for conflict in catalogue.rules.conflicts if _concerns(conflict, tier))
    return (*_memory_over_range(tier, demand, cells), *standing)


def _concerns(conflict: SourceConflict, tier: Tier) -> bool:
    tiers = conflict.when.get("tiers", [])
    return bool(conflict.when.get("always")) or (isinstance(tiers, list) and tier.name in tiers)


def _stated(conflict: SourceConflict) -> Conflict:
    lines = ", ".join(f"founding:{line}" for line in conflict.lines)
    return Conflict(conflict.id, tuple(conflict.values), conflict.chosen, f"{conflict.why} ({lines})")


def _memory_over_range(tier: Tier, demand: Demand, cells: int) -> tuple[Conflict, ...]:
    leaf = tier.resources["memory"]
    top, wanted = int(leaf.max or 0) * cells, demand.memory_bytes // GIB
    if wanted <= top:
        return ()
    values = (f"memory rule: {wanted} GiB", f"{tier.name} tier: at most {top} GiB ({leaf.source})")
    return (
        Conflict(
            "memory-demand-over-tier",
            values,
            f"{wanted} GiB",
            "demand wins and nodes are added: a limit does not make a workload smaller",
        ),
    )
