"""The sizing rules: each gives one number and the ledger entry that explains it.

All arithmetic is exact (fractions), and rounding up happens once, at the end: 400 agents and 800 tasks are 30 GiB.
"""

from fractions import Fraction
from itertools import pairwise
from math import ceil

from cfscale.core.ledger import entry
from cfscale.core.plan import LedgerEntry
from cfscale.core.tier import Catalogue, Leaf, Rules, Tier
from cfscale.core.units import GIB
from cfscale.core.workload import Workload

Number = tuple[int, LedgerEntry]


def memory_demand(catalogue: Catalogue, workload: Workload, agent_class: str) -> Number:
    """The founding rule: base + per agent + per task, rounded up to whole GiB, in bytes."""
    rules = catalogue.rules
    names = ("sizing.base_memory", rules.agent_memory(agent_class), "sizing.task_memory")
    base, agent, task = (rules.leaf(name) for name in names)
    gib = ceil((base.bytes + working_memory(rules, workload, agent_class)) / GIB)
    formula = f"ceil({base.value} + {agent.value} x {workload.agents} agents + {task.value} x {workload.tasks} tasks) GiB = {gib} GiB"
    source = ", ".join(dict.fromkeys((base.source, agent.source, task.source)))
    return gib * GIB, entry(catalogue, "memory.demand", gib * GIB, formula, source)


def working_memory(rules: Rules, workload: Workload, agent_class: str) -> Fraction:
    """What agents and tasks need beyond the base, in bytes, exactly."""
    agent, task = rules.leaf(rules.agent_memory(agent_class)), rules.leaf("sizing.task_memory")
    return agent.bytes * workload.agents + task.bytes * workload.tasks


def cpu_curve(catalogue: Catalogue) -> list[tuple[int, int]]:
    """(agents, millicores): the intercept and the top of every tier; between them demand is linear."""
    start = (0, catalogue.rules.leaf("sizing.cpu_intercept").millicores)
    return [start, *((tier.top("agents"), tier.top_millicores) for tier in catalogue.tiers)]


def cpu_at(catalogue: Catalogue, agents: Fraction) -> Fraction:
    """Exact millicores for this many agents of one cell, at most the largest tier's."""
    curve = cpu_curve(catalogue)
    for (x0, y0), (x1, y1) in pairwise(curve):
        if agents <= x1:
            return y0 + (agents - x0) * Fraction(y1 - y0, x1 - x0)
    raise ValueError(f"{agents} agents are more than a cell holds")


def cpu_of(catalogue: Catalogue, workload: Workload) -> Fraction:
    """Exact millicores of the workload of one cell: by the measured coefficients where there are any."""
    return (
        _measured_cpu(catalogue, workload, 1) if measured(catalogue) else cpu_at(catalogue, Fraction(workload.agents))
    )


def measured(catalogue: Catalogue) -> bool:
    """Whether the catalogue carries measured coefficients of CPU instead of the line through the tier tops."""
    return "sizing.agent_cpu" in catalogue.rules.leaves


def cpu_demand(catalogue: Catalogue, workload: Workload, cells: int) -> Number:
    """Piecewise-linear through the tier tops, or by measured coefficients, over all cells, in millicores rounded up."""
    if measured(catalogue):
        return _measured_demand(catalogue, workload, cells)
    share = Fraction(workload.agents, cells)
    millicores = ceil(cells * cpu_at(catalogue, share))
    points = ", ".join(f"{x}:{y // 1000}" for x, y in cpu_curve(catalogue))
    formula = f"linear through (agents:cores) {points} at {workload.agents} agents" + (
        f" in {cells} cells" if cells > 1 else ""
    )
    source = "the founding document has no CPU rule; its tier tops are " + ", ".join(
        tier.resources["cpu"].source for tier in catalogue.tiers
    )
    return millicores, entry(catalogue, "cpu.demand", millicores, formula, source)


def _measured_demand(catalogue: Catalogue, workload: Workload, cells: int) -> Number:
    base, agent, task = _cpu_leaves(catalogue)
    millicores = ceil(_measured_cpu(catalogue, workload, cells))
    formula = f"ceil({cells} x {base.value} + {agent.value} x {workload.agents} agents + {task.value} x {workload.tasks} tasks) cores"
    return millicores, entry(catalogue, "cpu.measured", millicores, formula, agent.source)


def _measured_cpu(catalogue: Catalogue, workload: Workload, cells: int) -> Fraction:
    base, agent, task = _cpu_leaves(catalogue)
    return 1000 * (cells * base.exact + agent.exact * workload.agents + task.exact * workload.tasks)


def _cpu_leaves(catalogue: Catalogue) -> tuple[Leaf, Leaf, Leaf]:
    leaf = catalogue.rules.leaf
    return leaf("sizing.cpu_intercept"), leaf("sizing.agent_cpu"), leaf("sizing.task_cpu")


def storage_demand(catalogue: Catalogue, tier: Tier, cells: int) -> Number:
    """The tier's figure for every cell, in bytes."""
    leaf = tier.resources["storage"]
    total = int(leaf.bytes) * cells
    return total, entry(catalogue, "storage.demand", total, f"{leaf.value} {leaf.unit} x {cells} cells", leaf.source)


def network_demand(catalogue: Catalogue, tier: Tier, cells: int) -> tuple[int | None, LedgerEntry]:
    """The tier's figure for every cell in bits per second; None where the tier makes no claim."""
    leaf = tier.resources["network"]
    if isinstance(leaf.value, str):
        return None, entry(
            catalogue, "network.demand", leaf.value, "a word: the tier makes no claim in figures", leaf.source
        )
    total = int(leaf.exact * 10**9) * cells
    return total, entry(catalogue, "network.demand", total, f"{leaf.value} {leaf.unit} x {cells} cells", leaf.source)
