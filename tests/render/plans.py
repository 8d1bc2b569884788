"""One plan a tier, written by hand, so that the golden trees change only where rendering changes."""

from collections.abc import Iterator

from msgspec.structs import replace

from cfscale.core.plan import (
    PLAN_SCHEMA,
    Amounts,
    Database,
    Demand,
    DeploymentPlan,
    Gates,
    Health,
    HealthKind,
    Limits,
    Memory,
    Monitoring,
    Nodes,
    Service,
    Settings,
)
from cfscale.core.units import GIB, MIB
from tests.fake_service import SCALING

TIERS = ("single-user", "team", "department", "enterprise")
_COPIES = {"single-user": 1, "team": 2, "department": 3, "enterprise": 5}
_AGENTS = {"single-user": (2, 4), "team": (10, 12), "department": (20, 40), "enterprise": (60, 110)}
LIMITS = Limits(75, 25, 75, 4000, 1024)
GATES = Gates(6379, 6380, 5000, 5001)
MONITORING = Monitoring(10, "prom/prometheus:v2.53.3")


def settings_of(strategy: str, failover: str | None, log_level: str, sizes: tuple[int, ...]) -> Settings:
    """Settings with what every tier has alike; sizes are session seconds, cache, retention seconds, copies, tasks."""
    session, cache, retention, copies, tasks = sizes
    replicated = copies > 1
    return Settings(
        strategy,
        failover,
        log_level,
        session,
        cache,
        retention,
        copies,
        tasks,
        compress_from_bytes=1024,
        cache_l3_ttl_factor=10,
        limits=LIMITS,
        gates=GATES,
        monitoring=MONITORING,
        database=Database(copies, 5, 100, 3, copies * 100 + 3) if replicated else None,
        memory=Memory(3, copies - 1) if copies > TEAM else None,
    )


TEAM = 2
_SETTINGS = {
    "single-user": settings_of("round_robin", None, "debug", (1800, 100 * MIB, 86_400, 1, 100)),
    "team": settings_of("round_robin", "automatic", "info", (7200, 500 * MIB, 604_800, 2, 500)),
    "department": settings_of(
        "weighted_least_connections", "cross_region", "warn", (14_400, 2 * GIB, 2_592_000, 3, 2000)
    ),
    "enterprise": settings_of("intelligent_routing", "global", "error", (28_800, 8 * GIB, 31_536_000, 5, 20_000)),
}


def plan_for(tier: str) -> DeploymentPlan:
    """A plausible plan of this tier."""
    copies = _COPIES[tier]
    return DeploymentPlan(
        schema=PLAN_SCHEMA,
        name="acme",
        environment="production",
        tier=tier,
        phase="growth",
        cells=2 if tier == "enterprise" else 1,
        users=1,
        agents=1,
        tasks=1,
        admitted_agents=1,
        demand=Demand(1000, GIB, GIB, None),
        totals=Amounts(1000, GIB, GIB),
        nodes=Nodes(copies, 4000, 8 * GIB),
        services=tuple(_services(tier, copies)),
        settings=_SETTINGS[tier],
        scaling=SCALING,
        ledger=(),
        conflicts=(),
        warnings=(),
    )


def changed(plan: DeploymentPlan, name: str, **values: object) -> DeploymentPlan:
    """The plan with one service changed."""
    services = [replace(s, **values) if s.name == name else s for s in plan.services]
    return replace(plan, services=tuple(services))


def _service(name: str, image: str, replicas: int, port: int, health: Health) -> Service:
    return Service(
        name=name,
        image=image,
        replicas=replicas,
        min_replicas=replicas,
        max_replicas=replicas,
        cpu_request_millicores=250,
        cpu_limit_millicores=1000,
        memory_request_bytes=256 * MIB,
        memory_limit_bytes=256 * MIB,
        storage_bytes=0,
        driver="replication_factor",
        rules=(),
        port=port,
        health=health,
        stop_grace_seconds=15.0,
    )


def _coordinator(copies: int) -> Service:
    health = Health(HealthKind.JSONRPC, path="/health")
    return replace(
        _service("coordinator", "cfscale/coordinator:3.43.0", copies, 3000, health),
        cpu_request_millicores=1000,
        cpu_limit_millicores=None,
        memory_request_bytes=2 * GIB,
        memory_limit_bytes=2 * GIB,
        routes=("/rpc", "/mcp", "/info"),
        one_writer=True,
        stop_grace_seconds=30.0,
        build=True,
    )


def _agents(tier: str) -> Service:
    replicas, most = _AGENTS[tier]
    return replace(
        _service("agents", "cfscale/agents:2.21.0", replicas, 3000, Health(HealthKind.HTTP, path="/api/health")),
        min_replicas=_COPIES[tier],
        max_replicas=most,
        cpu_request_millicores=1000,
        memory_request_bytes=1 * GIB,
        memory_limit_bytes=2 * GIB,
        routes=("/",),
        stop_grace_seconds=30.0,
        build=True,
    )


def _balancer(copies: int) -> Service:
    publish = "127.0.0.1:8080" if copies == 1 else f"127.0.0.1:8080-{8079 + copies}"
    health = Health(HealthKind.HTTP, path="/healthz")
    return replace(_service("loadbalancer", "haproxy:3.2", copies, 8080, health), publish=publish)


def _services(tier: str, copies: int) -> Iterator[Service]:
    yield from (_coordinator(copies), _agents(tier))
    if copies > 1:
        yield _balancer(copies)
    yield _store("queue", copies)
    if copies > TEAM:
        yield _store("memory", 3 * copies)
    yield _store("cache", copies)
    if copies > 1:
        yield from _data(copies)


def _store(name: str, copies: int, port: int = 6379) -> Service:
    return replace(_service(name, "valkey/valkey:8.1", copies, port, Health(HealthKind.REDIS)), members=True)


def _data(copies: int) -> Iterator[Service]:
    sql, voters = Health(HealthKind.POSTGRES), max(3, copies)
    yield replace(_service("database", "cfscale/database:17", copies, 5432, sql), members=True, build=True)
    yield _service("pooler", "edoburu/pgbouncer:v1.24.1-p0", copies, 6432, sql)
    yield _store("sentinel", voters, port=26_379)
    etcd = _service("etcd", "quay.io/coreos/etcd:v3.5.16", voters, 2379, Health(HealthKind.HTTP, path="/health"))
    yield replace(etcd, members=True)
