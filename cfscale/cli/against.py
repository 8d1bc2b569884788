"""``cfscale plan --against``: what is deployed, held against the plan.

Exit 0: as planned, or only larger (that costs money, not safety). Exit 1: something is missing, too small, unlimited or
another. Exit 3: nothing is known to be wrong, but a value is left to a variable.
"""

from pathlib import Path

from cfscale.adapters.assets import load_catalogue
from cfscale.adapters.deployed import STACK, manifest, read_deployed
from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.deviation import DANGEROUS, DEVIATIONS_SCHEMA, Deviation, Deviations, Tolerance, Verdict, compare
from cfscale.core.plan import DeploymentPlan
from cfscale.core.swarm import UNCHECKED, carried
from cfscale.core.units import format_cpu, format_duration, format_size
from cfscale.render.families import health_command

_COLUMNS = ("service", "what", ">planned", ">deployed", "verdict", "rule")


def against(sized: DeploymentPlan, path: str, output: Output) -> int:
    """Show every deviation of the Compose file (or its folder) from the plan; returns the exit code."""
    found = deviations(sized, Path(path))
    if output is not Output.TABLE:
        console.document(found, output)
    else:
        console.result(_text(sized, found))
    return _code(found)


def deviations(sized: DeploymentPlan, path: Path) -> Deviations:
    """All deviations of what a Compose or stack file deploys; raises InputError where it cannot be read."""
    deployed, notes = read_deployed(path)
    stack = manifest(path).name == STACK
    sized = carried(sized) if stack else sized
    rules = load_catalogue().rules
    tolerance = Tolerance(
        rules.leaf("sizing.deviation.under").exact / 100, rules.leaf("sizing.deviation.over").exact / 100
    )
    checked = {service.name for service in sized.services if health_command(service) is not None}
    checked -= UNCHECKED if stack else frozenset()
    known = {service.name for service in sized.services}
    return Deviations(
        schema=DEVIATIONS_SCHEMA,
        manifest=str(manifest(path)),
        services=len(deployed),
        deviations=compare(sized, deployed, tolerance, checked),
        unplanned=tuple(part.name for part in deployed if part.part_of not in known),
        notes=notes,
    )


def _code(found: Deviations) -> int:
    verdicts = {deviation.verdict for deviation in found.deviations}
    if verdicts & DANGEROUS:
        return 1
    return 3 if Verdict.UNKNOWN in verdicts else 0


def _text(sized: DeploymentPlan, found: Deviations) -> str:
    lines = []
    if found.deviations:
        lines += [console.table(_COLUMNS, [_row(deviation) for deviation in found.deviations]), ""]
    lines.append(console.clean(f"{found.manifest}: {_summary(sized, found)}"))
    if found.unplanned:
        lines.append(console.clean(f"not planned, not compared: {', '.join(found.unplanned)}"))
    return "\n".join([*lines, *(console.clean(note) for note in found.notes)])


def _summary(sized: DeploymentPlan, found: Deviations) -> str:
    if not found.deviations:
        return f"as planned ({sized.tier}, {found.services} services)"
    count = len(found.deviations)
    text = f"{count} deviation{'s' if count > 1 else ''} from the plan"
    if all(deviation.verdict is Verdict.OVER for deviation in found.deviations):
        return f"{text}, all of them larger than planned: that costs money, nothing else"
    return text


def _row(deviation: Deviation) -> tuple[str, ...]:
    shown = (_amount(deviation.planned, deviation.unit), _amount(deviation.deployed, deviation.unit))
    return (deviation.service, deviation.what, *shown, deviation.verdict, deviation.rule)


def _amount(value: int | str | None, unit: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if unit == "bytes":
        return f"{value / 2**30:.4g} GiB" if value >= 2**30 else format_size(value)
    if unit == "millicores":
        return f"{format_cpu(value)} cores"
    return format_duration(value / 1000) if unit == "milliseconds" else str(value)
