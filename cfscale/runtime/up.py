"""What ``up`` starts with and waits for: counts by the plan or as scaling has made them, then somebody behind every route."""

from collections.abc import Callable, Iterable, Sequence

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import NotRunningError, UnavailableError
from cfscale.runtime.act import Clock
from cfscale.runtime.ports import Engine

_LOOK_SECONDS = 0.25
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
    """What runs already; nothing where the engine says that nobody runs it.

    Raises UnavailableError where that cannot be known: to start what is planned would undo what scaling has made of it.
    """
    try:
        return engine.replicas()
    except NotRunningError:
        return ()


def until_taken_in(
    plan: DeploymentPlan, idle: Callable[[Sequence[str]], tuple[str, ...]], clock: Clock, *, seconds: float
) -> tuple[str, ...]:
    """Wait until each balancer has a replica behind every route; what has none when the time is over, in its words.

    ``idle`` gives the backends without one, of the services it is asked about: a balancer answers its own check before
    it has found and checked those behind it, and until then it answers everybody else with 503. Raises UnavailableError
    where a balancer still does not answer when the time is over.
    """
    routed = [service.name for service in plan.services if service.routes and service.replicas]
    deadline = clock.monotonic() + seconds

    def over() -> bool:
        return clock.monotonic() >= deadline or clock.wait(_LOOK_SECONDS)

    while True:
        try:
            if not (found := idle(routed)) or over():
                return found
        except UnavailableError:
            if over():
                raise
