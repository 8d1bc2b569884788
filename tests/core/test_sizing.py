"""Sizing: the founding rules to the letter, and the properties that hold for every workload."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.nodes import Shape, memory_of, pack
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.units import GIB
from cfscale.core.workload import (
    Environment,
    Profile,
    ResourceOverride,
    ScalingBounds,
    ScalingProfile,
    ServiceOverride,
    Slo,
)
from cfscale.errors import InputError, RefusedError

CATALOGUE = load_catalogue()
counts = st.integers(0, 60_000)
environments = st.sampled_from(["development", "staging", "production"])


def plan(
    users: int, agents: int, tasks: int, environment: Environment = "production", **more: object
) -> DeploymentPlan:
    return size(Profile(users=users, agents=agents, tasks=tasks, environment=environment, **more), CATALOGUE)  # type: ignore[arg-type]


def test_memory_demand_is_exact_thirty_gib_not_a_float_above_it() -> None:
    assert plan(40, 400, 800).demand.memory_bytes == 30 * GIB


@given(st.integers(0, 10_000), st.integers(0, 20_000))
def test_memory_demand_is_the_founding_rule(agents: int, tasks: int) -> None:
    expected = math.ceil(2 + Fraction(5, 100) * agents + Fraction(1, 100) * tasks)

    assert plan(1, agents, tasks).demand.memory_bytes == expected * GIB


@pytest.mark.parametrize(("agents", "cores"), [(0, 1), (50, 2), (250, 8), (400, 12.8), (1000, 32), (10_000, 128)])
def test_cpu_demand_goes_through_the_tier_tops(agents: int, cores: float) -> None:
    assert plan(1, agents, 0).demand.cpu_millicores == cores * 1000


@pytest.mark.parametrize(
    ("users", "agents", "tasks", "tier"),
    [
        (5, 50, 100, "single-user"),
        (6, 50, 100, "team"),
        (5, 51, 100, "team"),
        (5, 50, 101, "team"),
        (25, 250, 500, "team"),
        (26, 1, 1, "department"),
        (100, 1000, 2000, "department"),
        (100, 1000, 2001, "enterprise"),
        (1000, 10_000, 20_000, "enterprise"),
    ],
)
def test_a_shared_boundary_belongs_to_the_smaller_tier(users: int, agents: int, tasks: int, tier: str) -> None:
    chosen = plan(users, agents, tasks)

    assert (chosen.tier, chosen.cells) == (tier, 1)


@pytest.mark.parametrize(
    ("users", "phase"),
    [
        (0, "foundation"),
        (100, "foundation"),
        (101, "growth"),
        (1000, "growth"),
        (10_000, "scale"),
        (10_001, "enterprise"),
    ],
)
def test_the_phase_follows_the_users(users: int, phase: str) -> None:
    assert plan(users, 1, 1).phase == phase


@pytest.mark.parametrize(
    ("users", "agents", "tasks", "cells"), [(1001, 1, 1, 2), (1, 10_001, 1, 2), (1, 1, 40_001, 3), (2500, 45_000, 1, 5)]
)
def test_past_the_enterprise_tier_come_cells(users: int, agents: int, tasks: int, cells: int) -> None:
    chosen = plan(users, agents, tasks)

    assert (chosen.tier, chosen.cells) == ("enterprise", cells)


@pytest.mark.parametrize(
    ("environment", "admitted", "tier"),
    [("development", 50, "single-user"), ("staging", 200, "team"), ("production", 400, "department")],
)
def test_the_environment_admits_agents_and_the_tier_follows_what_is_admitted(
    environment: Environment, admitted: int, tier: str
) -> None:
    chosen = plan(3, 400, 50, environment)

    assert (chosen.admitted_agents, chosen.tier) == (admitted, tier)
    assert any("admits" in warning for warning in chosen.warnings) == (admitted < 400)


@pytest.mark.parametrize(("agents", "coordinators"), [(400, 3), (1000, 3), (5000, 5), (5001, 6), (10_000, 10)])
def test_coordinators_are_one_per_thousand_agents_and_at_least_the_replication_factor(
    agents: int, coordinators: int
) -> None:
    assert plan(40, agents, 10).service("coordinator").replicas == coordinators


def test_the_founding_compose_sample_is_the_department_floor(catalogue: Catalogue) -> None:
    rules, department = catalogue.rules, catalogue.tier("department")
    total = {"cpu": Fraction(0), "memory": Fraction(0)}
    for name in ("coordinator", "agents"):
        for resource in total:
            total[resource] += (
                rules.leaf(f"sizing.sample.{name}.replicas").exact
                * rules.leaf(f"sizing.sample.{name}.{resource}_limit").exact
            )

    assert total == {resource: Fraction(str(department.resources[resource].min)) for resource in total}


def test_growth_is_exact_and_rounds_up() -> None:
    chosen = plan(7, 10, 1, growth="1.1")

    assert (chosen.users, chosen.agents, chosen.tasks) == (8, 11, 2)


def test_an_objective_that_needs_more_agents_binds_and_says_so() -> None:
    chosen = plan(1, 3, 1, slo=Slo(task_rate_per_second=1, task_seconds=10, wait_probability=0.01))

    assert chosen.admitted_agents == 19
    assert "the objective binds" in next(entry.formula for entry in chosen.ledger if entry.rule == "agents.slo")


def test_a_demand_over_the_tiers_range_is_met_and_reported() -> None:
    chosen = plan(25, 250, 500)

    assert chosen.demand.memory_bytes == 20 * GIB
    assert "memory-demand-over-tier" in {conflict.id for conflict in chosen.conflicts}


def test_a_named_tier_that_is_too_small_is_refused_with_the_reason() -> None:
    with pytest.raises(RefusedError, match=r"tier team cannot hold 400 agents \(at most 250\)"):
        plan(10, 400, 100, tier="team")


def test_an_unknown_tier_names_those_there_are() -> None:
    with pytest.raises(InputError, match="single-user, team, department, enterprise"):
        plan(1, 1, 1, tier="huge")


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(InputError, match="no service is called 'agent'"):
        plan(1, 1, 1, services={"agent": ServiceOverride()})


def test_a_maximum_below_the_need_is_refused_rather_than_undersized() -> None:
    with pytest.raises(InputError, match="max is 2 but the workload needs"):
        plan(40, 400, 800, scaling=ScalingProfile(services={"agents": ScalingBounds(min=1, max=2)}))


def test_smaller_replicas_become_more_replicas() -> None:
    halved = plan(40, 400, 800, services={"agents": ServiceOverride(resources=ResourceOverride(memory="1G"))})

    assert halved.service("agents").replicas > plan(40, 400, 800).service("agents").replicas


def test_a_replica_that_fits_no_machine_is_refused() -> None:
    with pytest.raises(RefusedError, match="fits no machine"):
        plan(1, 1, 1, services={"agents": ServiceOverride(resources=ResourceOverride(memory="2T"))})


@settings(max_examples=200)
@given(counts, counts, counts, environments)
def test_totals_are_the_sum_of_the_services_and_never_below_demand(
    users: int, agents: int, tasks: int, environment: Environment
) -> None:
    chosen = plan(users, agents, tasks, environment)
    cpu = chosen.cells * sum(s.replicas * s.cpu_request_millicores for s in chosen.services)
    memory = chosen.cells * sum(s.replicas * (s.memory_limit_bytes or 0) for s in chosen.services)

    assert (chosen.totals.cpu_millicores, chosen.totals.memory_bytes) == (cpu, memory)
    assert chosen.totals.cpu_millicores >= chosen.demand.cpu_millicores
    assert chosen.totals.memory_bytes >= chosen.demand.memory_bytes
    assert chosen.totals.storage_bytes >= chosen.demand.storage_bytes


@settings(max_examples=200)
@given(counts, counts, counts, environments)
def test_nodes_hold_every_whole_replica_even_after_one_is_lost(
    users: int, agents: int, tasks: int, environment: Environment
) -> None:
    chosen = plan(users, agents, tasks, environment)
    shape = Shape(chosen.nodes.cpu_millicores, chosen.nodes.memory_bytes)
    spare = 1 if chosen.settings.failover else 0
    used = pack(shape, chosen.services)

    assert used is not None
    assert used + spare <= chosen.nodes.count
    assert chosen.nodes.count >= chosen.settings.replication_factor
    assert all(
        memory_of(s) <= shape.memory_bytes
        and max(s.cpu_request_millicores, s.cpu_limit_millicores or 0) <= shape.cpu_millicores
        for s in chosen.services
    )


def test_a_machine_has_the_cores_that_a_replica_may_burst_to() -> None:
    override = {"agents": ServiceOverride(resources=ResourceOverride(cpu="48"))}

    chosen = size(Profile(users=3, agents=30, tasks=60, services=override), CATALOGUE)

    assert chosen.nodes.cpu_millicores >= 48_000


def test_a_burst_that_no_machine_allows_is_refused_by_name() -> None:
    override = {"queue": ServiceOverride(resources=ResourceOverride(cpu="100"))}

    with pytest.raises(RefusedError, match="one replica of queue fits no machine"):
        size(Profile(users=3, agents=30, tasks=60, services=override), CATALOGUE)


@settings(max_examples=200)
@given(counts, counts, counts, environments)
def test_every_service_respects_its_bounds_and_the_replication_factor(
    users: int, agents: int, tasks: int, environment: Environment
) -> None:
    for service in (chosen := plan(users, agents, tasks, environment)).services:
        assert service.min_replicas <= service.replicas <= service.max_replicas
        assert service.replicas >= chosen.settings.replication_factor
        assert service.memory_request_bytes <= (service.memory_limit_bytes or service.memory_request_bytes)
        assert service.cpu_request_millicores <= (service.cpu_limit_millicores or service.cpu_request_millicores)
        assert {entry.rule for entry in chosen.ledger} >= set(service.rules)


@given(counts, counts, counts, st.sampled_from(["users", "agents", "tasks"]), st.integers(1, 5000))
def test_more_load_never_asks_for_less(users: int, agents: int, tasks: int, driver: str, more: int) -> None:
    grown = {"users": users, "agents": agents, "tasks": tasks}
    grown[driver] += more
    small, large = plan(users, agents, tasks), plan(grown["users"], grown["agents"], grown["tasks"])

    assert large.demand.memory_bytes >= small.demand.memory_bytes
    assert large.demand.cpu_millicores >= small.demand.cpu_millicores
    assert large.demand.storage_bytes >= small.demand.storage_bytes
    assert large.cells >= small.cells


@given(counts, counts, counts)
def test_every_number_of_the_ledger_has_a_formula_and_a_source(users: int, agents: int, tasks: int) -> None:
    for entry in plan(users, agents, tasks).ledger:
        assert entry.rule
        assert entry.formula
        assert entry.source
