"""Tier settings and scaling parameters: the catalogue's values with the profile's laid over them."""

from cfscale.core.plan import (
    Band,
    Damping,
    Database,
    Forecasting,
    Gates,
    Limits,
    Memory,
    Monitoring,
    Pool,
    Predictive,
    Safety,
    Scaling,
    Settings,
)
from cfscale.core.policies import policies_of
from cfscale.core.promises import Law, Promises
from cfscale.core.tier import Leaf, Rules, Tier
from cfscale.core.units import share_of
from cfscale.core.workload import BandOverride, DampingProfile, PolicyProfile, Profile, duration
from cfscale.errors import InputError


def settings_of(tier: Tier, rules: Rules, *, stand_alone: bool) -> Settings:
    """What component configuration needs of a tier; a stand-alone environment keeps one copy and has no failover."""
    balancing, copies = tier.load_balancing, tier.configuration.get("replication_factor")
    failover = balancing.get("failover")
    factor = 1 if stand_alone or copies is None else int(copies.exact)
    return Settings(
        strategy=str(balancing["strategy"].value) if "strategy" in balancing else "round_robin",
        failover=None if stand_alone or failover is None else str(failover.value),
        log_level=str(tier.monitoring["log_level"].value),
        session_timeout_seconds=tier.configuration["session_timeout"].seconds,
        cache_bytes=int(tier.configuration["cache_size"].bytes),
        metrics_retention_seconds=tier.monitoring["metrics_retention"].seconds,
        replication_factor=factor,
        max_concurrent_tasks=tier.top("tasks"),
        compress_from_bytes=int(rules.leaf("communication.compression_threshold").bytes),
        cache_l3_ttl_factor=int(rules.leaf("cache.l3_ttl_factor").exact),
        limits=_limits(rules),
        gates=Gates(*(int(rules.leaf(f"gates.{name}").exact) for name in ("queue", "cache", "write", "read"))),
        monitoring=_monitoring(rules),
        memory=_memory(rules, backups=factor - 1) if "memory" in tier.services else None,
    )


def _memory(rules: Rules, *, backups: int) -> Memory:
    return Memory(int(rules.leaf("memory_grid.shards").exact), backups)


def _monitoring(rules: Rules) -> Monitoring:
    return Monitoring(rules.leaf("metrics.collection_interval_stated").seconds)


def database_of(rules: Rules, *, pools: int) -> Database:
    """What the database must accept: all that its pools hold when full, and an administrator."""
    least, most, reserved = (
        int(rules.leaf(f"connections.{name}").exact) for name in ("pool_min", "pool_max", "reserved")
    )
    return Database(pools, least, most, reserved, pools * most + reserved)


def promises_of(tier: Tier, rules: Rules) -> Promises:
    """What a tier promises beside its sizes."""
    law, database, security = "scaling.predictive", tier.database, tier.security
    every, kept = database.get("backup_frequency"), database.get("retention")
    return Promises(
        predictive=Law(
            scale_up_ratio=rules.leaf(f"{law}.scale_up").ratio,
            scale_down_ratio=rules.leaf(f"{law}.scale_down").ratio,
            after_seconds=rules.leaf(f"{law}.after").seconds,
            scale_down_factor=float(rules.leaf(f"{law}.scale_down_factor").exact),
        ),
        auto_scaling=_word(tier.load_balancing.get("auto_scaling")),
        alerting=_word(tier.monitoring.get("alerting")),
        dashboards=_word(tier.monitoring.get("dashboards")),
        geographic_distribution=_word(tier.configuration.get("geographic_distribution")),
        backup_every_seconds=None if every is None else every.seconds,
        backup_kept_seconds=None if kept is None else kept.seconds,
        encryption=_word(database.get("encryption")),
        authentication=_word(security.get("authentication")),
        authorization=_word(security.get("authorization")),
        audit_logging=_word(security.get("audit_logging")),
        compliance=_word(security.get("compliance")),
    )


def _word(leaf: Leaf | None) -> str | None:
    return None if leaf is None else str(leaf.value)


def _limits(rules: Rules) -> Limits:
    return Limits(
        queue_memory_percent=int(rules.leaf("limits.queue_memory").exact),
        database_buffers_percent=int(rules.leaf("limits.database_buffers").exact),
        heap_percent=int(rules.leaf("limits.heap").exact),
        connections=int(rules.leaf("limits.connections").exact),
        processes=int(rules.leaf("limits.processes").exact),
    )


