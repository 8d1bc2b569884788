"""From the plan to the values of the chart: every decision and all arithmetic, so that templates have little.

plan ─▶ services (size, probes, routes) ─▶ scaling, availability, monitoring, guards ─▶ Values
"""

from math import ceil

from cfscale.core.graph import edges, platform
from cfscale.core.plan import Damping as PlanDamping
from cfscale.core.plan import DeploymentPlan
from cfscale.core.plan import Service as PlanService
from cfscale.core.promises import Law, Promises
from cfscale.core.units import format_cpu
from cfscale.render import context, proxy
from cfscale.render.helm import database, guard, operate
from cfscale.render.helm.exposure import Sso
from cfscale.render.helm.images import image_of, run_as
from cfscale.render.helm.values import (
    Balancing,
    Caps,
    Health,
    Metrics,
    Plan,
    Requests,
    Resources,
    Routing,
    Service,
    Storage,
    Valkey,
    Values,
)
from cfscale.render.platform import endpoints

# what a start may take is asked this often, whatever the service
STARTUP_PERIOD_SECONDS = 2
_LIVENESS_FACTOR = 2
_BALANCER_METRICS = 8404
_DATABASE_METRICS = 9187
# where the operator's pools listen
_DATABASE_PORT = 5432
CLUSTERS_OWN = ("sentinel", "etcd")
_DAY = 86_400
_YEAR_DAYS = 365
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
_HPA_LONGEST_PERIOD = 1800
_HPA_LONGEST_WINDOW = 3600
_NONE = Promises(predictive=Law(0.0, 0.0, 1, 0.0))


def values_of(plan: DeploymentPlan) -> Values:
    """The chart's values; raises InputError for a service that a cluster cannot run."""
    promises = plan.promises or _NONE
    return Values(
        plan=_about(plan),
        services={service.name: _service(plan, service) for service in plan.services if carried(service)},
        balancing=_balancing(plan, promises),
        valkey=_valkey(plan),
        database=_database(plan, promises),
        autoscaling=_autoscaling(plan, promises),
        availability=_availability(plan),
        monitoring=_monitoring(plan, promises),
        network_policy=_network(plan),
        security=guard.Security(require_encryption=bool(promises.encryption)),
        rbac=guard.Rbac(create=promises.authorization == "rbac"),
        sso=Sso(required=promises.authentication == "sso_integration"),
    )


def carried(service: PlanService) -> bool:
    """Whether the chart runs a service: who is the primary of queue and database the cluster itself knows."""
    return service.name not in CLUSTERS_OWN


def copies(service: PlanService) -> tuple[int, int, int]:
    """(replicas, min, max) in a cluster: a cache that is lost is started again, and nothing of it has to survive."""
    if service.name == "cache":
        return 1, 1, 1
    return service.replicas, service.min_replicas, service.max_replicas


def _about(plan: DeploymentPlan) -> Plan:
    return Plan(
        name=plan.name,
        tier=plan.tier,
        environment=plan.environment,
        cells=plan.cells,
        users=plan.users,
        agents=plan.admitted_agents,
        tasks=plan.tasks,
        nodes=plan.nodes.count,
        node_cpu=format_cpu(plan.nodes.cpu_millicores),
        node_memory=quantity(plan.nodes.memory_bytes),
    )


def quantity(amount: int) -> str:
    """Bytes as Kubernetes writes them, in the largest binary unit that is exact."""
    for unit, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def cpu(millicores: int) -> str:
    """Millicores as Kubernetes writes them."""
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def _service(plan: DeploymentPlan, service: PlanService) -> Service:
    replicas, least, most = copies(service)
    return Service(
        image=image_of(service),
        replicas=replicas,
        min_replicas=least,
        max_replicas=most,
        resources=_resources(service),
        port=_DATABASE_PORT if service.name == "pooler" else service.port,
        health=_health(service),
        args=list(service.command),
        env=_environment(plan, service),
        platform=platform(service),
        routing=Routing(
            prefixes=list(service.routes),
            one_writer=service.one_writer,
            sticky_header=service.sticky_header or "",
            connections=proxy.bulkhead(plan, service) if service.routes else 0,
        ),
        storage=_storage(service),
        metrics=_metrics(service),
        run_as_user=run_as(),
        stop_grace_seconds=ceil(service.stop_grace_seconds),
    )


