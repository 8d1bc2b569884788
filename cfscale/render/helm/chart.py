"""The files of the chart."""

from collections.abc import Mapping

import cfscale
from cfscale.core.plan import DeploymentPlan
from cfscale.core.plan import Service as PlanService
from cfscale.core.tier import pool_kind
from cfscale.render.engine import Engine
from cfscale.render.helm import check
from cfscale.render.helm.document import overlay_text, schema_text, table, values_text
from cfscale.render.helm.fill import values_of
from cfscale.render.helm.images import name_of
from cfscale.render.helm.losses import losses
from cfscale.render.helm.values import Values
from cfscale.render.images import build_contexts

OPERATED = ("database",)
_FOLDER = "helm/"
_STATIC = f"{_FOLDER}templates/"


def render(plan: DeploymentPlan, templates: Mapping[str, str], presets: Mapping[str, DeploymentPlan]) -> dict[str, str]:
    """Text of every file by its relative path; ``presets`` are plans for the values files of the tiers, by tier.

    Raises InputError for a value that cannot be rendered, ActionError where a template is broken or the values differ
    from the plan.
    """
    values, engine = values_of(plan), Engine(templates)
    files = {
        "Chart.yaml": engine.render(f"{_FOLDER}Chart.yaml.j2", _about(plan, values)),
        "values.yaml": values_text(values, _heading(plan)),
        "values.schema.json": schema_text(),
        "README.md": engine.render(f"{_FOLDER}README.md.j2", _readme(plan, values)),
        ".helmignore": templates[f"{_FOLDER}helmignore"],
        **{
            f"templates/{path.removeprefix(_STATIC)}": text
            for path, text in templates.items()
            if path.startswith(_STATIC)
        },
        **{f"values-{tier}.yaml": _preset(preset, values) for tier, preset in presets.items()},
    }
    check.compare(plan, files["values.yaml"])
    return {**files, **build_contexts(plan, templates, without=OPERATED)}


def built(plan: DeploymentPlan) -> tuple[PlanService, ...]:
    """Services whose images an operator has to build and push; the database's operator brings its own."""
    return tuple(service for service in plan.services if service.build and service.name not in OPERATED)


def _heading(plan: DeploymentPlan) -> tuple[str, ...]:
    return (
        f"The plan of {plan.name}, tier {plan.tier}, rendered by cfscale: change the profile and render again, or lay",
        "values of your own over these. Everything that may be set stands here, explained where it comes first.",
    )


def _about(plan: DeploymentPlan, values: Values) -> dict[str, object]:
    coordinator = values.services["coordinator"].image
    return {
        "tier": plan.tier,
        "version": cfscale.__version__,
        "app_version": coordinator.tag or cfscale.__version__,
        "images": [(name, name_of(service.image)) for name, service in values.services.items()],
    }


def _readme(plan: DeploymentPlan, values: Values) -> dict[str, object]:
    rows = [{"key": path, "value": _cell(value), "meaning": _cell(meaning)} for path, value, meaning in table(values)]
    return {
        "name": plan.name,
        "tier": plan.tier,
        "builds": [{"name": pool_kind(item.name), "image": item.image} for item in built(plan)],
        "losses": [loss.line() for loss in losses(plan)] or ["nothing"],
        "rows": rows,
    }


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("`", "'")


def _preset(plan: DeploymentPlan, base: Values) -> str:
    """A tier's values, complete: services that it has not are switched off."""
    values = values_of(plan)
    absent = base.services.keys() - values.services.keys()
    heading = (
        f"The tier {plan.tier} at its top: {plan.users} users, {plan.admitted_agents} agents, {plan.tasks} tasks at once.",
        f"helm upgrade --install NAME . --values values-{plan.tier}.yaml",
    )
    off = "".join(f"  {name}: {{enabled: false}}\n" for name in base.services if name in absent)
    return overlay_text(values, heading).replace("\nservices:\n", f"\nservices:\n{off}", 1)
