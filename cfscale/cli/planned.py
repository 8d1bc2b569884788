"""A plan as text: what is carried, by what, on which machines, and why."""

from collections.abc import Iterator

from cfscale.cli import console
from cfscale.core.edges import edge_text, edges
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size

_TIB_FROM = 9.0  # below that, GiB are read more easily


def sections(sized: DeploymentPlan, catalogue: Catalogue, *, explain: bool) -> Iterator[str]:
    """The parts of the text in the order of reading."""
    yield "\n".join(f"{name:<9} {text}" for name, text in _summary(sized, catalogue))
    yield _services(sized)
    if sized.conflicts:
        yield _conflicts(sized, explain=explain)
    if explain:
        yield _ledger(sized, catalogue)


def _summary(sized: DeploymentPlan, catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    demand, totals, nodes = sized.demand, sized.totals, sized.nodes
    admitted = f"{sized.admitted_agents} of " if sized.admitted_agents < sized.agents else ""
    cells = f", {sized.cells} cells" if sized.cells > 1 else ""
    kind = "" if sized.agent_class == "process" else f" of class {sized.agent_class}"
    yield (
        "workload",
        f"{sized.users} users, {admitted}{sized.agents} agents{kind}, {sized.tasks} tasks ({sized.environment})",
    )
    yield from (("slo", entry.formula) for entry in sized.ledger if entry.rule == "agents.slo")
    yield "tier", f"{sized.tier}{cells}; phase {sized.phase}"
    yield "room", edge_text(edges(catalogue, sized))
    yield (
        "demand",
        f"{format_cpu(demand.cpu_millicores)} cores, {_gib(demand.memory_bytes)} memory,"
        f" {_gib(demand.storage_bytes)} storage{_network(sized)}",
    )
    yield (
        "planned",
        f"{format_cpu(totals.cpu_millicores)} cores, {_gib(totals.memory_bytes)} memory, {_gib(totals.storage_bytes)} storage",
    )
    in_all = f" per cell, {sized.cells * nodes.count} in all" if sized.cells > 1 else ""
    yield "nodes", f"{nodes.count} x {format_cpu(nodes.cpu_millicores)} cores, {_gib(nodes.memory_bytes)}{in_all}"
    if sized.cost is not None:
        from cfscale.cli.cost import cost_rows

        yield from cost_rows(sized.cost, sized)


def _gib(size: int) -> str:
    tib = size / 2**40
    return f"{tib:.4g} TiB" if tib >= _TIB_FROM else f"{size / 2**30:.4g} GiB"


def _network(sized: DeploymentPlan) -> str:
    bits = sized.demand.network_bits_per_second
    return "" if bits is None else f", {bits / 1e9:g} Gbit/s"


def _services(sized: DeploymentPlan) -> str:
    columns = ("service", ">replicas", ">min..max", ">cpu", ">limit", ">memory", "driver", "image")
    return console.table(columns, [_row(service) for service in sized.services])


def _row(service: Service) -> tuple[str, ...]:
    return (
        service.name,
        str(service.replicas),
        f"{service.min_replicas}..{service.max_replicas}" if service.scaled else "fixed",
        format_cpu(service.cpu_request_millicores),
        "none" if service.cpu_limit_millicores is None else format_cpu(service.cpu_limit_millicores),
        "none" if service.memory_limit_bytes is None else format_size(service.memory_limit_bytes),
        service.driver,
        service.image,
    )


def _conflicts(sized: DeploymentPlan, *, explain: bool) -> str:
    changed = [conflict for conflict in sized.conflicts if conflict.changed]
    head = f"conflicts {len(sized.conflicts)} in the sources, {len(changed)} of them changed this plan"
    if not explain:
        names = ", ".join(conflict.id for conflict in changed)
        return f"{head}{f': {names}' if names else ''}"
    lines = [
        f"  {c.id}{' (changed this plan)' if c.changed else ''}: {' | '.join(c.values)}\n    chosen: {c.chosen}\n    why: {c.why}"
        for c in sized.conflicts
    ]
    return "\n".join([head, *lines])


def _ledger(sized: DeploymentPlan, catalogue: Catalogue) -> str:
    """What was computed; what is only passed on has its line in ``cfscale explain``."""
    service = {name.partition(".")[2] for name in catalogue.ledger.stated if name.startswith("SERVICE.")}
    stated = [
        entry
        for entry in sized.ledger
        if entry.rule in catalogue.ledger.stated or entry.rule.partition(".")[2] in service
    ]
    left_out = {entry.rule for entry in stated}
    rows = [
        (entry.rule, str(entry.value), entry.unit, entry.formula, entry.source)
        for entry in sized.ledger
        if entry.rule not in left_out
    ]
    table = console.table(("rule", ">value", "unit", "formula", "source"), rows)
    return f"{table}\n\n{len(stated)} more numbers are passed on as the catalogue or the profile states them: 'cfscale explain'"
