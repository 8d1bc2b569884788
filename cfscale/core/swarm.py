"""A plan on Docker Swarm: what is carried otherwise, what is lost, and where that which keeps data must stay.

plan ─▶ carried   the same plan as Swarm can run it: rendered, probed and compared by this one
     ─▶ losses    what that changes, and what no stack file can say
     ─▶ places    the node of every service with a volume, since Swarm's volumes do not move
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

from msgspec.structs import replace

from cfscale.core import composeloss
from cfscale.core.losses import Loss
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.errors import InputError

TARGET = "swarm"
HERE = "here"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what Swarm does with a published port, whatever it is told
# Swarm's DNS knows healthy tasks only, and these are healthy once they have found each other
UNCHECKED = frozenset({"etcd"})
_OBJECT_NAME_MOST, _OBJECT_SUFFIX_MOST = 64, 43  # _database_replication_password_ and a checksum
_SERVICE_NAME_MOST = 63
# what a host with Compose loses, and a swarm does not, or loses in its own words
_WEIGHTS = (
    "weights by free resources",
    "promised by the tier",
    "kind agent-spawn goes round robin",
    "no scaler tells a swarm's balancers anything: it takes no names of victims either; on Compose 'cfscale scale' sets them",
)
# told otherwise here, or done
_SWARM_DOES = frozenset({
    "machines of their own", "failover across regions", "votes of etcd and Sentinel", "an update that is rolled back", _WEIGHTS[0],
})  # fmt: skip
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
    """The stack's services with a volume that must be found again: each stays on one node."""
    found: list[str] = []
    for service in plan.services:
        if service.name == "coordinator" or (service.members and service.name != "cache"):
            found += service.names
    return tuple(found)


def object_prefix(plan: DeploymentPlan) -> str:
    """What the names of configs and secrets begin with: the deployment's name, or what tells it from others and fits."""
    if len(plan.name) <= _OBJECT_NAME_MOST - _OBJECT_SUFFIX_MOST:
        return plan.name
    return f"{plan.name[:11].rstrip('-')}-{crc32(plan.name.encode()):08x}"


def require_names(plan: DeploymentPlan) -> None:
    """Raise InputError for a deployment whose name leaves no room for those of its services."""
    longest = max((name for service in plan.services for name in service.names), key=len)
    if len(plan.name) + 1 + len(longest) > _SERVICE_NAME_MOST:
        most = _SERVICE_NAME_MOST - 1 - len(longest)
        raise InputError(f"name '{plan.name}': Swarm takes at most {most} characters, with {longest} behind it")


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
    bound = set(keepers(plan))
    found += [_loss(tuple(s.name for s in plan.services if bound & set(s.names)), *_VOLUMES)]
    unchecked = tuple(name for name in everyone if name in UNCHECKED)
    found += [_loss(unchecked, *_CHECKS)] if unchecked else []
    scaled = tuple(service.name for service in plan.services if service.scaled and service.routes)
    found += [_loss(scaled, *_VICTIMS)] if scaled else []
    if plan.settings.failover in _OTHER_REGIONS:
        found.append(_loss((), "failover", plan.settings.failover, *_REGIONS))
    if plan.find("loadbalancer") is not None:
        found += [_loss((), *_MONITORING), _loss((), *_WEIGHTS)]
    alike = (loss for loss in composeloss.losses(plan) if loss.field not in _SWARM_DOES)
    return (*found, *(Loss(TARGET, loss.services, loss.field, loss.planned, loss.carried, loss.why) for loss in alike))


def _waits(service: Service) -> bool:
    """Whether Compose starts it after others: the queue's further members wait for the first, stores for nobody."""
    alone = {"memory", "cache", "sentinel", "etcd"}
    return service.name not in alone and (service.name != "queue" or service.replicas > 1)


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
_CHECKS = (
    "healthcheck",
    "asked by the engine",
    "left out",
    "Swarm's DNS gives healthy tasks only, and these must find each other before they can be healthy",
)
_VICTIMS = (
    "scaling",
    "the least busy replica goes, drained by the balancer",
    "Swarm chooses who goes",
    "it takes no names: a replica must finish what it has within stop_grace_period of SIGTERM",
)
_MONITORING = (
    "profiles",
    "Prometheus with 'docker compose --profile monitoring'",
    "left out",
    "docker stack has no profiles: let a Prometheus of your own scrape the balancer, with config/alerts.yml of the Compose target",
)
_REGIONS = (
    "within the swarm",
    "managers must be near each other: run one deployment a region, or render for helm",
)