def _resources(service: PlanService) -> Resources:
    """Machines are sized by memory limits, so all of a limit is reserved: what is overcommitted gets killed."""
    memory = service.memory_limit_bytes or service.memory_request_bytes
    limit, cores = service.memory_limit_bytes, service.cpu_limit_millicores
    return Resources(
        requests=Requests(cpu=cpu(service.cpu_request_millicores), memory=quantity(memory)),
        limits=Caps(cpu="" if cores is None else cpu(cores), memory="" if limit is None else quantity(limit)),
    )


def _health(service: PlanService) -> Health:
    """Kubernetes asks in whole seconds."""
    health = service.health
    return Health(
        kind=health.kind.value,
        path=health.path,
        period_seconds=max(1, ceil(health.interval_seconds)),
        timeout_seconds=max(1, ceil(health.timeout_seconds)),
        rise=health.rise,
        fall=health.fall,
        liveness_failures=_LIVENESS_FACTOR * health.fall,
        startup_failures=ceil(health.start_period_seconds / STARTUP_PERIOD_SECONDS) + health.fall,
    )


def _environment(plan: DeploymentPlan, service: PlanService) -> dict[str, str]:
    """The variables that do not depend on the names in a cluster; those that do are the templates'."""
    located = {"PORT", *endpoints(plan)}
    given = dict(context.environment(plan, service))
    return {name: value for name, value in given.items() if name not in located or name in service.env}


def _storage(service: PlanService) -> Storage:
    if not service.storage_bytes:
        return Storage()
    # replicas of a Deployment see one and the same directory; their shares of it add up
    shared = platform(service)
    size = service.storage_bytes * (service.replicas if shared else 1)
    many = shared and service.replicas > 1
    return Storage(size=whole(size), access_mode="ReadWriteMany" if many else "ReadWriteOnce")


