"""What tells the manifest of one target from that of another: both are filled from the same context.

compose   compose.yaml   one host: addresses and ranges of published ports, images built in place
swarm     stack.yaml     many nodes: ports of a node, tasks found as ``tasks.NAME``, no start order
"""

from collections.abc import Callable

from msgspec import Struct

from cfscale.core.plan import Service
from cfscale.core.swarm import UNCHECKED, first_port

Ports = list[dict[str, object]]
_EXTENSIONS = frozenset({"x-common", "x-replace", "x-rollback", "x-update"})
_SECTIONS = frozenset({"configs", "networks", "secrets", "services", "volumes"})
# fmt: off
_SERVICE_KEYS = frozenset({
    "cap_drop", "command", "configs", "deploy", "env_file", "environment", "healthcheck", "hostname", "image", "init", "labels",
    "logging", "networks", "ports", "read_only", "secrets", "stop_grace_period", "stop_signal", "user", "volumes",
})
# fmt: on


class Dialect(Struct, frozen=True):
    """One way to write a plan down. ``peers`` stands before a service's name where all of its replicas are meant.

    What is ``unchecked`` has no health check there, whatever the plan says.
    """

    name: str
    manifest: str
    name_key: str
    peers: str
    top_keys: frozenset[str]
    service_keys: frozenset[str]
    unchecked: frozenset[str]
    ports: Callable[[Service], Ports | None]


def _compose_ports(service: Service) -> Ports | None:
    if service.publish is None:
        return None
    host, _, published = service.publish.rpartition(":")
    return [{"host_ip": host.strip("[]"), "published": published, "target": service.port, "protocol": "tcp"}]


def _swarm_ports(service: Service) -> Ports | None:
    if service.publish is None:
        return None
    return [{"mode": "host", "published": first_port(service.publish), "target": service.port, "protocol": "tcp"}]


COMPOSE = Dialect(
    name="compose",
    manifest="compose.yaml",
    name_key="name",
    peers="",
    top_keys=_SECTIONS | _EXTENSIONS | {"name"},
    service_keys=_SERVICE_KEYS
    | {"build", "depends_on", "profiles", "pull_policy", "restart", "security_opt", "shm_size", "tmpfs"},
    unchecked=frozenset(),
    ports=_compose_ports,
)
SWARM = Dialect(
    name="swarm",
    manifest="stack.yaml",
    name_key="x-name",
    peers="tasks.",
    top_keys=_SECTIONS | _EXTENSIONS | {"version", "x-name", "x-restart", "x-scratch"},
    service_keys=_SERVICE_KEYS,
    unchecked=UNCHECKED,
    ports=_swarm_ports,
)
