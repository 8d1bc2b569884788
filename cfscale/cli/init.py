"""``cfscale init``: write a commented profile."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.cli.options import (
    DEFAULT_PROFILE,
    Agents,
    Environment,
    Growth,
    Sizing,
    Tasks,
    TierOption,
    Users,
    overlaid,
    plan_of,
)
from cfscale.core.workload import Profile
from cfscale.errors import RefusedError

_TEXT = """\
# A workload profile: what the deployment has to carry. Every key is described by `cfscale schema profile`.
name: "{name}"
environment: {environment}        # development | staging | production
users: {users}                    # concurrent users
agents: {agents}                  # agents to carry
tasks: {tasks}                    # concurrent tasks
growth: {growth}                  # headroom factor on all three; 1 is none

# sustained: 0.4                    # share of that peak carried most of the time
# agent_class: container            # registered | process | container: what one agent takes
# slo: {{task_rate_per_second: 5, task_seconds: 30, wait_probability: 0.05}}   # sizes the agents by queueing

# services:                         # what differs from the catalogue, per service
#   agents:
#     image: registry.example.com/worker:1.4
#     command: [worker, --port, "{{port}}"]
#     port: 8080
#     health: {{kind: http, path: /healthz, json: {{status: ok}}}}
#     resources: {{cpu: 1, memory: 2G}}
#     env: {{LOG_LEVEL: info}}

# scaling:                          # what is not given comes from the catalogue
#   interval: 10s
#   scale_down: {{stabilization_window: 300s, cooldown: 300s}}
#   services: {{agents: {{min: 2, max: 40}}}}
"""


def init(
    path: Annotated[Path, typer.Argument(help="Where to write the profile.")] = DEFAULT_PROFILE,
    name: Annotated[str, typer.Option("--name", help="Name of the deployment.")] = "cfscale",
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented profile; on a terminal, ask for what no flag says.

    Examples:   cfscale init --users 40 --agents 400 --tasks 800

    cfscale init staging.yaml --environment staging --users 10 --agents 120 --tasks 200
    """
    from cfscale.adapters.files import write_atomic

    if path.exists() and not force:
        raise RefusedError(f"{path}: exists already; give another path or --force")
    answers = {"users": users, "agents": agents, "tasks": tasks}
    asked = {key: value if value is not None else _ask(key) for key, value in answers.items()}
    profile = _checked(Sizing(**asked, environment=environment, tier=tier, growth=growth), name)
    write_atomic(path, _text(profile), mode=0o644)
    console.note(f"wrote {path}; next: cfscale plan {'' if path == DEFAULT_PROFILE else path}".rstrip())


def _ask(what: str) -> str | None:
    if not console.is_terminal() or not console.is_terminal(sys.stdin):
        return None
    return str(typer.prompt(f"{what.capitalize()} (concurrent)", err=True))


def _checked(sizing: Sizing, name: str) -> Profile:
    """The profile these answers make, by the same rules as one read from a file; an existing file plays no part."""
    profile = overlaid(Profile(), {"name": name, **sizing.given()})
    plan_of(profile)
    return profile


def _text(profile: Profile) -> str:
    values = {key: getattr(profile, key) for key in ("name", "environment", "users", "agents", "tasks", "growth")}
    text = _TEXT.format(**values)
    return text if profile.tier == "auto" else text.replace("growth:", f"tier: {profile.tier}\ngrowth:", 1)
