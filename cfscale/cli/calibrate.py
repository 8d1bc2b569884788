"""``cfscale calibrate``: the sizing coefficients by live measurements."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import OutputOption, ProfileArgument, Sizing, load_sizing
from cfscale.core.calibrate import Observation, calibrated
from cfscale.core.coefficients import COEFFICIENTS_SCHEMA, Coefficients
from cfscale.core.decision import Entry, Kind
from cfscale.core.plan import Service
from cfscale.core.samples import Quality
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import RefusedError

_READABLE = 0o644
_TRUSTED = (Quality.OK, Quality.APPROX)


def calibrate(
    profile: ProfileArgument = None,
    samples: Annotated[
        str | None,
        typer.Option(
            "--samples",
            metavar="FILE",
            help="CSV with agents, tasks, memory_bytes and cpu_millicores of the whole deployment; else the journal.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the coefficients for 'plan --coefficients'."),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Fit what an agent and a task take to measurements, starting from the founding coefficients.

    Without --samples the journal of the deployment is read: what its agents used while they carried the profile's load.

    Examples:   cfscale calibrate --samples observations.csv --out coefficients.json

    cfscale plan acme.yaml --coefficients coefficients.json
    """
    given, catalogue = load_sizing(profile, Sizing())
    if samples is not None:
        from cfscale.adapters.observations import read_samples

        found, source = read_samples(samples), samples
    else:
        found, source = _journalled(given, catalogue), f"the journal of {given.name}"
    document = calibrated(found, catalogue, given.agent_class, source)
    if out is not None:
        _write(out, document)
    if output is not Output.TABLE:
        console.document(document, output)
        return
    _show(document, out)


def _journalled(profile: Profile, catalogue: Catalogue) -> list[Observation]:
    """What the journal says that the agents used; the declared load is taken for the one they carried."""
    from cfscale.adapters.journal import Journal
    from cfscale.adapters.state import state_folder

    plan = size(profile, catalogue)
    load = (plan.admitted_agents, plan.tasks)
    entries = Journal(state_folder(profile.name, os.environ)).entries()
    return list(_observed(entries, plan.service("agents"), load))


def _observed(entries: Iterator[Entry], agents: Service, load: tuple[int, int]) -> Iterator[Observation]:
    memory_limit = agents.memory_limit_bytes or agents.memory_request_bytes
    cpu_limit = agents.cpu_limit_millicores or agents.cpu_request_millicores
    for item in entries:
        ratios = {s.resource: s.value_ratio for s in item.decision.samples if s.quality in _TRUSTED}
        if item.kind is Kind.RESULT or item.decision.service != agents.name or not ratios.keys() >= {"cpu", "memory"}:
            continue
        replicas = item.decision.current
        yield Observation(
            *load,
            memory_bytes=round(ratios["memory"] * memory_limit * replicas),
            cpu_millicores=round(ratios["cpu"] * cpu_limit * replicas),
            base=False,
        )


def _write(path: Path, document: Coefficients) -> None:
    """Write the coefficients whole; raises RefusedError where something else stands there."""
    import msgspec

    from cfscale.adapters.files import write_atomic

    if os.path.lexists(path) and (not path.is_file() or COEFFICIENTS_SCHEMA.encode() not in path.read_bytes()[:256]):
        raise RefusedError(f"{path}: exists and holds no coefficients: choose another name, or move it away")
    write_atomic(path, msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n", _READABLE)


def _show(document: Coefficients, out: Path | None) -> None:
    rows = [
        (
            item.name,
            item.unit,
            f"{item.prior:.4g}",
            str(document.observations),
            f"{item.posterior:.4g}",
            f"{item.low:.4g} .. {item.high:.4g}",
            f"{item.data_ratio:.0%}",
        )
        for item in document.coefficients
    ]
    interval = f"{document.confidence_ratio:.0%} interval"
    columns = ("coefficient", "unit", ">prior", ">n", ">posterior", f">{interval}", ">from data")
    console.result(console.table(columns, rows))
    if any(item.posterior == 0 for item in document.coefficients):
        console.warn("a coefficient of 0 was held there: the data asked for less than nothing")
    if out is None:
        console.note("to plan with them, write them with --out FILE and give 'cfscale plan --coefficients FILE'")
