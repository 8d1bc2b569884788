"""``cfscale plan --what-if``, ``--sensitivity``, ``--inverse`` and ``--growth-rate``: what a plan does when its inputs move."""

from datetime import date

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size
from cfscale.core.workload import Profile


def what_if(profile: Profile, catalogue: Catalogue, text: str, output: Output) -> None:
    """Show what changes in the plan; raises InputError for a bad change and what sizing raises."""
    from cfscale.core.sizing import size
    from cfscale.core.whatif import WHAT_IF_SCHEMA, WhatIf, differences, with_changes

    base, changed = size(profile, catalogue), size(with_changes(profile, text), catalogue)
    found = differences(base, changed)
    if output is not Output.TABLE:
        console.document(WhatIf(WHAT_IF_SCHEMA, found, base, changed), output)
        return
    rows = [
        (
            item.field,
            _amount(item.field, item.base),
            _amount(item.field, item.what_if),
            "" if item.change_ratio is None else f"{item.change_ratio:+.1%}",
        )
        for item in found
    ]
    console.result(console.table(("what", "now", "what-if", ">change"), rows) if rows else "nothing changes")


def sensitivity(profile: Profile, catalogue: Catalogue, output: Output) -> None:
    """Show what one more unit of each input moves, and where the next steps are; raises what sizing raises."""
    from cfscale.core.sensitivity import sensitivities

    found = sensitivities(profile, catalogue)
    if output is not Output.TABLE:
        console.document(found, output)
        return
    rates = [
        (rate.input, rate.output, _amount(rate.output, rate.per_unit), _percent(rate.effect_ratio))
        for rate in found.rates
        if rate.per_unit
    ]
    steps = [
        (s.input, s.output, s.direction, str(s.at), _amount(s.output, s.now), _amount(s.output, s.becomes))
        for s in found.steps
        if s.at is not None
    ]
    console.result(
        console.table(("input", "output", ">one more moves", ">1 % more moves"), rates)
        + "\n\n"
        + console.table(("input", "output", "", ">next step at", ">from", ">to"), steps)
    )


def _percent(ratio: float | None) -> str:
    """Percent for percent; nothing for what moves in steps, of which one percent more may move none."""
    return "" if ratio is None else f"{ratio:.2f} %"


def _amount(output: str, value: str | float | None) -> str:
    if value is None:
        return "no plan"
    if isinstance(value, str):
        return value
    if output.endswith("_bytes"):
        return f"{value / 2**30:.4g} GiB"
    return f"{value / 1000:.4g} cores" if output.endswith("_millicores") else f"{value:g}"


def inverse(profile: Profile, catalogue: Catalogue, text: str, output: Output) -> None:
    """Show what hardware carries; raises InputError for bad hardware, RefusedError where it carries no agent."""
    from cfscale.core.inverse import capacity, parse_hardware

    found = capacity(profile, catalogue, parse_hardware(text))
    if output is not Output.TABLE:
        console.document(found, output)
        return
    hardware = found.hardware
    after = "no such plan" if found.next_machines is None else f"{found.next_machines} machines ({found.next_tier})"
    rows = [
        (
            "hardware",
            f"{hardware.count} x {format_cpu(hardware.cpu_millicores)} cores, {format_size(hardware.memory_bytes)}",
        ),
        ("carries", f"{found.users} users, {found.agents} agents, {found.tasks} tasks"),
        ("tier", f"{found.tier}, {found.cells} cell{'s' if found.cells > 1 else ''}, {found.machines} machines"),
        (
            "bound by",
            f"{found.bound_by}; {found.cpu_ratio:.0%} of the CPU and {found.memory_ratio:.0%} of the memory are planned",
        ),
        ("one more", f"{found.next_agents} agents: {after}"),
    ]
    console.result("\n".join(f"{name:<9} {words}" for name, words in rows))


def horizon(profile: Profile, catalogue: Catalogue, rate_text: str, start: date, output: Output) -> None:
    """Show when the plan is outgrown; raises InputError for a bad rate or a start beyond the calendar."""
    from cfscale.core.horizon import horizon as events_of
    from cfscale.core.horizon import parse_rate
    from cfscale.core.workload import grown_workload

    grown_workload(profile)
    found = events_of(profile, catalogue, parse_rate(rate_text), start)
    if output is not Output.TABLE:
        console.document(found, output)
        return
    rows = [
        (
            event.date.isoformat(),
            f"{event.days} d",
            *("-" if amount is None else str(amount) for amount in (event.users, event.agents, event.tasks)),
            "; ".join(
                f"{c.field} {c.before} -> {'no plan' if c.becomes is None else c.becomes}" for c in event.changes
            ),
        )
        for event in found.events
    ]
    table = console.table(("date", ">in", ">users", ">agents", ">tasks", "outgrown"), rows)
    console.result(f"{table}\nlooked for up to {found.searched_to}, at most 40 events")
