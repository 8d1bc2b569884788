"""From the plan to what the compose templates print: every decision and all arithmetic, so that templates have none.

    plan ─▶ project  compose.yaml, one container each compose service; configuration files are of ``proxy`` and ``configs``

Each member of a service that has members is a compose service of its own: NAME-1 and so on, with a volume of that
name. A value that Compose or a component cannot carry is an InputError naming the service.
"""

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.swarm import HERE, keepers, object_prefix, pin_label
from cfscale.core.tier import AGENTS, pool_kind
from cfscale.core.units import format_cpu, format_duration, format_size
from cfscale.errors import InputError
from cfscale.render.families import START_ALLOWANCE_SECONDS, family_of, health_command
from cfscale.render.platform import platform_env

CONFIG = "/etc/cfscale"
METRICS = ("prometheus.yml", "alerts.yml")
DATABASE_SECRETS = (
    "database_password",
    "database_admin_password",
    "database_replication_password",
    "pooler_userlist.txt",
)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_ETCD_PEER = 2380  # its default
# the platform's own services: they know the others, and may need secrets of the operator
_OURS = frozenset({"coordinator", AGENTS})
# what the containers of a service mount from outside, by what it is rendered as
_CONFIGS: Mapping[str, tuple[str, ...]] = {
    "loadbalancer": ("haproxy.cfg",),
    "queue": ("valkey.conf",),
    "memory": ("memory.conf",),
    "cache": ("cache.conf",),
    "database": ("patroni.yml", "database.sql"),
    "pooler": ("pgbouncer.ini",),
    "sentinel": ("sentinel.conf", "sentinel-start.sh"),
}


class Port(Struct, frozen=True):
    """A port on the host, or a range of them with one for each replica."""

    host: str
    published: str
    target: int

    @property
    def first(self) -> int:
        """The port, or the first of the range, as a number."""
        return int(self.published.partition("-")[0])


class HealthCheck(Struct, frozen=True):
    """Docker's health check of one container."""

    test: tuple[str, ...]
    interval: str
    timeout: str
    retries: int
    start_period: str


class Container(Struct, frozen=True):
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
    name: str = ""
    build: str | None = None
    user: str | None = None
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None
    health: HealthCheck | None = None
    port: Port | None = None


def project(plan: DeploymentPlan) -> dict[str, object]:
    """The names that the templates of a manifest use; raises InputError for a value that cannot be carried."""
    members = {service.name: [_container(plan, service, name) for name in service.names] for service in plan.services}
    first = {name: found[0] for name, found in members.items()}
    return {
        "name": plan.name,
        "short": object_prefix(plan),
        "pins": {name: f"node.labels.{pin_label(plan, name)} == {HERE}" for name in keepers(plan)},
        "tier": plan.tier,
        "cells": plan.cells,
        "containers": first,
        "members": members,
        "pools": [first[service.name] for service in plan.services if pool_kind(service.name) == AGENTS],
        "stores": [store for store in ("queue", "memory", "cache") if store in first],
        "volumes": tuple(_volumes(plan)),
        "secrets": secret_files(plan),
        "passwords": passwords(plan),
        "coordinator_networks": ("edge", "app", "data") if plan.service("coordinator").publish else ("app", "data"),
        # a service without a check can never be healthy
        "ready": {name: _ready(container) for found in members.values() for name, container in _named(found)},
        "waits": tuple(_waits(first)),
        "monitoring": {
            "image": plan.settings.monitoring.image,
            "retention": f"--storage.tsdb.retention.time={plan.settings.metrics_retention_seconds}s",
        },
    }


def _named(found: list[Container]) -> list[tuple[str, Container]]:
    return [(container.name, container) for container in found]


def _ready(container: Container) -> str:
    return "service_healthy" if container.health else "service_started"


def _waits(first: Mapping[str, Container]) -> Iterator[tuple[str, str]]:
    """What the platform cannot begin without; a job that forms the cluster must have ended well."""
    for name in ("queue", "pooler"):
        if name in first:
            yield first[name].name, _ready(first[name])
    if "memory" in first:
        yield "memory-form", "service_completed_successfully"


def passwords(plan: DeploymentPlan) -> tuple[str, ...]:
    """The secrets of what the platform's own processes speak to."""
    stores = tuple(f"{store}_password" for store in ("queue", "memory", "cache") if plan.find(store))
    return (*stores, "database_password") if plan.find("database") else stores


