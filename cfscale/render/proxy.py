"""What the balancer's configuration says: routes by path, by kind of request and by kind of agent, and gates for the rest.

request ─ path ─▶ service ─ X-Request-Type ─▶ a way to spread it: agent-spawn by free resources, task-execution by
                     │                        least connections, swarm-coordination by the swarm, else as the tier says
                     └ X-Agent-Type, X-Task-Type, X-Task-Complexity ─▶ a further pool of agents
gate ─ role ─▶ the queue's primary, the first cache that is up, the database's primary or its replicas
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from cfscale.core.plan import SPAWN, DeploymentPlan, HealthKind, Service
from cfscale.core.tier import AGENTS, pool_kind
from cfscale.errors import InputError

_ALGORITHMS = {
    "round_robin": "roundrobin",
    "weighted_least_connections": "leastconn",
    "intelligent_routing": "leastconn",
}
_LOG_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "err"}
# what X-Request-Type says, the backend's suffix for it, and how that spreads: by weights that follow free resources, by
# connections, by a hash of the swarm
REQUEST_TYPES = (
    ("agent-spawn", SPAWN, "roundrobin"),
    ("task-execution", "task", "leastconn"),
    ("swarm-coordination", "swarm", "hash"),
)
# further words for a task that lead to the pool of this name, beside X-Agent-Type
_TASKS = {"agents-parallel": ("X-Task-Type", "parallel"), "agents-expert": ("X-Task-Complexity", "high")}


class Backend(Struct, frozen=True):
    """One scaled service in one way to spread requests; ``check_path`` None asks for a connection only.

    ``algorithm`` is HAProxy's, ``hash`` for the swarm's id or ``one`` where one replica takes everything. ``weighed``: the
    scaler says how much each replica has free, in percent; one that it has not measured yet counts as free.
    """

    name: str
    service: str
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
    connections: int
    sticky_header: str | None
    sticky_for: str
    weighed: bool


class Route(Struct, frozen=True):
    """A path prefix (empty: whatever is left) and the backend it leads to, by kind of request where there are several."""

    prefix: str
    backend: str
    types: tuple[tuple[str, str], ...]


class Pool(Struct, frozen=True):
    """A header whose value leads to a further pool of agents."""

    header: str
    value: str
    backend: str


class Gate(Struct, frozen=True):
    """A TCP port that leads to the members of a service that have a role; ``role`` names the question they are asked."""

    name: str
    port: int
    role: str
    servers: tuple[tuple[str, int], ...]


class Balancer(Struct, frozen=True):
    """The values of ``config/haproxy.cfg``; routes go from the longest prefix to the shortest."""

    port: int
    health_path: str
    log_level: str
    threads: int
    connections: int
    all_connections: int
    hard_stop: str
    compress_from: int
    request_types: tuple[tuple[str, str], ...]
    routes: tuple[Route, ...]
    pools: tuple[Pool, ...]
    default: Route | None
    backends: tuple[Backend, ...]
    gates: tuple[Gate, ...]


def balancer(plan: DeploymentPlan) -> Balancer:
    """The balancer's configuration; raises InputError for a route or a setting it cannot carry."""
    service, settings = plan.service("loadbalancer"), plan.settings
    routes, gates = _routes(plan), tuple(_gates(plan))
    cores = service.cpu_limit_millicores or service.cpu_request_millicores
    return Balancer(
        port=service.port,
        health_path=_path(service, service.health.path),
        log_level=_known(_LOG_LEVELS, settings.log_level, "log level"),
        threads=max(1, -(-cores // 1000)),
        connections=settings.limits.connections,
        # as many again for what comes through the gates
        all_connections=settings.limits.connections * (2 if gates else 1),
        hard_stop=_milliseconds(max(1.0, service.stop_grace_seconds - 1)),
        compress_from=settings.compress_from_bytes,
        request_types=tuple((word, name) for word, name, _ in REQUEST_TYPES),
        routes=tuple(_route(plan, prefix, name) for prefix, name in routes if prefix != "/"),
        pools=tuple(_pools(plan)),
        default=next((_route(plan, "", name) for prefix, name in routes if prefix == "/"), None),
        backends=tuple(backend for service in plan.services if service.routes for backend in _backends(plan, service)),
        gates=gates,
    )


def _typed(service: Service) -> bool:
    """Whether requests to a service are spread by their kind: not to further pools, nor where one replica takes all."""
    return not service.one_writer and pool_kind(service.name) == service.name


def _route(plan: DeploymentPlan, prefix: str, name: str) -> Route:
    typed = _typed(plan.service(name))
    return Route(prefix, name, tuple((kind, f"{name}.{kind}") for _, kind, _ in REQUEST_TYPES) if typed else ())


def _pools(plan: DeploymentPlan) -> Iterator[Pool]:
    for service in plan.services:
        if pool_kind(service.name) != service.name:
            yield Pool("X-Agent-Type", service.name.removeprefix(f"{AGENTS}-"), service.name)
            if service.name in _TASKS:
                yield Pool(*_TASKS[service.name], service.name)


def _gates(plan: DeploymentPlan) -> Iterator[Gate]:
    """Gates to what has more than a way in: clients need not know which member has the role today."""
    ports = plan.settings.gates
    for name, service, port, role in (
        ("queue", "queue", ports.queue, "valkey-primary"),
        ("cache", "cache", ports.cache, "valkey-first"),
        ("write", "database", ports.write, "primary"),
        ("read", "database", ports.read, "replica"),
    ):
        if (found := plan.find(service)) is not None:
            yield Gate(name, port, role, tuple((member, found.port) for member in found.names))


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


def _backends(plan: DeploymentPlan, service: Service) -> Iterator[Backend]:
    tier = _known(_ALGORITHMS, plan.settings.strategy, "load balancing strategy")
    yield _backend(plan, service, "", "one" if service.one_writer else tier)
    if _typed(service):
        for _, kind, algorithm in REQUEST_TYPES:
            yield _backend(plan, service, f".{kind}", algorithm)


def _backend(plan: DeploymentPlan, service: Service, suffix: str, algorithm: str) -> Backend:
    health, routed = service.health, sum(bool(other.routes) for other in plan.services)
    web = health.kind in {HealthKind.HTTP, HealthKind.JSONRPC}
    return Backend(
        name=f"{service.name}{suffix}",
        service=service.name,
        slots=service.max_replicas,
        port=service.port,
        algorithm=algorithm,
        check_path=_path(service, health.path) if web else None,
        check_status=health.status,
        check_timeout=_milliseconds(health.timeout_seconds),
        interval=_milliseconds(health.interval_seconds),
        # once in doubt, ask again soon: fall and rise then take seconds, not multiples of the interval
        fast_interval=_milliseconds(min(1.0, health.interval_seconds)),
        fall=health.fall,
        rise=health.rise,
        # a bulkhead: no service takes the connections of another, no replica those of the others
        connections=max(1, plan.settings.limits.connections // routed // service.min_replicas),
        sticky_header=service.sticky_header,
        sticky_for=_milliseconds(plan.settings.session_timeout_seconds),
        weighed=suffix == f".{SPAWN}",
    )


def _known(table: Mapping[str, str], key: str, what: str) -> str:
    if key not in table:
        raise InputError(f"the {what} {key!a} is unknown: use one of {', '.join(table)}")
    return table[key]


def _milliseconds(seconds: float) -> str:
    """HAProxy's time format, in the largest unit that is exact."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"


def algorithm(plan: DeploymentPlan) -> str:
    """HAProxy's word for the tier's strategy; raises InputError for one that it does not have."""
    return _known(_ALGORITHMS, plan.settings.strategy, "load balancing strategy")


def log_level(plan: DeploymentPlan) -> str:
    """HAProxy's word for the tier's log level; raises InputError for one that it does not have."""
    return _known(_LOG_LEVELS, plan.settings.log_level, "log level")
