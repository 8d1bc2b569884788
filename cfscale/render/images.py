"""The build contexts of the images that no registry holds."""

from collections.abc import Mapping

from cfscale.core.plan import DeploymentPlan
from cfscale.errors import ActionError


def build_contexts(plan: DeploymentPlan, templates: Mapping[str, str]) -> dict[str, str]:
    """The build context of every image that is ours, as it stands; raises ActionError where there is none."""
    found: dict[str, str] = {}
    for service in plan.services:
        prefix = f"images/{service.name}/"
        files = {path: text for path, text in templates.items() if path.startswith(prefix)}
        if service.build and f"{prefix}Dockerfile" not in files:
            raise ActionError(f"templates/{prefix}Dockerfile is missing: reinstall cfscale")
        found.update(files if service.build else {})
    return found