def secret_files(plan: DeploymentPlan) -> tuple[str, ...]:
    """Every file of the secrets' directory that a container mounts."""
    found = [name for store in ("queue", "memory", "cache") if plan.find(store) for name in store_secrets(store)]
    return (*found, *DATABASE_SECRETS) if plan.find("database") else tuple(found)


def store_secrets(store: str) -> tuple[str, str]:
    """The password of a store, and the same as the directives that its configuration includes."""
    return f"{store}_password", f"{store}_auth.conf"


def _volumes(plan: DeploymentPlan) -> Iterator[tuple[str, str]]:
    """Volumes and the services whose they are: one for all coordinators, one for each member that keeps something."""
    for service in plan.services:
        if service.name == "coordinator":
            yield "coordinator-data", service.name
        elif service.members and service.name != "cache":
            yield from ((f"{name}-data", service.name) for name in service.names)


def config_files(service: Service) -> tuple[str, ...]:
    """The configuration files that the containers of a service mount."""
    found = _CONFIGS.get(service.name, ())
    return (*found, "queue-start.sh") if service.name == "queue" and service.replicas > 1 else found


def _container(plan: DeploymentPlan, service: Service, name: str) -> Container:
    ours, own_file = pool_kind(service.name) in _OURS, env_file(service)
    return Container(
        name=name,
        service=service.name,
        image=service.image,
        # an image that is ours is built here: the same name in a registry would be somebody else's
        pull_policy="never" if service.build else "missing",
        replicas=1 if service.members else service.replicas,
        cpus=None if service.cpu_limit_millicores is None else format_cpu(service.cpu_limit_millicores),
        memory=None if service.memory_limit_bytes is None else format_size(service.memory_limit_bytes),
        reserved_cpus=format_cpu(service.cpu_request_millicores),
        reserved_memory=format_size(service.memory_request_bytes),
        stop_grace=_duration(service.stop_grace_seconds),
        update="update" if ours else "replace",
        processes=plan.settings.limits.processes,
        build=f"./images/{pool_kind(service.name)}" if service.build else None,
        user=family_of(service).user,
        command=service.command or _command(service, name),
        environment=environment(plan, service),
        env_file=None if own_file is None else f"./secrets/{own_file}",
        health=_health(service),
        port=_port(service),
    )


def env_file(service: Service) -> str | None:
    """The file with the operator's own variables for a service, beside the secrets; None where it takes none."""
    return f"{service.name}.env" if pool_kind(service.name) in _OURS else None


def _command(service: Service, name: str) -> tuple[str, ...]:
    """How a component finds its configuration, and a member its name; empty is the image's own."""
    server = f"{family_of(service).name}-server"
    if service.name == "queue" and service.replicas > 1:
        return ("sh", f"{CONFIG}/queue-start.sh", name)
    if service.name == "etcd":
        return _etcd(service, name)
    commands = {
        "queue": (server, f"{CONFIG}/valkey.conf"),
        "cache": (server, f"{CONFIG}/cache.conf"),
        "memory": (server, f"{CONFIG}/memory.conf", "--cluster-announce-hostname", name),
        "sentinel": ("sh", f"{CONFIG}/sentinel-start.sh"),
    }
    return commands.get(service.name, ())


def _etcd(service: Service, name: str) -> tuple[str, ...]:
    """Etcd takes its members from its arguments; all of them are known from the start."""
    peers = ",".join(f"{member}=http://{member}:{_ETCD_PEER}" for member in service.names)
    return (
        "etcd",
        f"--name={name}",
        "--data-dir=/data/etcd",
        f"--listen-client-urls=http://0.0.0.0:{service.port}",
        f"--advertise-client-urls=http://{name}:{service.port}",
        f"--listen-peer-urls=http://0.0.0.0:{_ETCD_PEER}",
        f"--initial-advertise-peer-urls=http://{name}:{_ETCD_PEER}",
        f"--initial-cluster={peers}",
        "--auto-compaction-retention=1",
    )


def environment(plan: DeploymentPlan, service: Service) -> tuple[tuple[str, str], ...]:
    """Variables of a service, in the order of their names; raises InputError for a name that is none."""
    given = platform_env(plan, service) if pool_kind(service.name) in _OURS else {}
    merged = {**given, **service.env}
    for name in merged:
        if not _ENV_NAME.fullmatch(name):
            raise InputError(f"services.{service.name}.env: {name!a} is not the name of a variable")
    return tuple(sorted(merged.items()))


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
