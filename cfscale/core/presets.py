"""Each tier at its top: the largest plan that it holds, for those who want a size and have no profile."""

from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile


def presets(catalogue: Catalogue, name: str) -> dict[str, DeploymentPlan]:
    """A plan a tier, for as many users, agents and tasks as it holds, in the order of the tiers."""
    return {
        tier.name: size(
            Profile(
                name=name, users=tier.top("users"), agents=tier.top("agents"), tasks=tier.top("tasks"), tier=tier.name
            ),
            catalogue,
        )
        for tier in catalogue.tiers
    }
