"""A plan on Docker Swarm: what is carried otherwise, what is lost, and where that which keeps data must stay.

plan ─▶ carried   the same plan as Swarm can run it: rendered, probed and compared by this one
     ─▶ losses    what that changes, and what no stack file can say
     ─▶ places    the node of every service with a volume, since Swarm's volumes do not move
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cfscale.core.losses import Loss
from cfscale.core.plan import DeploymentPlan, Service

TARGET = "swarm"
HERE = "here"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what Swarm does with a published port, whatever it is told
# one volume each, of the node that they run on
_KEEPERS = ("coordinator", "queue")
_OTHER_REGIONS = frozenset({"cross_region", "global"})


def carried(plan: DeploymentPlan) -> DeploymentPlan:
    """The plan with what Swarm makes of it; doing so twice changes nothing more."""
    return replace(plan, services=tuple(_carried(service) for service in plan.services))


def _carried(service: Service) -> Service:
    if service.publish is None:
        return service
    return replace(service, publish=f"{EVERYWHERE}:{first_port(service.publish)}")


def first_port(publish: str) -> int:
    """The port of ``host:port``, the first of ``host:first-last``."""
    return int(publish.rpartition(":")[2].partition("-")[0])


def keepers(plan: DeploymentPlan) -> tuple[str, ...]:
    """The services with a volume that must be found again: they stay on one node."""
    return tuple(service.name for service in plan.services if service.name in _KEEPERS)


def pin_label(plan: DeploymentPlan, service: str) -> str:
    """The label of the node where a service keeps its data; its value is ``here``."""
    return f"cfscale.{plan.name}.{service}"


def places(wanted: Sequence[str], nodes: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Label to node, for the labels that no node has yet: each goes where the fewest are.

    ``nodes`` holds, by node, the labels it has. Nothing that has a place is moved: its data would stay behind.
    """
    placed = set().union(*nodes.values()) if nodes else set()
    load = {node: len(labels.intersection(wanted)) for node, labels in nodes.items()}
    found: dict[str, str] = {}
    for label in wanted:
        if label in placed or not load:
            continue
        node = min(load, key=lambda name: (load[name], name))
        found[label] = node
        load[node] += 1
    return found


def fitting(plan: DeploymentPlan, counts: Mapping[str, int], nodes: int) -> dict[str, int]:
    """The counts with no more replicas than nodes for a service that takes a port of its node."""
    published = {service.name for service in plan.services if service.publish is not None}
    return {name: min(count, nodes) if name in published else count for name, count in counts.items()}


def losses(plan: DeploymentPlan) -> tuple[Loss, ...]:
    """Everything that differs from the plan as Compose carries it, in the order of the manifest."""
    found = [_loss((service.name,), *words) for service in plan.services for words in _port_losses(service)]
    everyone, built = _names(plan), tuple(service.name for service in plan.services if service.build)
    found += [_loss(everyone, *words) for words in _FOR_ALL]
    found += [_loss(built, *words) for words in _FOR_BUILT if built]
    found += [_loss(tuple(service.name for service in plan.services if _waits(service)), *_ORDER)]
    found += [_loss(keepers(plan), *_VOLUMES)]
    scaled = tuple(service.name for service in plan.services if service.scaled and service.routes)
    found += [_loss(scaled, *_VICTIMS)] if scaled else []
    if plan.settings.failover in _OTHER_REGIONS:
        found.append(_loss((), "failover", plan.settings.failover, *_REGIONS))
    return tuple(found)


def _waits(service: Service) -> bool:
    """Whether Compose starts it after others: all but the queue, whose further replicas wait for the first."""
    return service.name != "queue" or service.replicas > 1


def _names(plan: DeploymentPlan) -> tuple[str, ...]:
    return tuple(service.name for service in plan.services)


def _loss(services: tuple[str, ...], field: str, planned: str, carried_as: str, why: str) -> Loss:
    return Loss(TARGET, services, field, planned, carried_as, why)


def _port_losses(service: Service) -> list[tuple[str, str, str, str]]:
    if service.publish is None:
        return []
    port = first_port(service.publish)
    return [
        (
            "ports",
            service.publish,
            f"port {port} of every address of each node that runs one, at most one replica a node",
            "docker stack knows neither host addresses nor a range for replicas: close the port where it must not be open",
        )
    ]


_FOR_ALL = (
    ("security_opt", "no-new-privileges", "left out", "docker stack ignores it: set it for the whole engine"),
    ("restart", "unless-stopped", "restart_policy any", "Swarm replaces a task that ends, it does not restart it"),
    ("pull_policy", "missing or never", "left out", "each node asks the registry for the tag, else takes its own copy"),
)
_FOR_BUILT = (
    ("build", "built where it runs", "left out", "Swarm builds nothing: build and push before 'docker stack deploy'"),
)
_ORDER = (
    "depends_on",
    "after the queue is healthy",
    "all at once",
    "docker stack waits for nobody: what starts too early is started again",
)
_VOLUMES = (
    "volumes",
    "found wherever it runs",
    "local to the node with the label cfscale.NAME.SERVICE=here",
    "Swarm moves no volume: what keeps data stays where 'cfscale up' or you have put that label",
)
_VICTIMS = (
    "scaling",
    "the least busy replica goes, drained by the balancer",
    "Swarm chooses who goes",
    "it takes no names: a replica must finish what it has within stop_grace_period of SIGTERM",
)
_REGIONS = (
    "within the swarm",
    "managers must be near each other: run one deployment a region, or render for helm",
)
