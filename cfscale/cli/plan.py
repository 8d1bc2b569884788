"""``cfscale plan``: size a workload and say why; what if, how much more, what for, until when, and against what runs."""

from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import (
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
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import InputError, RefusedError


def plan(
    profile: ProfileArgument = None,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
    coefficients: Coefficients = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show rule, formula and source of the numbers.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 where a contradiction of the sources changed the plan.")
    ] = False,
    what_if: Annotated[
        str | None,
        typer.Option("--what-if", metavar="CHANGES", help="Compare with a changed workload: agents=2000,tasks=+50%."),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Show which input moves which total, and where the next step comes.")
    ] = False,
    inverse: Annotated[
        str | None,
        typer.Option("--inverse", metavar="HARDWARE", help="Show what load this carries: nodes=3,cpu=16,memory=64G."),
    ] = None,
    growth_rate: Annotated[
        str | None,
        typer.Option("--growth-rate", metavar="RATE", help="Show when the plan is outgrown: 8%/month."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="The day --growth-rate starts on; today unless given."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="PATH", help="Compare with what a compose.yaml, or a folder with one, deploys."
        ),
    ] = None,
    prices: Annotated[
        str | None, typer.Option("--prices", metavar="FILE", help="Add the cost by this price file.")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", metavar="NAME", help="Region of the price file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Save the plan; 'render' and 'up' take it in place of a profile."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> int | None:
    """Size a workload: tier, services, nodes, and why.

    Examples:   cfscale plan --users 40 --agents 400 --tasks 800

    cfscale plan acme.yaml --growth 1.5 --explain

    cfscale plan acme.yaml --what-if agents=2000,tasks=+50%

    cfscale plan acme.yaml --growth-rate 8%/month

    cfscale plan acme.yaml --inverse nodes=3,cpu=16,memory=64G

    cfscale plan acme.yaml --prices prices.yaml --region example-west

    cfscale plan acme.yaml --out plan.json

    cfscale render plan.json --target compose --out deploy
    """
    asked = {
        "--what-if": what_if,
        "--sensitivity": sensitivity or None,
        "--inverse": inverse,
        "--growth-rate": growth_rate,
        "--against": against,
    }
    questions = [flag for flag, value in asked.items() if value is not None]
    if len(questions) > 1:
        raise InputError(f"{' and '.join(questions)} are questions of their own: ask one at a time")
    _goes_with("--from", start, "--growth-rate", growth_rate)
    _goes_with("--region", region, "--prices", prices)
    _goes_with("--prices", prices, "--region", region)
    sizing = Sizing(users, agents, tasks, environment, tier, growth)
    given, catalogue = load_sizing(profile, sizing, coefficients)
    if questions and prices is not None:
        raise InputError(f"--prices tells what a plan costs, not {questions[0]}: leave one out")
    if questions:
        return _answer(questions[0], str(asked[questions[0]]), Question(given, catalogue, output, start))
    sized = size(given, catalogue)
    if out is not None:
        from cfscale.cli.savedplan import Origin, save_plan

        save_plan(out, given, sized, Origin(profile, sizing.given(), coefficients))
    if prices is not None and region is not None:
        from cfscale.cli.cost import with_cost

        sized = with_cost(sized, catalogue, prices, region)  # after saving: prices are no input of the plan
    _show(sized, catalogue, output, explain=explain)
    if strict:
        _refuse_conflicts(sized)
    return None


class Question(Struct, frozen=True):
    """What a question about a plan is asked of."""

    profile: Profile
    catalogue: Catalogue
    output: Output
    start: str | None = None


def _goes_with(flag: str, value: object, other: str, other_value: object) -> None:
    if value is not None and other_value is None:
        raise InputError(f"{flag} goes with {other}: give both")


def _answer(flag: str, text: str, question: Question) -> int | None:
    """Answer one question; each has its own module, which only it loads."""
    if flag == "--against":
        from cfscale.cli.against import against

        return against(size(question.profile, question.catalogue), text, question.output)
    from cfscale.cli import foresight

    profile, catalogue, output = question.profile, question.catalogue, question.output
    match flag:
        case "--what-if":
            foresight.what_if(profile, catalogue, text, output)
        case "--sensitivity":
            foresight.sensitivity(profile, catalogue, output)
        case "--inverse":
            foresight.inverse(profile, catalogue, text, output)
        case _:
            foresight.horizon(profile, catalogue, text, _day(question.start), output)
    return None


def _day(text: str | None) -> date:
    try:
        return date.today() if text is None else date.fromisoformat(text)  # noqa: DTZ011 - the operator's own day
    except ValueError as error:
        raise InputError(f"--from '{text}' is not a day: write it as 2026-11-24") from error


def _show(sized: DeploymentPlan, catalogue: Catalogue, output: Output, *, explain: bool) -> None:
    if output is not Output.TABLE:
        console.document(sized, output)
        return
    from cfscale.cli.planned import sections

    console.result("\n\n".join(sections(sized, catalogue, explain=explain)))
    for warning in sized.warnings:
        console.warn(warning)
    if not explain:
        console.note("every number has a reason: add --explain, or ask 'cfscale explain FIELD'")


def _refuse_conflicts(sized: DeploymentPlan) -> None:
    """Raises RefusedError where a contradiction of the sources changed the plan."""
    changed = [conflict.id for conflict in sized.conflicts if conflict.changed]
    if changed:
        raise RefusedError(
            f"contradictions of the sources changed this plan: {', '.join(changed)}: read 'cfscale explain ID', or leave out --strict"
        )
