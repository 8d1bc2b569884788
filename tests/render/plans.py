"""One plan a tier, written by hand, so that the golden trees change only where rendering changes."""

from dataclasses import replace

from cfscale.core.plan import (
    PLAN_SCHEMA,
    Amounts,
    Band,
    Damping,
    Demand,
    DeploymentPlan,
    Health,
    HealthKind,
    Limits,
    Nodes,
    Safety,
    Scaling,
    Service,
    Settings,
)
from cfscale.core.units import GIB, MIB

TIERS = ("single-user", "team", "department", "enterprise")
_COPIES = {"single-user": 1, "team": 2, "department": 3, "enterprise": 5}
_AGENTS = {"single-user": (2, 4), "team": (10, 12), "department": (20, 40), "enterprise": (60, 110)}
_LIMITS = Limits(75, 75, 4000, 1024)
_SETTINGS = {
    "single-user": Settings("round_robin", None, "debug", 1800, 100 * MIB, 86_400, 1, 100, _LIMITS),
    "team": Settings("round_robin", "automatic", "info", 7200, 500 * MIB, 604_800, 2, 500, _LIMITS),
    "department": Settings(
        "weighted_least_connections", "cross_region", "warn", 14_400, 2 * GIB, 2_592_000, 3, 2000, _LIMITS
    ),
    "enterprise": Settings("intelligent_routing", "global", "error", 28_800, 8 * GIB, 31_536_000, 5, 20_000, _LIMITS),
}
_DAMPING = Damping(0.0, 30.0, 100, 4)
_SAFETY = Safety(3, 0.7, 0.5, 5, 3, 600.0)
_SCALING = Scaling(
    10.0, ("resource",), 0.1, _DAMPING, _DAMPING, Band(0.8, 0.3), Band(0.85, 0.4), Band(0.9, 0.5), 0.95, _SAFETY
)


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
        services=(_coordinator(copies), _agents(tier), _balancer(copies), _queue(copies)),
        settings=_SETTINGS[tier],
        scaling=_SCALING,
        ledger=(),
        conflicts=(),
        warnings=(),
    )


def changed(plan: DeploymentPlan, name: str, **values: object) -> DeploymentPlan:
    """The plan with one service changed."""
    services = [replace(s, **values) if s.name == name else s for s in plan.services]  # type: ignore[arg-type]
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
    return replace(_service("loadbalancer", "haproxy:3.0", copies, 8080, health), publish=publish)


def _queue(copies: int) -> Service:
    return _service("queue", "valkey/valkey:8.1", copies, 6379, Health(HealthKind.REDIS))
