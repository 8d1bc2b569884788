"""``cfscale down``: stop a deployment and remove everything but its data."""

import os
import sys
from datetime import UTC, datetime
from typing import Annotated

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
from cfscale.errors import InputError


def down(
    profile: ProfileArgument = None,
    engine: EngineOption = "auto",
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Remove the data too; asks for the deployment's name.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --volumes: do not ask.")] = False,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
) -> None:
    """Stop a deployment. Volumes are kept unless --volumes is given.

    Examples:   cfscale down

    cfscale down acme.yaml --volumes
    """
    from cfscale.adapters.lock import Lock
    from cfscale.cli.engines import open_deployment

    plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
    deployment = open_deployment(plan, engine, profile)
    deployment.require_own()
    if volumes and not yes:
        _confirm(plan.name)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    with Lock(deployment.engine.target, command="cfscale down", started_at=started):
        deployment.engine.down(volumes=volumes)
        if deployment.state.folder.is_dir():
            deployment.state.record_engine(None)
    console.note(f"{plan.name} is down; {'its data is removed' if volumes else 'its data is kept'}")


def _confirm(name: str) -> None:
    """Have the operator type the name; refuses where nobody can."""
    if not console.is_terminal(sys.stdin) or os.environ.get("CI"):
        raise InputError(f"--volumes removes the data of {name} for good: give --yes where nobody can be asked")
    if typer.prompt(f"This removes the data of {name} for good. Type its name to go on", err=True) != name:
        raise InputError("that is not its name: nothing was changed")