def scaling_of(profile: Profile, rules: Rules) -> Scaling:
    """What ``scale`` obeys; raises InputError for a duration or a band that is none."""
    given = profile.scaling
    policies = policies_of(given.policies)
    policy = next((item for item in given.policies or () if item.kind == "resource"), PolicyProfile(kind="resource"))
    return Scaling(
        interval_seconds=duration(given.interval, rules.leaf("scaling.damping.interval").seconds, "scaling.interval"),
        policies=policies,
        tolerance_ratio=rules.leaf("scaling.damping.tolerance").ratio if given.tolerance is None else given.tolerance,
        scale_up=_damping(given.scale_up, rules, "scale_up"),
        scale_down=_damping(given.scale_down, rules, "scale_down"),
        cpu=_band(policy.cpu, rules, "cpu"),
        memory=_band(policy.memory, rules, "memory"),
        disk=_band(None, rules, "disk"),
        critical_ratio=rules.leaf("scaling.resource.critical").ratio,
        target_ratio=rules.leaf("scaling.target.usage").ratio,
        pool=Pool(
            rules.leaf("scaling.pool.scale_up").ratio,
            rules.leaf("scaling.pool.scale_down").ratio,
            int(rules.leaf("scaling.pool.idle_divisor").exact),
        ),
        predictive=Predictive(
            rules.leaf("scaling.predictive.scale_up").ratio,
            rules.leaf("scaling.predictive.scale_down").ratio,
            rules.leaf("scaling.predictive.after").seconds,
            rules.leaf("scaling.predictive.scale_down_factor").ratio,
        ),
        forecast=_forecast(rules, given.goal),
        safety=_safety(rules),
    )


def _forecast(rules: Rules, goal: str | None) -> Forecasting:
    def ratio(name: str) -> float:
        return rules.leaf(f"scaling.forecast.{name}").ratio

    def seconds(name: str) -> int:
        return rules.leaf(f"scaling.forecast.{name}").seconds

    return Forecasting(
        goal_ratio=ratio("goal") if goal is None else share_of(goal, "scaling.goal"),
        startup_seconds=seconds("startup"),
        least_history_seconds=seconds("least_history"),
        memory_seconds=seconds("memory"),
        recent_seconds=seconds("recent"),
        volatility_seconds=seconds("volatility"),
        weight_power=float(rules.leaf("scaling.forecast.weight_power").exact),
        floor_ratio=ratio("floor"),
        cap_ratio=ratio("cap"),
        worth_ratio=ratio("worth"),
        least_factor=ratio("least"),
        most_factor=ratio("most"),
        steering=ratio("steering"),
        hidden_ratio=ratio("hidden"),
        hidden_most_ratio=ratio("hidden_most"),
        worse_ratio=ratio("worse"),
    )


def _safety(rules: Rules) -> Safety:
    return Safety(
        stale_after_intervals=int(rules.leaf("scaling.safety.stale_after").exact),
        stale_at_least_seconds=rules.leaf("scaling.safety.stale_at_least").seconds,
        min_reporting_ratio=rules.leaf("scaling.safety.min_reporting").ratio,
        panic_ratio=rules.leaf("scaling.safety.panic").ratio,
        panic_replicas=int(rules.leaf("scaling.safety.panic_replicas").exact),
        breaker_failures=int(rules.leaf("scaling.safety.breaker_failures").exact),
        breaker_open_seconds=rules.leaf("scaling.safety.breaker_open").seconds,
    )


def _band(given: BandOverride | None, rules: Rules, resource: str) -> Band:
    if given is not None:
        if given.scale_down >= given.scale_up:
            raise InputError(
                f"scaling.policies.0.{resource}: scale_down {given.scale_down:g} must be below scale_up {given.scale_up:g}"
            )
        return Band(given.scale_up / 100, given.scale_down / 100)
    return Band(
        rules.leaf(f"scaling.resource.{resource}.scale_up").ratio,
        rules.leaf(f"scaling.resource.{resource}.scale_down").ratio,
    )


def _damping(given: DampingProfile | None, rules: Rules, direction: str) -> Damping:
    given, base = given or DampingProfile(), f"scaling.damping.{direction}"
    where = f"scaling.{direction}"
    most = int(rules.leaf(f"{base}.max_replicas").exact) if direction == "scale_up" else None
    return Damping(
        stabilization_window_seconds=duration(
            given.stabilization_window,
            rules.leaf(f"{base}.stabilization_window").seconds,
            f"{where}.stabilization_window",
        ),
        cooldown_seconds=duration(given.cooldown, rules.leaf(f"{base}.cooldown").seconds, f"{where}.cooldown"),
        max_percent=given.max_percent or int(rules.leaf(f"{base}.max_percent").exact),
        max_replicas=given.max_replicas or most,
    )
