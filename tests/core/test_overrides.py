"""What a profile overrides: the plan still covers its demand, and a mistake is named with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.plan import DeploymentPlan
from cfscale.core.roster import SERVICES
from cfscale.core.sizing import size
from cfscale.core.workload import (
    BandOverride,
    Environment,
    HealthOverride,
    PolicyProfile,
    Profile,
    ResourceOverride,
    ScalingBounds,
    ScalingProfile,
    ServiceOverride,
)
from cfscale.errors import InputError, RefusedError

CATALOGUE = load_catalogue()
resources = st.builds(
    ResourceOverride,
    cpu=st.sampled_from([None, "50m", "0.1", "1", "4"]),
    memory=st.sampled_from([None, "64M", "512M", "1.5G", "8G"]),
)
overrides = st.dictionaries(st.sampled_from(SERVICES), st.builds(ServiceOverride, resources=resources))


def plan(
    services: dict[str, ServiceOverride] | None = None,
    scaling: ScalingProfile | None = None,
    *,
    sizes: tuple[int, int, int] = (4, 20, 40),
    environment: Environment = "production",
) -> DeploymentPlan:
    users, agents, tasks = sizes
    profile = Profile(
        users=users,
        agents=agents,
        tasks=tasks,
        environment=environment,
        services=services or {},
        scaling=scaling or ScalingProfile(),
    )
    return size(profile, CATALOGUE)


@given(
    overrides,
    st.tuples(st.integers(0, 5000), st.integers(0, 30_000), st.integers(0, 60_000)),
    st.sampled_from(["development", "staging", "production"]),
)
def test_the_services_cover_the_demand_whatever_their_size(
    services: dict[str, ServiceOverride], sizes: tuple[int, int, int], environment: Environment
) -> None:
    sized = plan(services, sizes=sizes, environment=environment)

    assert sized.totals.cpu_millicores >= sized.demand.cpu_millicores
    assert sized.totals.memory_bytes >= sized.demand.memory_bytes
    assert sized.totals.storage_bytes >= sized.demand.storage_bytes


def test_agents_make_up_for_a_small_coordinator_and_the_ledger_says_so() -> None:
    small = ServiceOverride(resources=ResourceOverride(cpu="50m", memory="64M"))
    sized = plan({"coordinator": small, "queue": small, "loadbalancer": small}, sizes=(4, 5, 1))

    assert sized.service("agents").driver == "demand"
    assert "demand" in next(entry.formula for entry in sized.ledger if entry.rule == "agents.replicas")


def test_a_count_that_the_profile_bounds_is_kept_and_what_it_lacks_is_said() -> None:
    small = ServiceOverride(resources=ResourceOverride(cpu="0.5", memory="256M"))
    scaling = ScalingProfile(services={"agents": ScalingBounds(min=1, max=4)})
    sized = plan({"coordinator": small, "agents": small}, scaling, sizes=(2, 4, 4), environment="development")

    assert sized.service("agents").replicas == 2
    assert any("hold 1.13 of 3 GiB of the demand" in warning for warning in sized.warnings)
    assert not any("of the demand" in warning for warning in plan().warnings)


def test_a_queue_larger_than_the_storage_of_its_tier_leaves_none_to_the_coordinators() -> None:
    sized = plan({"queue": ServiceOverride(resources=ResourceOverride(memory="8G"))})

    assert sized.service("coordinator").storage_bytes == 0


def test_replicas_too_small_to_be_counted_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"agents would take \d+ replicas of 1B.*services.agents.resources"):
        plan({"agents": ServiceOverride(resources=ResourceOverride(memory="1B"))})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (ServiceOverride(resources=ResourceOverride(cpu="lots")), "services.agents.resources.cpu: 'lots'"),
        (ServiceOverride(resources=ResourceOverride(memory="0")), "services.agents.resources.memory: '0'"),
        (ServiceOverride(health=HealthOverride(interval="0s")), "services.agents.health.interval '0s': give 100ms"),
        (ServiceOverride(health=HealthOverride(timeout="2d")), "services.agents.health.timeout '2d': give 100ms to 1d"),
        (ServiceOverride(stop_grace="100y"), "services.agents.stop_grace: '100y' is longer than ten years"),
        (ServiceOverride(health=HealthOverride(path="nope")), "services.agents.health.path 'nope': write a path"),
        (ServiceOverride(health=HealthOverride(path="/a b")), "services.agents.health.path '/a b': write a path"),
        (ServiceOverride(health=HealthOverride(rpc_path="")), "services.agents.health.rpc_path '': write a path"),
        (ServiceOverride(routes=["/", "/a\nb"]), "services.agents.routes '/a\nb': write a path"),
        (ServiceOverride(publish="a b:80"), "services.agents.publish 'a b:80': write an IP address"),
        (ServiceOverride(publish="$(x):80"), r"publish '\$\(x\):80': write an IP address"),
        (ServiceOverride(publish="localhost:80"), "write an IP address"),
        (ServiceOverride(publish="127.0.0.1:0"), "write ADDRESS:PORT"),
    ],
)
def test_a_wrong_override_is_named_with_its_place(override: ServiceOverride, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan({"agents": override})


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "[::1]", "::1", "[fe80::1]"])
def test_an_address_of_either_family_may_be_published(address: str) -> None:
    sized = plan({"loadbalancer": ServiceOverride(publish=f"{address}:8090")})

    assert sized.service("loadbalancer").publish == f"{address}:8090"


@pytest.mark.parametrize("name", ["loadbalancer", "queue"])
def test_a_service_that_cannot_grow_while_it_runs_keeps_one_count(name: str) -> None:
    named = {name: ServiceOverride()}
    sized = plan(named, scaling=ScalingProfile(services={name: ScalingBounds(min=3, max=3)}))

    assert (sized.service(name).replicas, sized.service(name).scaled) == (3, False)
    with pytest.raises(InputError, match=f"scaling.services.{name}: its count cannot move"):
        plan(named, scaling=ScalingProfile(services={name: ScalingBounds(max=3)}))


@pytest.mark.parametrize(("up", "down"), [(30, 80), (80, 80)])
def test_a_band_upside_down_is_refused(up: float, down: float) -> None:
    policy = PolicyProfile(kind="resource", cpu=BandOverride(scale_up=up, scale_down=down))
    with pytest.raises(InputError, match=r"scaling.policies.0.cpu: scale_down 80 must be below scale_up"):
        plan(scaling=ScalingProfile(policies=[policy]))


def test_a_list_of_no_policies_is_refused() -> None:
    with pytest.raises(InputError, match=r"scaling.policies is empty: name a policy"):
        plan(scaling=ScalingProfile(policies=[]))
