"""Who asks whom: the dependency graph of a cell, from which network policies and start orders follow."""

from collections.abc import Iterator

from cfscale.core.plan import DeploymentPlan, Service

# what the platform's own processes keep their state in
STATE = ("queue", "memory", "cache")
# copies of these talk to each other
_REPLICATED = ("queue", "memory", "database")


def platform(service: Service) -> bool:
    """Whether a service is the platform's own, which knows the queue and may need secrets of the operator."""
    return service.name in ("coordinator", "agents") or service.name.startswith("agents-")


def edges(plan: DeploymentPlan) -> dict[str, tuple[str, ...]]:
    """From each service to those that it opens connections to; every service of the plan is a key, in its order."""
    return {service.name: tuple(_asked(plan, service)) for service in plan.services}


def _asked(plan: DeploymentPlan, service: Service) -> Iterator[str]:
    names = [other.name for other in plan.services]
    if service.name == "loadbalancer":
        yield from (other.name for other in plan.services if other.routes)
    if platform(service):
        yield from (name for name in ("coordinator", *STATE) if name in names and name != service.name)
        # the pools stand between the platform and the database
        yield from ["pooler"] if "pooler" in names else ["database"] if "database" in names else []
    if service.name == "pooler" and "database" in names:
        yield "database"
    if service.name in _REPLICATED and service.replicas > 1:
        yield service.name
