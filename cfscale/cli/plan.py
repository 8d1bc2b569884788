"""``cfscale plan``: size a workload and say why."""

from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import (
    Agents,
    Environment,
    Growth,
    OutputOption,
    ProfileArgument,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_plan,
)
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.units import format_cpu, format_size


def plan(
    profile: ProfileArgument = None,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the rule, formula and source of every number.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Size a workload: tier, services, nodes, and why.

    Examples:   cfscale plan --users 40 --agents 400 --tasks 800

    cfscale plan acme.yaml --growth 1.5 --explain

    cfscale plan acme.yaml -o json
    """
    sized = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
    if output is not Output.TABLE:
        console.document(sized, output)
        return
    console.result("\n\n".join(_sections(sized, explain=explain)))
    for warning in sized.warnings:
        console.warn(warning)
    if not explain:
        console.note("every number has a reason: add --explain")


def _sections(sized: DeploymentPlan, *, explain: bool) -> list[str]:
    sections = [_summary(sized), _services(sized)]
    if sized.conflicts:
        sections.append(_conflicts(sized, explain=explain))
    if explain:
        sections.append(_ledger(sized))
    return sections


def _summary(sized: DeploymentPlan) -> str:
    demand, totals, nodes = sized.demand, sized.totals, sized.nodes
    admitted = (
        f"{sized.admitted_agents} of {sized.agents} agents"
        if sized.admitted_agents < sized.agents
        else f"{sized.agents} agents"
    )
    cells = f", {sized.cells} cells" if sized.cells > 1 else ""
    per_cell = " per cell" if sized.cells > 1 else ""
    rows = [
        ("workload", f"{sized.users} users, {admitted}, {sized.tasks} tasks ({sized.environment})"),
        ("tier", f"{sized.tier}{cells}; phase {sized.phase}"),
        (
            "demand",
            f"{format_cpu(demand.cpu_millicores)} cores, {_gib(demand.memory_bytes)} memory, {_gib(demand.storage_bytes)} storage{_network(sized)}",
        ),
        (
            "planned",
            f"{format_cpu(totals.cpu_millicores)} cores, {_gib(totals.memory_bytes)} memory, {_gib(totals.storage_bytes)} storage",
        ),
        ("nodes", f"{nodes.count} x {nodes.cpu_millicores // 1000} cores, {_gib(nodes.memory_bytes)}{per_cell}"),
    ]
    return "\n".join(f"{name:<9} {text}" for name, text in rows)


def _gib(size: int) -> str:
    return f"{size / 2**30:.4g} GiB"


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
    if not explain:
        names = ", ".join(conflict.id for conflict in sized.conflicts)
        return f"conflicts {len(sized.conflicts)} in the sources: {names}"
    lines = [f"  {c.id}: {' | '.join(c.values)}\n    chosen: {c.chosen}\n    why: {c.why}" for c in sized.conflicts]
    return "conflicts in the sources\n" + "\n".join(lines)


def _ledger(sized: DeploymentPlan) -> str:
    rows = [(entry.rule, str(entry.value), entry.unit, entry.formula, entry.source) for entry in sized.ledger]
    return console.table(("rule", ">value", "unit", "formula", "source"), rows)
