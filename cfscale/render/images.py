"""The build contexts of the images that no registry holds."""

from collections.abc import Collection, Mapping

from cfscale.core.plan import DeploymentPlan
from cfscale.core.tier import pool_kind
from cfscale.errors import ActionError


def build_contexts(plan: DeploymentPlan, templates: Mapping[str, str], without: Collection[str] = ()) -> dict[str, str]:
    """The build context of every image that is ours, as it stands; raises ActionError where there is none."""
    found: dict[str, str] = {}
    for service in (service for service in plan.services if service.name not in without):
        prefix = f"images/{pool_kind(service.name)}/"
        files = {path: text for path, text in templates.items() if path.startswith(prefix)}
        if service.build and f"{prefix}Dockerfile" not in files:
            raise ActionError(f"templates/{prefix}Dockerfile is missing: reinstall cfscale")
        found.update(files if service.build else {})
    return found
