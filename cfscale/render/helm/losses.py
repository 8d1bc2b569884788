"""What of a plan a chart does not carry, or carries otherwise: the table that ``render`` prints and the README holds."""

from collections.abc import Iterator

from cfscale.core.graph import platform
from cfscale.core.losses import Loss
from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.render.helm import promised
from cfscale.render.helm.fill import STARTUP_PERIOD_SECONDS, carried, values_of

_OK = 200
_OPERATED = ("database", "pooler")


def losses(plan: DeploymentPlan) -> tuple[Loss, ...]:
    """Empty where everything is carried as planned."""
    return (*_sizes(plan), *_health(plan), *_operators(plan), *_scaling(plan), *promised.losses(plan))


def _loss(services: tuple[str, ...], field: str, planned: str, carried: str, why: str) -> Iterator[Loss]:
    if services:
        yield Loss("helm", services, field, planned, carried, why)


def _sizes(plan: DeploymentPlan) -> Iterator[Loss]:
    services = tuple(service for service in plan.services if carried(service))
    capped = tuple(s.name for s in services if s.cpu_limit_millicores is not None)
    raised = tuple(s.name for s in services if s.memory_request_bytes < (s.memory_limit_bytes or 0))
    published = tuple(s.name for s in services if s.publish is not None)
    yield from _loss(
        capped,
        "cpu_limit",
        "enforced",
        "only with cpuLimits.enabled",
        "a limit throttles even where the machine is idle",
    )
    yield from _loss(
        raised, "memory_request", "part of the limit", "all of the limit is reserved", "machines are sized by limits"
    )
    yield from _loss(
        published,
        "publish",
        "a port of the host",
        "a Service inside the cluster",
        "the host's address means nothing there: see exposure in values.yaml",
    )


def _health(plan: DeploymentPlan) -> Iterator[Loss]:
    services = tuple(service for service in plan.services if carried(service))
    exact = tuple(s.name for s in services if _asks_more(s))
    parts = tuple(s.name for s in services if _has_parts(s))
    operated = tuple(s.name for s in services if s.name in _OPERATED)
    yield from _loss(operated, "health", "the plan's question", "the operator's own", "it promotes by what it hears")
    yield from _loss(
        exact,
        "health.status, health.json",
        "an exact status or body",
        "any status from 200 to 399",
        "kubelets ask no more; cfscale probe does",
    )
    yield from _loss(
        parts,
        "health, stop_grace",
        "to the millisecond",
        "rounded up",
        "Kubernetes knows whole seconds, and a start is asked about every other one",
    )


def _asks_more(service: Service) -> bool:
    health = service.health
    return health.kind in {HealthKind.HTTP, HealthKind.JSONRPC} and (health.status != _OK or bool(health.json))


def _has_parts(service: Service) -> bool:
    health = service.health
    whole = (health.interval_seconds, health.timeout_seconds, service.stop_grace_seconds)
    return any(value != int(value) for value in whole) or health.start_period_seconds % STARTUP_PERIOD_SECONDS != 0


def _operators(plan: DeploymentPlan) -> Iterator[Loss]:
    names = {service.name for service in plan.services}
    own = tuple(service.name for service in plan.services if not carried(service))
    yield from _loss(
        own,
        "replicas",
        "their own services",
        "not deployed",
        "the cluster starts the queue's primary again on its volume, and CloudNativePG knows the database's",
    )
    if "cache" in names and plan.service("cache").replicas > 1:
        yield from _loss(
            ("cache",),
            "replicas",
            str(plan.service("cache").replicas),
            "1",
            "the cluster starts it again, and nothing of a cache has to survive",
        )
    if "database" in names:
        yield from _loss(
            ("database",), "image", "the plan's", "CloudNativePG's", "the operator promotes and repairs its own"
        )
    if {"database", "pooler"} <= names:
        several = plan.service("database").replicas > 1
        yield from _loss(
            tuple(service.name for service in plan.services if platform(service)),
            "reads of the database",
            "by the name app_ro",
            "by the host NAME-pooler-read" if several else "where writes go",
            "the operator has a pool for each" if several else "there is one instance, and one pool",
        )
    if "pooler" in names:
        yield from _loss(
            ("pooler",), "image, port", "the plan's", "CloudNativePG's, port 5432", "the operator runs the pools"
        )


def _scaling(plan: DeploymentPlan) -> Iterator[Loss]:
    scaled = tuple(service.name for service in plan.services if service.scaled)
    engine = values_of(plan).autoscaling.engine
    yield from _loss(
        scaled,
        "replicas",
        "those of the plan at once",
        "the autoscaler's, from minReplicas up",
        "a count that two set goes to and fro",
    )
    if engine == "hpa":
        yield from _loss(
            scaled,
            "scaling",
            "a dead band each for CPU and memory",
            "the wider one for both, from Kubernetes 1.35 on; a tolerance of a tenth below",
            "an HPA has one tolerance for all metrics; autoscaling.engine=keda keeps both",
        )
    else:
        yield from _loss(scaled, "scaling", "by cfscale", "by KEDA", "from series that Prometheus records")
    others = sorted({str(policy.kind) for policy in plan.scaling.policies} - {"resource"})
    if others:
        yield from _loss(
            scaled,
            "scaling.policies",
            ", ".join(others),
            "CPU and memory, and the forecast where the tier predicts",
            "the cluster's engines know no others",
        )
