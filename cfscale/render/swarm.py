"""A plan as a Docker Swarm stack: the files of Compose with a manifest in Swarm's own dialect.

A stack file is no Compose file: ``docker stack`` rejects or ignores much of what Compose takes. Configs and secrets are
objects that never change, so their names carry a checksum of what is in them.
"""

from collections.abc import Mapping

from cfscale.core.plan import DeploymentPlan
from cfscale.core.swarm import carried, require_names
from cfscale.render import compose
from cfscale.render.dialect import SWARM


def render(plan: DeploymentPlan, templates: Mapping[str, str]) -> dict[str, str]:
    """Text of every file by its relative path; raises as ``compose.render`` does."""
    require_names(plan)
    return compose.render(carried(plan), templates, SWARM)
