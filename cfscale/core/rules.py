"""The sizing rules: each gives one number and the ledger entry that explains it.

All arithmetic is exact (fractions), and rounding up happens once, at the end: 400 agents and 800 tasks are 30 GiB.
"""

from fractions import Fraction
from itertools import pairwise
from math import ceil

from cfscale.core.plan import LedgerEntry
from cfscale.core.tier import Catalogue, Rules, Tier
from cfscale.core.units import GIB
from cfscale.core.workload import Workload

Number = tuple[int, LedgerEntry]


def memory_demand(rules: Rules, workload: Workload) -> Number:
    """The founding rule: base + per agent + per task, rounded up to whole GiB, in bytes."""
    base, agent, task = (rules.leaf(f"sizing.{name}") for name in ("base_memory", "agent_memory", "task_memory"))
    gib = ceil(base.exact + agent.exact * workload.agents + task.exact * workload.tasks)
    formula = f"ceil({base.value} + {agent.value} x {workload.agents} agents + {task.value} x {workload.tasks} tasks) GiB = {gib} GiB"
    source = f"{base.source}, {agent.source}, {task.source}"
    return gib * GIB, LedgerEntry("memory.demand", gib * GIB, "bytes", formula, source)


def working_memory(rules: Rules, workload: Workload) -> Fraction:
    """What agents and tasks need beyond the base, in bytes, exactly."""
    return (
        rules.leaf("sizing.agent_memory").bytes * workload.agents
        + rules.leaf("sizing.task_memory").bytes * workload.tasks
    )


def cpu_curve(catalogue: Catalogue) -> list[tuple[int, int]]:
    """(agents, millicores): the intercept and the top of every tier; between them demand is linear."""
    start = (0, catalogue.rules.leaf("sizing.cpu_intercept").millicores)
    return [
        start,
        *((tier.top("agents"), int(Fraction(str(tier.resources["cpu"].max)) * 1000)) for tier in catalogue.tiers),
    ]


def cpu_at(catalogue: Catalogue, agents: Fraction) -> Fraction:
    """Exact millicores for this many agents of one cell, at most the largest tier's."""
    curve = cpu_curve(catalogue)
    for (x0, y0), (x1, y1) in pairwise(curve):
        if agents <= x1:
            return y0 + (agents - x0) * Fraction(y1 - y0, x1 - x0)
    raise ValueError(f"{agents} agents are more than a cell holds")


def cpu_demand(catalogue: Catalogue, workload: Workload, cells: int) -> Number:
    """Piecewise-linear through the tier tops, over all cells, in millicores rounded up."""
    share = Fraction(workload.agents, cells)
    millicores = ceil(cells * cpu_at(catalogue, share))
    points = ", ".join(f"{x}:{y // 1000}" for x, y in cpu_curve(catalogue))
    formula = f"linear through (agents:cores) {points} at {workload.agents} agents" + (
        f" in {cells} cells" if cells > 1 else ""
    )
    source = "the founding document has no CPU rule; its tier tops are " + ", ".join(
        tier.resources["cpu"].source for tier in catalogue.tiers
    )
    return millicores, LedgerEntry("cpu.demand", millicores, "millicores", formula, source)


def storage_demand(tier: Tier, cells: int) -> Number:
    """The tier's figure for every cell, in bytes."""
    leaf = tier.resources["storage"]
    total = int(leaf.bytes) * cells
    return total, LedgerEntry(
        "storage.demand", total, "bytes", f"{leaf.value} {leaf.unit} x {cells} cells", leaf.source
    )


def network_demand(tier: Tier, cells: int) -> tuple[int | None, LedgerEntry]:
    """The tier's figure for every cell in bits per second; None where the tier makes no claim."""
    leaf = tier.resources["network"]
    if isinstance(leaf.value, str):
        return None, LedgerEntry(
            "network.demand", leaf.value, "word", "the tier makes no claim in figures", leaf.source
        )
    total = int(leaf.exact * 10**9) * cells
    return total, LedgerEntry(
        "network.demand", total, "bits_per_second", f"{leaf.value} {leaf.unit} x {cells} cells", leaf.source
    )
