"""Plans as the catalogue gives them, one a tier, for what has to hold for every service that a tier has."""

from functools import cache

from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.workload import Profile

TIERS = ("single-user", "team", "department", "enterprise")
_LOADS = {
    "single-user": (3, 20, 40),
    "team": (10, 100, 100),
    "department": (40, 400, 800),
    "enterprise": (500, 5000, 9000),
}


@cache
def sized(tier: str) -> DeploymentPlan:
    """The plan of a load in the middle of this tier."""
    users, agents, tasks = _LOADS[tier]
    return size(Profile(name="acme", users=users, agents=agents, tasks=tasks), load_catalogue())


def altered(plan: DeploymentPlan, name: str, **values: object) -> DeploymentPlan:
    """The plan with one service changed."""
    services = (replace(one, **values) if one.name == name else one for one in plan.services)
    return replace(plan, services=tuple(services))
