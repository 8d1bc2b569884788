"""From the plan to what the compose templates print: every decision and all arithmetic, so that templates have none.

    plan ─▶ project   compose.yaml, one container each compose service
         ─▶ balancer  config/haproxy.cfg
         ─▶ queue     config/valkey.conf

Where a plan has several queue replicas the first is the primary and the others, a compose service of their own,
follow it. A value that Compose or a component cannot carry is an InputError naming the service.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.core.swarm import HERE, keepers, pin_label
from cfscale.core.units import MIB, format_cpu, format_duration, format_size
from cfscale.errors import InputError
from cfscale.render.families import START_ALLOWANCE_SECONDS, family_of, health_command

QUEUE_CONFIG = "/etc/cfscale/valkey.conf"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ALGORITHMS = {
    "round_robin": "roundrobin",
    "weighted_least_connections": "leastconn",
    "intelligent_routing": "leastconn",
}
_LOG_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "err"}
# the platform's own services: they know the queue, and may need secrets of the operator
OURS = frozenset({"coordinator", "agents"})


@dataclass(frozen=True, slots=True)
class Port:
    """A port on the host, or a range of them with one for each replica."""

    host: str
    published: str
    target: int

    @property
    def first(self) -> int:
        """The port, or the first of the range, as a number."""
        return int(self.published.partition("-")[0])


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Docker's health check of one container."""

    test: tuple[str, ...]
    interval: str
    timeout: str
    retries: int
    start_period: str


@dataclass(frozen=True, slots=True)
class Container:
    """One compose service. None and empty mean: this key is not printed."""

    service: str
    image: str
    pull_policy: str
    replicas: int
    cpus: str | None
    memory: str | None
    reserved_cpus: str
    reserved_memory: str
    stop_grace: str
    update: str
    processes: int
    build: str | None = None
    user: str | None = None
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None
    health: HealthCheck | None = None
    port: Port | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """One scaled service as the balancer sees it: ``host`` is what DNS gives all replicas for.

    ``check_path`` None asks for a connection only.
    """

    name: str
    host: str
    slots: int
    port: int
    algorithm: str
    check_path: str | None
    check_status: int
    check_timeout: str
    interval: str
    fast_interval: str
    fall: int
    rise: int
    one_writer: bool
    sticky_header: str | None
    sticky_for: str


@dataclass(frozen=True, slots=True)
class Balancer:
    """The values of ``config/haproxy.cfg``; routes go from the longest prefix to the shortest."""

    port: int
    health_path: str
    log_level: str
    threads: int
    connections: int
    hard_stop: str
    routes: tuple[tuple[str, str], ...]
    default: str | None
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """The values of ``config/valkey.conf``."""

    port: int
    memory_bytes: int
    connections: int


def project(plan: DeploymentPlan) -> dict[str, object]:
    """The names that the templates of a manifest use; raises InputError for a value that cannot be carried."""
    found = _containers(plan)
    return {
        "name": plan.name,
        "tier": plan.tier,
        "cells": plan.cells,
        "containers": found,
        "pins": {name: f"node.labels.{pin_label(plan, name)} == {HERE}" for name in keepers(plan)},
        # a queue without a check can never be healthy
        "queue_ready": "service_healthy" if found["queue"].health else "service_started",
    }


def _containers(plan: DeploymentPlan) -> dict[str, Container]:
    found = {service.name: _container(plan, service) for service in plan.services}
    queue = plan.service("queue")
    if queue.replicas > 1:
        follow = (*_queue_command(queue), "--replicaof", "queue", str(queue.port))
        found["queue-replica"] = _container(plan, queue, replicas=queue.replicas - 1, command=follow)
    return found


def _container(
    plan: DeploymentPlan, service: Service, *, replicas: int | None = None, command: tuple[str, ...] | None = None
) -> Container:
    is_queue = service.name == "queue"
    return Container(
        service=service.name,
        image=service.image,
        # an image that is ours is built here: the same name in a registry would be somebody else's
        pull_policy="never" if service.build else "missing",
        replicas=replicas or (1 if is_queue else service.replicas),
        cpus=None if service.cpu_limit_millicores is None else format_cpu(service.cpu_limit_millicores),
        memory=None if service.memory_limit_bytes is None else format_size(service.memory_limit_bytes),
        reserved_cpus=format_cpu(service.cpu_request_millicores),
        reserved_memory=format_size(service.memory_request_bytes),
        stop_grace=_duration(service.stop_grace_seconds),
        update="replace" if service.name in {"loadbalancer", "queue"} else "update",
        processes=plan.settings.limits.processes,
        build=f"./images/{service.name}" if service.build else None,
        user=family_of(service).user,
        command=command or (_queue_command(service) if is_queue else service.command),
        environment=environment(plan, service),
        env_file=f"./secrets/{env_file(service)}" if service.name in OURS else None,
        health=_health(service),
        port=_port(service),
    )


def _queue_command(queue: Service) -> tuple[str, ...]:
    return queue.command or (f"{family_of(queue).name}-server", QUEUE_CONFIG)


def environment(plan: DeploymentPlan, service: Service) -> tuple[tuple[str, str], ...]:
    """Variables of a service, in the order of their names; raises InputError for a name that is none."""
    given = _platform(plan, service) if service.name in OURS else {}
    merged = {**given, **service.env}
    for name in merged:
        if not _ENV_NAME.fullmatch(name):
            raise InputError(f"services.{service.name}.env: {name!a} is not the name of a variable")
    return tuple(sorted(merged.items()))


