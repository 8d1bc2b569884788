"""``cfscale up``: plan, render, start, and probe until everything is healthy."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfscale.cli import console
from cfscale.cli.options import (
    Agents,
    EngineOption,
    Environment,
    Growth,
    ProfileArgument,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_plan,
)
from cfscale.core.workload import duration
from cfscale.errors import ActionError

if TYPE_CHECKING:
    from cfscale.cli.engines import Deployment

_PATIENCE_SECONDS = 180.0


def up(
    profile: ProfileArgument = None,
    engine: EngineOption = "auto",
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Engine process: leave the supervisor in the background.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where to render; in the state directory unless given.", show_default=False
        ),
    ] = None,
    reset_replicas: Annotated[
        bool, typer.Option("--reset-replicas", help="Start the planned counts, whatever scaling made of them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite rendered files that were edited by hand.")] = False,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="3m", help="How long to wait until all are healthy.", show_default=False),
    ] = None,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
) -> int:
    """Start a deployment and wait until it is healthy; running it again changes nothing that scaling has changed.

    With --engine process it supervises in the foreground, and Ctrl-C is `cfscale down`; --detach returns.

    Examples:   cfscale up

    cfscale up acme.yaml --engine process --detach

    cfscale up acme.yaml --engine swarm
    """
    from cfscale.adapters.lock import Lock
    from cfscale.cli.engines import open_deployment
    from cfscale.runtime.up import counts_to_start, live_replicas

    patience = duration(timeout, _PATIENCE_SECONDS, "--timeout")
    plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
    for warning in plan.warnings:
        console.warn(warning)
    deployment = open_deployment(plan, engine, profile, out)
    deployment.require_own()
    deployment.require_replicas()
    deployment.state.create()
    with Lock(deployment.engine.target, command="cfscale up", started_at=_now()):
        counts = counts_to_start(plan, live_replicas(deployment.engine), reset=reset_replicas)
        counts = deployment.fitting(counts)
        deployment.prepare(force=force)
        deployment.state.record_engine(deployment.engine.name)
        if deployment.engine.name != "process" or detach:
            deployment.engine.up(counts)
    if deployment.engine.name == "process" and not detach:
        return _foreground(deployment, counts)
    if deployment.engine.name == "kubernetes":
        return _installed(deployment)
    return _until_healthy(deployment, patience)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _foreground(deployment: "Deployment", counts: dict[str, int]) -> int:
    """Supervise until a signal or ``cfscale down`` ends it."""
    from cfscale.adapters.process import ProcessEngine

    assert isinstance(deployment.engine, ProcessEngine)  # noqa: S101 - narrows the type: its name was just compared
    console.note("supervising; Ctrl-C stops everything")
    ended_by = deployment.engine.supervise(counts, console.note)
    deployment.state.record_engine(None)
    return 0 if ended_by is None else 128 + ended_by


def _installed(deployment: "Deployment") -> int:
    """Say what runs: helm has waited for it, and pods cannot be asked from outside of their cluster."""
    from cfscale.core.samples import ReplicaState

    ready = [item for item in deployment.engine.replicas() if item.state is ReplicaState.READY]
    name = deployment.plan.name
    console.note(f"{name} is up: {len(ready)} replicas are ready; 'helm get notes {name}' says how to reach it")
    return 0


def _until_healthy(deployment: "Deployment", patience: float) -> int:
    """Probe until everything is alive, and say where to send requests."""
    import asyncio

    from cfscale.cli.probing import deployed, until_up
    from cfscale.cli.scale import Clock
    from cfscale.cli.verdicts import as_table, summary
    from cfscale.runtime.probing import healthy
    from cfscale.runtime.up import until_taken_in

    clock = Clock()
    deadline = clock.monotonic() + patience
    console.note(f"started; probing until all are healthy (at most {patience:g} s)")
    report = asyncio.run(until_up(deployed(deployment), patience))
    console.result(as_table(report))
    for note in deployment.notes():
        console.note(note)
    if not healthy(report):
        raise ActionError(f"not healthy within {patience:g} s: {summary(report)}; see 'cfscale status'")
    if idle := until_taken_in(deployment.plan, deployment.idle, clock, seconds=deadline - clock.monotonic()):
        raise ActionError(
            f"after {patience:g} s a loadbalancer still finds no healthy replica for {', '.join(idle)}: see its log"
        )
    if endpoint := deployment.endpoint(deployment.engine.replicas()):
        console.note(f"{deployment.plan.name} is up: http://{endpoint}/")
    return 0