def whole(size: int) -> str:
    """A volume's size, rounded up to whole MiB."""
    return quantity(-(-size // 2**20) * 2**20)


def _metrics(service: PlanService) -> Metrics:
    ports = {"loadbalancer": _BALANCER_METRICS, "database": _DATABASE_METRICS}
    return Metrics(port=ports.get(service.name, 0))


def _balancing(plan: DeploymentPlan, promises: Promises) -> Balancing:
    balancer = plan.find("loadbalancer")
    cores = 0 if balancer is None else balancer.cpu_limit_millicores or balancer.cpu_request_millicores
    return Balancing(
        algorithm=proxy.algorithm(plan),  # type: ignore[arg-type]  # one of the words of its table
        log_level=proxy.log_level(plan),  # type: ignore[arg-type]  # the same
        threads=max(1, -(-cores // 1000)),
        connections=plan.settings.limits.connections,
        compress_from_bytes=plan.settings.compress_from_bytes,
        session_seconds=plan.settings.session_timeout_seconds,
        audit=promises.audit_logging is not None,
    )


def _valkey(plan: DeploymentPlan) -> Valkey:
    limits, memory = plan.settings.limits, plan.settings.memory
    return Valkey(
        memory_percent=limits.queue_memory_percent,
        connections=limits.connections,
        cluster_replicas=0 if memory is None else memory.backups,
        cache_bytes=plan.settings.cache_bytes,
    )


def _database(plan: DeploymentPlan, promises: Promises) -> database.Database:
    pools = plan.settings.database
    replicas = 0 if (found := plan.find("database")) is None else found.replicas
    return database.Database(
        max_connections=0 if pools is None else pools.max_connections,
        synchronous=1 if replicas > 1 else 0,
        audit=promises.audit_logging is not None,
        read_pool=replicas > 1 and plan.find("pooler") is not None,
        pool=database.Pool(
            min_size=0 if pools is None else pools.pool_min, max_size=1 if pools is None else pools.pool_max
        ),
        backup=database.Backup(
            schedule=schedule(promises.backup_every_seconds), retention=retention(promises.backup_kept_seconds)
        ),
    )


def schedule(seconds: int | None) -> str:
    """A cron line of six fields, seconds first; what does not divide a day is rounded down to what does."""
    if not seconds:
        return ""
    hours = max(1, seconds // 3600)
    every = next(step for step in (24, 12, 8, 6, 4, 3, 2, 1) if step <= hours)
    return {24: "0 0 0 * * *", 1: "0 0 * * * *"}.get(every, f"0 0 */{every} * * *")


def retention(seconds: int | None) -> str:
    """Days, the only unit that the operator and a calendar agree on; leap days are added, so that a year is a year."""
    if not seconds:
        return ""
    days = ceil(seconds / _DAY)
    return f"{days + ceil(days // _YEAR_DAYS / 4)}d"


def _autoscaling(plan: DeploymentPlan, promises: Promises) -> operate.Autoscaling:
    scaling, law = plan.scaling, promises.predictive
    predictive = promises.auto_scaling == "predictive"
    down = _damping(scaling.scale_down)
    if predictive:
        # the law's own words: halve what was below its lower threshold for so long
        percent, seconds = round(law.scale_down_factor * 100), min(law.after_seconds, _HPA_LONGEST_PERIOD)
        down = operate.Damping(stabilization_window_seconds=seconds, period_seconds=seconds, percent=percent)
    return operate.Autoscaling(
        engine="keda" if predictive else "hpa",
        cpu=operate.DeadBand(scale_up=scaling.cpu.scale_up_ratio, scale_down=scaling.cpu.scale_down_ratio),
        memory=operate.DeadBand(scale_up=scaling.memory.scale_up_ratio, scale_down=scaling.memory.scale_down_ratio),
        tolerance=scaling.tolerance_ratio,
        scale_up=_damping(scaling.scale_up),
        scale_down=down,
        predictive=predictive,
        forecast=operate.DeadBand(scale_up=law.scale_up_ratio, scale_down=law.scale_down_ratio),
        forecast_seconds=law.after_seconds,
        polling_seconds=max(1, ceil(scaling.interval_seconds)),
    )


def _damping(damping: PlanDamping) -> operate.Damping:
    return operate.Damping(
        stabilization_window_seconds=min(ceil(damping.stabilization_window_seconds), _HPA_LONGEST_WINDOW),
        period_seconds=min(max(1, ceil(damping.cooldown_seconds)), _HPA_LONGEST_PERIOD),
        percent=damping.max_percent,
        pods=damping.max_replicas or 0,
    )


def _availability(plan: DeploymentPlan) -> operate.Availability:
    failover = plan.settings.failover
    several = plan.nodes.count > 1 and failover is not None
    return operate.Availability(
        hosts=operate.Spread(required=False),
        regions=several and failover in ("cross_region", "global"),
    )


def _monitoring(plan: DeploymentPlan, promises: Promises) -> operate.Monitoring:
    return operate.Monitoring(
        service_monitor=operate.Monitor(interval_seconds=plan.settings.monitoring.interval_seconds),
        rules=operate.Rules(
            runbook_url="https://github.com/cfscale/cfscale/blob/main/docs/kubernetes.md",
            disk_ratio=plan.scaling.disk.scale_up_ratio,
            critical_ratio=plan.scaling.critical_ratio,
            backup_seconds=2 * (promises.backup_every_seconds or 0),
        ),
        dashboards=promises.dashboards is not None,
        prometheus=operate.PrometheusServer(retention_seconds=plan.settings.metrics_retention_seconds),
    )


def _network(plan: DeploymentPlan) -> guard.NetworkPolicy:
    return guard.NetworkPolicy(
        edges=edges_of(plan),
        internet=[service.name for service in plan.services if platform(service)],
        private_ranges=_PRIVATE,
    )


def edges_of(plan: DeploymentPlan) -> dict[str, list[str]]:
    """The dependency graph of what the chart runs."""
    kept = {service.name for service in plan.services if carried(service)}
    graph = {name: [target for target in targets if target in kept] for name, targets in edges(plan).items()}
    return {name: targets for name, targets in graph.items() if name in kept}