def _platform(plan: DeploymentPlan, service: Service) -> dict[str, str]:
    """What the platform's processes read: where the queue is, the file of its password, their port, their heap."""
    found = {
        "CFN_REDIS_HOST": "queue",
        "CFN_REDIS_PORT": str(plan.service("queue").port),
        "CFN_REDIS_PASSWORD_FILE": "/run/secrets/queue_password",
        "CFN_LOG_LEVEL": plan.settings.log_level,
        "PORT": str(service.port),
    }
    if family_of(service).name == "node" and service.memory_limit_bytes is not None:
        heap = max(1, service.memory_limit_bytes * plan.settings.limits.heap_percent // 100 // MIB)
        found["NODE_OPTIONS"] = f"--max-old-space-size={heap}"
    return found


def env_file(service: Service) -> str:
    """The name of the file with the operator's own variables for a service, beside the secrets."""
    return f"{service.name}.env"


def _health(service: Service) -> HealthCheck | None:
    test, health = health_command(service), service.health
    if test is None:
        return None
    return HealthCheck(
        test=test,
        interval=_duration(health.interval_seconds),
        timeout=_duration(health.timeout_seconds + START_ALLOWANCE_SECONDS),
        retries=health.fall,
        start_period=_duration(health.start_period_seconds),
    )


def _duration(seconds: float) -> str:
    """Docker refuses an interval below a millisecond."""
    return format_duration(max(0.001, seconds))


def _port(service: Service) -> Port | None:
    if service.publish is None:
        return None
    host, _, published = service.publish.rpartition(":")
    return Port(host.removeprefix("[").removesuffix("]"), published, service.port)


def balancer(plan: DeploymentPlan, peers: str = "") -> Balancer:
    """The balancer's configuration; raises InputError for a route or a setting it cannot carry.

    ``peers`` is what the target puts before a service's name where every replica is meant.
    """
    service, settings = plan.service("loadbalancer"), plan.settings
    routes = _routes(plan)
    cores = service.cpu_limit_millicores or service.cpu_request_millicores
    return Balancer(
        port=service.port,
        health_path=_path(service, service.health.path),
        log_level=_known(_LOG_LEVELS, settings.log_level, "log level"),
        threads=max(1, -(-cores // 1000)),
        connections=settings.limits.connections,
        hard_stop=_milliseconds(max(1.0, service.stop_grace_seconds - 1)),
        routes=tuple((prefix, name) for prefix, name in routes if prefix != "/"),
        default=dict(routes).get("/"),
        backends=tuple(_backend(plan, service, peers) for service in plan.services if service.routes),
    )


def _routes(plan: DeploymentPlan) -> list[tuple[str, str]]:
    owners: dict[str, str] = {}
    for service in plan.services:
        for prefix in service.routes:
            other = owners.setdefault(_path(service, prefix), service.name)
            if other != service.name:
                raise InputError(
                    f"services.{service.name}.routes: '{prefix}' already leads to {other}: keep one of them"
                )
    return sorted(owners.items(), key=lambda route: (-len(route[0]), route[0]))


def _path(service: Service, path: str) -> str:
    if not path.startswith("/"):
        raise InputError(f"services.{service.name}: the path {path!a} must begin with '/'")
    return path


def _backend(plan: DeploymentPlan, service: Service, peers: str) -> Backend:
    health = service.health
    web = health.kind in {HealthKind.HTTP, HealthKind.JSONRPC}
    return Backend(
        name=service.name,
        host=f"{peers}{service.name}",
        slots=service.max_replicas,
        port=service.port,
        algorithm=_known(_ALGORITHMS, plan.settings.strategy, "load balancing strategy"),
        check_path=_path(service, health.path) if web else None,
        check_status=health.status,
        check_timeout=_milliseconds(health.timeout_seconds),
        interval=_milliseconds(health.interval_seconds),
        # once in doubt, ask again soon: fall and rise then take seconds, not multiples of the interval
        fast_interval=_milliseconds(min(1.0, health.interval_seconds)),
        fall=health.fall,
        rise=health.rise,
        one_writer=service.one_writer,
        sticky_header=service.sticky_header,
        sticky_for=_milliseconds(plan.settings.session_timeout_seconds),
    )


def _known(table: Mapping[str, str], key: str, what: str) -> str:
    if key not in table:
        raise InputError(f"the {what} {key!a} is unknown: use one of {', '.join(table)}")
    return table[key]


def _milliseconds(seconds: float) -> str:
    """HAProxy's time format, in the largest unit that is exact."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


def queue(plan: DeploymentPlan) -> Queue:
    """The queue's configuration; a queue without a memory limit keeps within its request."""
    service = plan.service("queue")
    memory = service.memory_limit_bytes or service.memory_request_bytes
    limits = plan.settings.limits
    return Queue(service.port, memory * limits.queue_memory_percent // 100, limits.connections)


def algorithm(plan: DeploymentPlan) -> str:
    """HAProxy's word for the tier's strategy; raises InputError for one that it does not have."""
    return _known(_ALGORITHMS, plan.settings.strategy, "load balancing strategy")


def balancer_log_level(plan: DeploymentPlan) -> str:
    """HAProxy's word for the tier's log level; raises InputError for one that it does not have."""
    return _known(_LOG_LEVELS, plan.settings.log_level, "log level")
