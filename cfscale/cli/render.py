"""``cfscale render``: write the manifests of a plan, or compare them with what is on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.cli.options import (
    Agents,
    Environment,
    Growth,
    ProfileArgument,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_plan,
)
from cfscale.core.plan import DeploymentPlan
from cfscale.core.swarm import carried
from cfscale.errors import InputError

TARGETS = ("compose", "swarm", "helm")


def render(
    target: Annotated[str, typer.Option("--target", metavar="compose|swarm|helm", help="What to write manifests for.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Directory that holds nothing but what cfscale renders.")
    ],
    profile: ProfileArgument = None,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where DIR differs from what would be rendered.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Write nothing; show how DIR differs, and exit 1 where it does.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that were edited by hand or are not ours.")
    ] = False,
    package: Annotated[
        Path | None,
        typer.Option(
            "--package",
            metavar="FILE",
            help="Target helm: also write the chart as a package, the same bytes wherever it is made.",
            show_default=False,
        ),
    ] = None,
) -> int:
    """Write the manifests of a plan: every file the deployment mounts, and cfscale.lock.json.

    What the target cannot carry is listed on stderr, what is left for you to do, and what each component's own checker
    says of its file.

    Examples:   cfscale render acme.yaml --target compose --out deploy

    cfscale render acme.yaml --target compose --out deploy --check

    cfscale render acme.yaml --target swarm --out stack

    cfscale render acme.yaml --target helm --out chart --package acme.tgz
    """
    if target not in TARGETS:
        raise InputError(f"--target '{target}': this version renders {', '.join(TARGETS)}")
    if package is not None and (target != "helm" or check or diff):
        raise InputError("--package goes with --target helm, and not with --check or --diff")
    plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
    if check or diff:
        return _compare(plan, target, out, show=diff)
    for name in write_manifests(plan, target, out, force=force):
        console.note(f"wrote {out / name}")
    if package is not None:
        _write_package(plan, package)
    for line in _remarks(plan, target, out):
        console.note(line)
    # the configuration of a chart is made in the cluster: there is nothing to check yet
    return 0 if target == "helm" else _checked(plan, out)


def _checked(plan: DeploymentPlan, out: Path) -> int:
    """Run each component's own checker on what was written; 1 where one refuses it."""
    from cfscale.adapters.configcheck import run_checkers

    balancer = plan.find("loadbalancer")
    images = {} if balancer is None else {"haproxy": balancer.image, "promtool": plan.settings.monitoring.image}
    refused = 0
    for item in run_checkers(out, images):
        console.note(f"{item.checker}: {item.verdict}" + (f": {item.reason}" if item.reason else ""))
        refused += item.verdict == "refused"
    return 1 if refused else 0


def _remarks(plan: DeploymentPlan, target: str, out: Path) -> Iterator[str]:
    """What the target cannot carry, and what is to be done by hand where 'cfscale up' does not do it."""
    from cfscale.core import composeloss, swarm
    from cfscale.core.tier import pool_kind

    if target == "helm":
        yield from _helm_remarks(plan, out)
        return
    if target == "compose":
        yield from (loss.line() for loss in composeloss.losses(plan))
        return
    yield from (loss.line() for loss in swarm.losses(plan))
    for image, folder in {item.image: pool_kind(item.name) for item in plan.services if item.build}.items():
        yield f"to do: docker build --tag {image} {out / 'images' / folder} && docker push {image}"
    first, *others = swarm.keepers(plan)
    label = f"{swarm.pin_label(plan, first)}={swarm.HERE}"
    also = f", and so for {', '.join(others)}" if others else ""
    yield f"to do, unless 'cfscale up' does it: docker node update --label-add {label} NODE{also}"


def _helm_remarks(plan: DeploymentPlan, out: Path) -> Iterator[str]:
    from cfscale.core.tier import pool_kind
    from cfscale.render.helm import built, losses

    yield from (loss.line() for loss in losses(plan))
    for image, folder in {f"REGISTRY/{item.image}": pool_kind(item.name) for item in built(plan)}.items():
        yield f"to do: docker build --tag {image} {out / 'images' / folder} && docker push {image}"
    yield f"to do: helm upgrade --install {plan.name} {out} --set global.imageRegistry=REGISTRY --wait"


def rendered(plan: DeploymentPlan, target: str) -> tuple[dict[str, str], str]:
    """Path to text of every file, and the text of the lock file."""
    from cfscale.adapters.assets import load_templates
    from cfscale.render.lock import lock_document

    templates = load_templates()
    if target == "swarm":
        plan = carried(plan)
    files = _files(plan, target, templates)
    return files, lock_document(plan, target, files, templates)


def _files(plan: DeploymentPlan, target: str, templates: Mapping[str, str]) -> dict[str, str]:
    if target == "helm":
        from cfscale.render import helm

        return helm.render(plan, templates, _presets(plan))
    from cfscale.render import compose, swarm

    return swarm.render(plan, templates) if target == "swarm" else compose.render(plan, templates)


def _presets(plan: DeploymentPlan) -> dict[str, DeploymentPlan]:
    """Each tier at its top, for the values files that the chart ships beside its own."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.core.presets import presets

    return presets(load_catalogue(), plan.name)


def _write_package(plan: DeploymentPlan, path: Path) -> None:
    from cfscale.adapters.files import write_bytes
    from cfscale.render.helm.package import packaged

    files, _ = rendered(plan, "helm")
    write_bytes(path, packaged(files))
    console.note(f"wrote {path}")


def write_manifests(plan: DeploymentPlan, target: str, out: Path, *, force: bool) -> tuple[str, ...]:
    """Render a plan into a directory, secrets included, and return what was written; raises RefusedError."""
    from cfscale.adapters.files import ensure_env_files, ensure_secrets, write_tree
    from cfscale.render.context import secret_files

    files, lock_text = rendered(plan, target)
    env_files = _env_files(plan) if target == "swarm" else ()
    written = write_tree(out, files, lock_text, force=force)
    if target != "helm":  # a cluster keeps its own
        ensure_secrets(out, secret_files(plan))
        ensure_env_files(out, env_files)
    return written


def _env_files(plan: DeploymentPlan) -> tuple[str, ...]:
    """What docker stack reads and must find, if empty: the operator's own variables."""
    from cfscale.render.context import env_file

    return tuple(name for service in plan.services if (name := env_file(service)) is not None)


def _compare(plan: DeploymentPlan, target: str, out: Path, *, show: bool) -> int:
    from cfscale.adapters.files import diff_text, drift

    files, lock_text = rendered(plan, target)
    expected = {**files, "cfscale.lock.json": lock_text}
    found = drift(out, expected)
    if show:
        console.result(diff_text(out, expected)) if found else console.note(f"{out}: no difference")
    else:
        for item in found:
            console.result(f"{item.kind}  {item.path}")
        if not found:
            console.note(f"{out}: no drift")
    return 1 if found else 0
