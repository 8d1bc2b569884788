"""The services of a cell: published ports, shares of storage, and how replicas are asked for their health."""

import pytest

from cfscale.core.overrides import health_of, published, resources_of
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import (
    HealthOverride,
    Profile,
    ResourceOverride,
    ScalingBounds,
    ScalingProfile,
    ServiceOverride,
)
from cfscale.errors import InputError


def test_what_a_resource_override_leaves_out_stays_open() -> None:
    assert resources_of("agents", ResourceOverride()) == (None, None)
    assert resources_of("agents", ResourceOverride(cpu="500m", memory="1K")) == (500, 1024)


@pytest.mark.parametrize(
    ("publish", "replicas", "expected"),
    [
        (None, 3, None),
        ("127.0.0.1:8080", 1, "127.0.0.1:8080"),
        (":8080", 1, "127.0.0.1:8080"),
        ("[::1]:80", 3, "[::1]:80-82"),
        ("0.0.0.0:65533", 3, "0.0.0.0:65533-65535"),
    ],
)
def test_every_replica_has_a_port_of_its_own(publish: str | None, replicas: int, expected: str | None) -> None:
    assert published(publish, replicas, "loadbalancer") == expected


@pytest.mark.parametrize("publish", ["8080:", "127.0.0.1:0", "127.0.0.1:65534", "127.0.0.1:٣", "localhost:8080"])
def test_what_is_no_address_with_room_for_all_ports_is_refused(publish: str) -> None:
    with pytest.raises(InputError, match=r"services\.loadbalancer\.publish"):
        published(publish, 3, "loadbalancer")


@pytest.mark.parametrize("field", ["interval", "timeout"])
@pytest.mark.parametrize("given", ["0s", "99ms", "25h"])
def test_a_health_question_without_end_or_answer_is_refused(field: str, given: str, catalogue: Catalogue) -> None:
    override = HealthOverride(interval=given) if field == "interval" else HealthOverride(timeout=given)

    with pytest.raises(InputError, match=rf"services\.agents\.health\.{field} '{given}'"):
        health_of(catalogue.rules, "agents", catalogue.services["agents"], override)


def test_storage_of_the_queue_follows_its_memory_and_the_database_and_the_coordinators_have_the_rest(
    catalogue: Catalogue,
) -> None:
    override = ServiceOverride(resources=ResourceOverride(memory="1G"))
    plan = size(Profile(users=10, agents=100, tasks=100, services={"queue": override}), catalogue)
    queue, coordinator, database = plan.service("queue"), plan.service("coordinator"), plan.service("database")
    factor = catalogue.rules.leaf("sizing.queue_log").exact
    tier = catalogue.tier(plan.tier).resources["storage"].bytes

    assert queue.storage_bytes == factor * 2**30
    rest = tier - factor * 2**30
    part = catalogue.rules.leaf("sizing.database_storage").exact

    assert 0 <= database.storage_bytes - part * rest < 1
    assert (
        0 <= coordinator.storage_bytes * coordinator.replicas - (rest - database.storage_bytes) < coordinator.replicas
    )


def test_variables_of_a_service_are_passed_on_as_they_are(catalogue: Catalogue) -> None:
    given = {"MODE": "fast", "API_KEY_FILE": "/run/secrets/key", "TOKEN": ""}
    plan = size(Profile(users=1, agents=1, tasks=1, services={"agents": ServiceOverride(env=given)}), catalogue)

    assert plan.service("agents").env == given


def test_replicas_with_too_little_cpu_for_the_demand_are_a_warning(catalogue: Catalogue) -> None:
    small = ServiceOverride(resources=ResourceOverride(cpu="50m", memory="8G"))
    scaling = ScalingProfile(services={"agents": ScalingBounds(min=1, max=2)})
    names = ("agents", "coordinator", "queue", "loadbalancer")
    profile = Profile(users=1, agents=2, tasks=1, services=dict.fromkeys(names, small), scaling=scaling)

    assert any("cores of the demand" in warning for warning in size(profile, catalogue).warnings)
