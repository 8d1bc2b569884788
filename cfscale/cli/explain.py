"""``cfscale explain``: why a number of the plan is what it is, down to its sources; and why the scaler decided so."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import (
    DEFAULT_PROFILE,
    Agents,
    Coefficients,
    Environment,
    Growth,
    OutputOption,
    ProfileArgument,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_sizing,
)
from cfscale.core.derivation import EXPLANATION_SCHEMA, Explained, Step, general, worked
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue, SourceConflict
from cfscale.core.units import format_cpu, format_duration

_DRIVER = ".driver."  # what a replica count follows from is worth nothing without what it assumes


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A rule, a field of the plan's document, a value of the catalogue, a conflict, or a decision of the journal (its id, or 'last'); all rules unless given.",
            show_default=False,
        ),
    ] = None,
    profile: ProfileArgument = None,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
    coefficients: Coefficients = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say why a number is what it is: its rule, its inputs down to their sources, and what is assumed.

    Without a workload the rule is explained in general, with one it is worked out. Of a decision of the scaler: what was
    seen, how the count came about, and what came of it.

    Examples:   cfscale explain

    cfscale explain memory.demand

    cfscale explain services.agents.replicas --users 40 --agents 400 --tasks 800

    cfscale explain last
    """
    sizing = Sizing(users, agents, tasks, environment, tier, growth)
    if name is None:
        _list(output)
        return
    from cfscale.cli.told import explain_decision, is_decision

    if is_decision(name):
        explain_decision(name, profile, output)
        return
    sized = profile is not None or bool(sizing.given()) or DEFAULT_PROFILE.is_file()
    given, catalogue = load_sizing(profile, sizing, coefficients)
    conflict = next((item for item in catalogue.rules.conflicts if item.id == name), None)
    if conflict is not None:
        _show_conflict(conflict, output)
        return
    step = worked(name, Explained(given, catalogue, size(given, catalogue))) if sized else general(name, catalogue)
    if output is not Output.TABLE:
        console.document({"schema": EXPLANATION_SCHEMA, **msgspec.to_builtins(step)}, output)
        return
    console.result("\n".join(_lines(step, catalogue)))
    if not sized:
        console.note("to see the figures of a plan, name a profile or give --users, --agents and --tasks")


def _list(output: Output) -> None:
    """Every rule of the ledger: what it means and where its number stands."""
    from cfscale.adapters.assets import load_catalogue

    ledger = load_catalogue().ledger
    if output is not Output.TABLE:
        console.document({"schema": "cfscale/ledger/v1", **msgspec.to_builtins(ledger)}, output)
        return
    computed = [(rule, text.title, text.field) for rule, text in ledger.computed.items()]
    stated = [(rule, f"as {text.profile or text.leaf} states it", text.field) for rule, text in ledger.stated.items()]
    console.result(console.table(("rule", "what it gives", "field of the plan"), [*computed, *stated]))


def _show_conflict(conflict: SourceConflict, output: Output) -> None:
    if output is not Output.TABLE:
        console.document({"schema": "cfscale/conflict/v1", **msgspec.to_builtins(conflict)}, output)
        return
    rows = [
        *(("says", value) for value in conflict.values),
        ("chosen", conflict.chosen),
        ("why", conflict.why),
        ("source", ", ".join(f"founding:{line}" for line in conflict.lines)),
    ]
    console.result("\n".join([conflict.id, *(f"  {label:<8}{text}" for label, text in rows)]))


def _lines(step: Step, catalogue: Catalogue) -> Iterator[str]:
    """The rule in words, then the tree of its inputs."""
    title = next((text.title for rule, text in catalogue.ledger.computed.items() if _is(rule, step.name)), "")
    rows = {
        "what": title,
        "formula": step.law,
        "here": step.formula,
        "assumes": step.assumption,
        "holds": step.range,
        "field": step.field,
        "source": step.source,
    }
    yield _headline(step)
    yield from (f"  {label:<9}{console.clean(text)}" for label, text in rows.items() if text)
    if step.inputs:
        yield "  follows from"
        yield from _tree(step.inputs, "  ", {step.name})


def _is(rule: str, name: str) -> bool:
    return rule == name or (rule.startswith("SERVICE.") and rule.partition(".")[2] == name.partition(".")[2])


def _tree(steps: tuple[Step, ...], indent: str, seen: set[str]) -> Iterator[str]:
    """One line a step; what was derived further up is not derived again."""
    for number, step in enumerate(steps, 1):
        last = number == len(steps)
        told = step.name in seen and bool(step.inputs)
        seen.add(step.name)
        yield f"{indent}{'└─' if last else '├─'} {_headline(step)}{' (see above)' if told else _reason(step)}"
        if not told:
            yield from _tree(step.inputs, f"{indent}{'   ' if last else '│  '}", seen)


def _headline(step: Step) -> str:
    return step.name if step.value is None else f"{step.name} = {_amount(step)}"


def _reason(step: Step) -> str:
    """What stands behind a number on its line: the arithmetic of a rule, the source and the note of a leaf."""
    if step.inputs or step.law:
        text = step.formula or step.law
        assumed = f", assuming that {step.assumption}" if _DRIVER in step.name else ""
        return f": {console.clean(text)}{assumed}" if text else ""
    note = f" {step.assumption}" if step.assumption else ""
    return f"  [{step.source}]{note}"


def _amount(step: Step) -> str:
    """The value in the unit that an operator speaks."""
    value = step.value
    if isinstance(value, str) or value is None:
        return f"{value} {step.unit}".rstrip()
    if step.unit == "bytes":
        return f"{value / 2**30:.4g} GiB"
    if step.unit == "millicores":
        return f"{format_cpu(int(value))} cores"
    if step.unit == "seconds":
        return format_duration(value)
    return f"{value} {step.unit}".rstrip()
