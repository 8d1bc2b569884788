"""How far a plan is from the edges of its tier: room to the top, and distance to the smaller tier's top."""

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan
from cfscale.core.tier import Catalogue, Tier

DRIVERS = ("users", "agents", "tasks")


class Edge(Struct, frozen=True):
    """One input against its tier: ``room`` more fit; ``above`` is how far it is over the smaller place's top.

    ``above`` is None where nothing is smaller, and zero or less where this input alone would fit there.
    """

    driver: str
    amount: int
    top: int
    room: int
    above: int | None
    beyond: str


def edges(catalogue: Catalogue, plan: DeploymentPlan) -> tuple[Edge, ...]:
    """The edges of users, agents and tasks; past the largest tier they are those of the present number of cells."""
    names = [tier.name for tier in catalogue.tiers]
    index = names.index(plan.tier)
    beyond = names[index + 1] if index + 1 < len(names) else f"{plan.cells + 1} cells"
    amounts = {"users": plan.users, "agents": plan.admitted_agents, "tasks": plan.tasks}
    return tuple(_edge(catalogue.tiers[: index + 1], plan.cells, pair, beyond) for pair in amounts.items())


def _edge(tiers: list[Tier], cells: int, driver: tuple[str, int], beyond: str) -> Edge:
    name, amount = driver
    top = cells * tiers[-1].top(name)
    smaller = (cells - 1) * tiers[-1].top(name) if cells > 1 else tiers[-2].top(name) if len(tiers) > 1 else None
    return Edge(name, amount, top, top - amount, None if smaller is None else amount - smaller, beyond)


def edge_text(found: tuple[Edge, ...]) -> str:
    """One line: what more fits before the next tier or cell, and what keeps the plan out of the smaller one."""
    room = ", ".join(f"{edge.room} {edge.driver}" for edge in found)
    over = [f"{edge.above} {edge.driver}" for edge in found if edge.above is not None and edge.above > 0]
    above = f"; above the smaller by {', '.join(over)}" if over else ""
    return f"{room} below {found[0].beyond}{above}"
