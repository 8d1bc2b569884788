"""A plan as a Compose project: one call, plan and templates in, path and text of every file out.

    configs ─▶ config/* ─▶ compose.yaml (carries their digests) ─▶ check ─▶ files

One cell is one project. Another dialect gives the same files with another manifest. The text depends on nothing but the arguments; what ``check`` finds different from the plan
is never returned.
"""

import hashlib
from collections.abc import Mapping

from cfscale.core.plan import DeploymentPlan
from cfscale.errors import InputError
from cfscale.render import check, context
from cfscale.render.configs import configs
from cfscale.render.dialect import COMPOSE, Dialect
from cfscale.render.engine import Engine
from cfscale.render.images import build_contexts


def render(plan: DeploymentPlan, templates: Mapping[str, str], dialect: Dialect = COMPOSE) -> dict[str, str]:
    """Text of every file by its relative path; raises InputError for a value that cannot be rendered.

    ActionError means that a template is broken: unknown name, unquoted value, or a file that differs from the plan.
    """
    template = f"{dialect.name}/{plan.tier}.yaml.j2"
    if template not in templates:
        raise InputError(f"tier {plan.tier!a} has no {dialect.name} template: {_tiers(templates, dialect.name)}")
    engine, peers = Engine(templates), {"peers": dialect.peers}
    files = {path: engine.render(name, {**values, **peers}) for path, (name, values) in configs(plan).items()}
    manifest = engine.render(template, {**context.project(plan), **_mounts(plan, files)})
    files = {dialect.manifest: manifest, **files}
    check.compare(plan, files, dialect)
    return {**files, **build_contexts(plan, templates)}


def _tiers(templates: Mapping[str, str], folder: str) -> str:
    own = [path.removeprefix(f"{folder}/") for path in templates if path.startswith(f"{folder}/")]
    names = [path.removesuffix(".yaml.j2") for path in own]
    return "there is one for " + ", ".join(sorted(name for name in names if "/" not in name and name != "base"))


def _mounts(plan: DeploymentPlan, files: Mapping[str, str]) -> dict[str, object]:
    """Which configuration files each service mounts, and a digest of them: a changed one replaces the container."""
    mounts = {service.name: context.config_files(service) for service in plan.services}
    mounts["prometheus"] = tuple(name for name in context.METRICS if f"config/{name}" in files)
    digests = {name: _digest("".join(files[f"config/{path}"] for path in paths)) for name, paths in mounts.items()}
    contents = {path.removeprefix("config/"): _digest(text) for path, text in files.items()}
    return {"mounts": mounts, "digests": digests, "configs": list(contents), "contents": contents}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
