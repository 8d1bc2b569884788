"""The configuration files of a plan: which there are, from which template, with which values.

A service that the tier does without has none. Passwords are in no file: components include or read those of secrets.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.units import MIB
from cfscale.render.proxy import balancer

Values = Mapping[str, object]


class Store(Struct, frozen=True):
    """The values of one Valkey server's configuration."""

    port: int
    memory_bytes: int
    connections: int
    writes_need: int = 0


def configs(plan: DeploymentPlan) -> dict[str, tuple[str, Values]]:
    """Path of each configuration file: its template and the values it prints."""
    found: dict[str, tuple[str, Values]] = {}
    for path, (service, values) in _FILES.items():
        if plan.find(service) is not None and _wanted(plan, path):
            found[f"config/{path}"] = (f"config/{path}.j2", {"tier": plan.tier, "name": plan.name, **values(plan)})
    return found


def _wanted(plan: DeploymentPlan, path: str) -> bool:
    """A queue of one needs nobody to tell it its role."""
    return path != "queue-start.sh" or plan.service("queue").replicas > 1


def _haproxy(plan: DeploymentPlan) -> Values:
    return {"balancer": balancer(plan)}


def _memory_of(service: Service) -> int:
    """A service without a memory limit keeps within its request."""
    return service.memory_limit_bytes or service.memory_request_bytes


def _queue(plan: DeploymentPlan) -> Values:
    service, limits = plan.service("queue"), plan.settings.limits
    memory = _memory_of(service) * limits.queue_memory_percent // 100
    return {"queue": Store(service.port, memory, limits.connections)}


def _queue_start(plan: DeploymentPlan) -> Values:
    queue, sentinel = plan.service("queue"), plan.find("sentinel")
    watchers = () if sentinel is None else sentinel.names
    return {
        "primary": queue.names[0],
        "members": queue.names,
        "queue_port": queue.port,
        "watchers": watchers,
        "watcher_port": _port(sentinel),
    }


def _port(service: Service | None) -> int:
    return 0 if service is None else service.port


def _sentinel(plan: DeploymentPlan) -> Values:
    queue, sentinel = plan.service("queue"), plan.service("sentinel")
    return {
        "members": queue.names,
        "queue_port": queue.port,
        "watcher_port": sentinel.port,
        "quorum": sentinel.replicas // 2 + 1,
    }


def _memory(plan: DeploymentPlan) -> Values:
    service, settings = plan.service("memory"), plan.settings
    memory = _memory_of(service) * settings.limits.queue_memory_percent // 100
    backups = 0 if settings.memory is None else settings.memory.backups
    # with two backups one may be lost and the other still holds what is acknowledged
    store = Store(service.port, memory, settings.limits.connections, writes_need=1 if backups > 1 else 0)
    return {"memory": store, "nodes": service.names, "backups": backups}


def _cache(plan: DeploymentPlan) -> Values:
    service, settings = plan.service("cache"), plan.settings
    return {"cache": Store(service.port, settings.cache_bytes, settings.limits.connections)}


def _database(plan: DeploymentPlan) -> Values:
    service, settings, etcd = plan.service("database"), plan.settings, plan.service("etcd")
    database = settings.database
    buffers = _memory_of(service) * settings.limits.database_buffers_percent // 100 // MIB
    return {
        "members": service.replicas,
        "port": service.port,
        "connections": 0 if database is None else database.max_connections,
        "reserved": 0 if database is None else database.reserved,
        "buffers_mib": max(1, buffers),
        "etcd": tuple(f"{name}:{etcd.port}" for name in etcd.names),
        "l3_factor": settings.cache_l3_ttl_factor,
    }


def _pooler(plan: DeploymentPlan) -> Values:
    service, settings = plan.service("pooler"), plan.settings
    balanced = plan.find("loadbalancer") is not None
    direct = (plan.service("database").names[0], plan.service("database").port)
    gates = settings.gates
    return {
        "port": service.port,
        "database": settings.database,
        "clients": settings.limits.connections,
        "write": ("loadbalancer", gates.write) if balanced else direct,
        "read": ("loadbalancer", gates.read) if balanced else direct,
    }


def _metrics(plan: DeploymentPlan) -> Values:
    return {"monitoring": plan.settings.monitoring, "has": {service.name: service for service in plan.services}}


_FILES: dict[str, tuple[str, Callable[[DeploymentPlan], Values]]] = {
    "haproxy.cfg": ("loadbalancer", _haproxy),
    "valkey.conf": ("queue", _queue),
    "queue-start.sh": ("queue", _queue_start),
    "sentinel.conf": ("sentinel", _sentinel),
    "sentinel-start.sh": ("sentinel", _sentinel),
    "memory.conf": ("memory", _memory),
    "memory-form.sh": ("memory", _memory),
    "cache.conf": ("cache", _cache),
    "patroni.yml": ("database", _database),
    "database.sql": ("database", _database),
    "pgbouncer.ini": ("pooler", _pooler),
    # there are metrics to collect of the balancer and of what is behind it
    "prometheus.yml": ("loadbalancer", _metrics),
    "alerts.yml": ("loadbalancer", _metrics),
}
