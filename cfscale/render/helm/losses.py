"""What of a plan a chart does not carry, or carries otherwise: the table that ``render`` prints and the README holds."""

from collections.abc import Iterator

from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.render.helm.fill import values_of


def losses(plan: DeploymentPlan) -> tuple[str, ...]:
    """One line each; empty where everything is carried as planned."""
    found = [line for service in plan.services for line in _service(plan, service)]
    return (*found, *_scaling(plan))


def _service(plan: DeploymentPlan, service: Service) -> Iterator[str]:
    name, health = service.name, service.health
    if service.cpu_limit_millicores is not None:
        yield f"services.{name}.cpu_limit: not enforced unless cpuLimits.enabled; limits throttle even where a machine is idle"
    if service.memory_limit_bytes is not None and service.memory_request_bytes < service.memory_limit_bytes:
        yield f"services.{name}.memory_request: all of the limit is reserved, since machines are sized by it"
    if service.publish is not None:
        yield f"services.{name}.publish: {service.publish} is an address of a single host; see exposure in values.yaml"
    if health.kind in {HealthKind.HTTP, HealthKind.JSONRPC} and (health.status != 200 or health.json):
        yield f"services.{name}.health: any status from 200 to 399 counts as healthy; cfscale probe asks for the exact one"
    if any(value != int(value) for value in (health.interval_seconds, health.timeout_seconds)):
        yield f"services.{name}.health: interval and timeout are rounded up to whole seconds"
    if service.stop_grace_seconds != int(service.stop_grace_seconds):
        yield f"services.{name}.stop_grace: rounded up to whole seconds"
    if name == "database":
        yield "services.database.image: the image of the operator CloudNativePG is used, which also promotes and repairs"
    if name == "pooler":
        yield "services.pooler.image: the operator CloudNativePG runs its own PgBouncer, on port 5432"


def _scaling(plan: DeploymentPlan) -> Iterator[str]:
    scaled = [service.name for service in plan.services if service.scaled]
    engine = values_of(plan).autoscaling.engine
    if scaled and engine == "hpa":
        yield f"scaling of {', '.join(scaled)}: by the cluster's HPA; it has one tolerance for CPU and memory, so the wider dead band holds for both"
        yield "scaling below Kubernetes 1.35: the HPA has no tolerance of its own there; autoscaling.engine=keda keeps the dead band"
    if scaled and engine == "keda":
        yield f"scaling of {', '.join(scaled)}: by KEDA, from series that Prometheus records"
    if plan.scaling.policies != ("resource",):
        yield f"scaling.policies {', '.join(plan.scaling.policies)}: the cluster scales by CPU and memory alone"
