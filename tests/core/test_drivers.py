"""Replica counts: which driver wins, what a workload class and a sustained share change, and what machines must hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.nodes import Shape, lower_bound, needed_by, pack
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.units import GIB
from cfscale.core.workload import Environment, Profile, Slo, parse_share
from cfscale.errors import InputError

CATALOGUE = load_catalogue()
counts = st.integers(0, 30_000)


def plan(
    users: int, agents: int, tasks: int, environment: Environment = "production", **more: object
) -> DeploymentPlan:
    return size(Profile(users=users, agents=agents, tasks=tasks, environment=environment, **more), CATALOGUE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("load", "service", "driver"),
    [
        ((40, 400, 800), "agents", "memory"),
        ((1, 800, 0), "agents", "memory"),
        ((26, 1, 1), "agents", "replication_factor"),
        ((1, 5001, 1), "coordinator", "agents"),
        ((40, 400, 800), "coordinator", "replication_factor"),
        ((40, 400, 800), "queue", "replication_factor"),
    ],
)
def test_the_largest_driver_wins_and_is_named(load: tuple[int, int, int], service: str, driver: str) -> None:
    assert plan(*load).service(service).driver == driver


def test_agents_that_take_little_memory_are_counted_by_their_cpu() -> None:
    assert plan(1, 800, 0, agent_class="registered").service("agents").driver == "cpu"


@pytest.mark.parametrize(("users", "agents"), [(6, 60), (1000, 10_000)])
def test_balancers_hold_a_connection_for_each_user_and_agent_at_target_utilisation(users: int, agents: int) -> None:
    chosen = plan(users, agents, 10)
    held = chosen.settings.limits.connections * CATALOGUE.rules.leaf("sizing.target_utilisation").ratio

    assert chosen.service("loadbalancer").replicas * held >= users + agents


@pytest.mark.parametrize(
    ("agent_class", "gib"), [("registered", 2 + 0.4 + 8), ("process", 2 + 20 + 8), ("container", 2 + 160 + 8)]
)
def test_a_workload_class_says_what_an_agent_takes(agent_class: str, gib: float) -> None:
    chosen = plan(40, 400, 800, agent_class=agent_class)

    assert chosen.agent_class == agent_class
    assert chosen.demand.memory_bytes == -(-gib // 1) * GIB


def test_a_sustained_share_raises_the_floor_that_agents_may_shrink_to() -> None:
    peak, calm = plan(40, 400, 800), plan(40, 400, 800, sustained="0.4")

    assert peak.service("agents").min_replicas == peak.settings.replication_factor
    assert calm.service("agents").min_replicas == plan(40, 160, 320, tier="department").service("agents").replicas
    assert calm.service("agents").replicas == peak.service("agents").replicas


@given(counts, counts, st.integers(1, 1000))
def test_what_is_sustained_never_takes_more_than_the_peak(agents: int, tasks: int, thousandth: int) -> None:
    service = plan(10, agents, tasks, sustained=f"{thousandth / 1000:.3f}").service("agents")

    assert service.min_replicas <= service.replicas <= service.max_replicas


@pytest.mark.parametrize("text", ["0", "-0.1", "1.1", "nan", "1e-1", "40%", "", "\u0660.\u0664"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"sustained '.*' is not a share of the peak: write a decimal number up to 1"):
        parse_share(text)


@pytest.mark.parametrize(("load", "pools"), [((10, 100, 1), 2), ((40, 400, 800), 3), ((500, 5000, 1), 5)])
def test_the_database_accepts_what_all_full_pools_hold_and_an_administrator(
    load: tuple[int, int, int], pools: int
) -> None:
    database = plan(*load).settings.database

    assert database is not None
    assert database.pools == pools
    assert database.pools * database.pool_max < database.max_connections == pools * 100 + 3


def test_a_single_user_has_no_database_of_its_own() -> None:
    assert plan(1, 10, 10).settings.database is None


@settings(max_examples=100)
@given(counts, counts, counts)
def test_no_packing_takes_fewer_machines_than_the_lower_bound(users: int, agents: int, tasks: int) -> None:
    chosen = plan(users, agents, tasks)
    shape = Shape(chosen.nodes.cpu_millicores, chosen.nodes.memory_bytes)
    used = pack(shape, chosen.services)

    assert used is not None
    assert lower_bound(shape, needed_by(chosen.services)) <= used


@settings(max_examples=100)
@given(counts, counts, counts, st.sampled_from(["development", "staging", "production"]))
def test_requests_are_within_limits_and_limits_within_a_machine(
    users: int, agents: int, tasks: int, environment: Environment
) -> None:
    chosen = plan(users, agents, tasks, environment)

    for service in chosen.services:
        cpu = service.cpu_limit_millicores or service.cpu_request_millicores
        memory = service.memory_limit_bytes or service.memory_request_bytes
        assert service.cpu_request_millicores <= cpu <= chosen.nodes.cpu_millicores
        assert service.memory_request_bytes <= memory <= chosen.nodes.memory_bytes


def test_a_queue_that_a_days_runs_overflow_is_a_warning_with_the_remedy() -> None:
    slo = Slo(task_rate_per_second=5, task_seconds=30, wait_probability=0.05)
    (warning,) = [text for text in plan(40, 400, 800, slo=slo).warnings if "finished run" in text]

    assert "5 tasks/s leave 7.24 GiB and it holds 0.75: give services.queue.resources.memory 10G" in warning


def test_a_queue_that_holds_a_days_runs_says_nothing() -> None:
    slo = Slo(task_rate_per_second=0.1, task_seconds=30, wait_probability=0.05)

    assert not any("finished run" in text for text in plan(40, 400, 800, slo=slo).warnings)
