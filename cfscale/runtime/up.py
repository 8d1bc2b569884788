"""Which replica counts ``up`` starts with: what the plan says, or what scaling has made of it since."""

from collections.abc import Iterable

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import UnavailableError
from cfscale.runtime.ports import Engine

_GONE = (ReplicaState.STOPPED, ReplicaState.DRAINING)


def counts_to_start(plan: DeploymentPlan, live: Iterable[Replica], *, reset: bool) -> dict[str, int]:
    """Replicas by service: the live count within its bounds, so that ``up`` undoes no scaling; ``reset`` forgets it."""
    running = [replica.service for replica in live if replica.state not in _GONE]
    return {service.name: _count(service, running.count(service.name), reset=reset) for service in plan.services}


def _count(service: Service, live: int, *, reset: bool) -> int:
    if reset or live == 0 or not service.scaled:
        return service.replicas
    return min(max(live, service.min_replicas), service.max_replicas)


def live_replicas(engine: Engine) -> tuple[Replica, ...]:
    """What runs already; nothing where the engine has not been started yet."""
    try:
        return engine.replicas()
    except UnavailableError:
        return ()
