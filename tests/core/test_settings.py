"""Settings, scaling and limits: the catalogue's numbers, with the profile's laid over them."""

from fractions import Fraction

import pytest
from msgspec.structs import asdict

from cfscale.core.plan import Damping, Policy, Scaling
from cfscale.core.settings import scaling_of, settings_of
from cfscale.core.tier import Catalogue
from cfscale.core.workload import (
    BandOverride,
    DampingProfile,
    PolicyProfile,
    Profile,
    ScalingProfile,
)
from cfscale.errors import InputError


@pytest.fixture
def scaling(catalogue: Catalogue) -> Scaling:
    return scaling_of(Profile(), catalogue.rules)


@pytest.mark.parametrize(
    ("field", "leaf"),
    [
        ("stale_after_intervals", "stale_after"),
        ("stale_at_least_seconds", "stale_at_least"),
        ("min_reporting_ratio", "min_reporting"),
        ("panic_ratio", "panic"),
        ("panic_replicas", "panic_replicas"),
        ("breaker_failures", "breaker_failures"),
        ("breaker_open_seconds", "breaker_open"),
    ],
)
def test_safety_is_what_the_catalogue_says(field: str, leaf: str, scaling: Scaling, catalogue: Catalogue) -> None:
    stated = catalogue.rules.leaf(f"scaling.safety.{leaf}").exact

    assert Fraction(str(asdict(scaling.safety)[field])) == stated


@pytest.mark.parametrize(
    ("field", "leaf"),
    [
        ("queue_memory_percent", "queue_memory"),
        ("heap_percent", "heap"),
        ("connections", "connections"),
        ("processes", "processes"),
    ],
)
def test_limits_are_what_the_catalogue_says(field: str, leaf: str, catalogue: Catalogue) -> None:
    settings = settings_of(catalogue.tier("team"), catalogue.rules, stand_alone=False)

    assert asdict(settings.limits)[field] == catalogue.rules.leaf(f"limits.{leaf}").exact


def test_a_profile_without_scaling_gets_the_founding_bands(scaling: Scaling) -> None:
    assert (scaling.cpu.scale_up_ratio, scaling.cpu.scale_down_ratio) == (0.8, 0.3)
    assert (scaling.memory.scale_up_ratio, scaling.memory.scale_down_ratio) == (0.85, 0.4)
    assert (scaling.disk.scale_up_ratio, scaling.critical_ratio) == (0.9, 0.95)


def test_a_band_of_the_profile_replaces_that_of_its_resource_only(catalogue: Catalogue) -> None:
    policy = PolicyProfile(kind="resource", cpu=BandOverride(scale_up=60, scale_down=20))
    scaling = scaling_of(Profile(scaling=ScalingProfile(policies=[policy])), catalogue.rules)

    assert (scaling.cpu.scale_up_ratio, scaling.cpu.scale_down_ratio) == (0.6, 0.2)
    assert scaling.memory.scale_up_ratio == 0.85


def test_a_band_upside_down_is_refused_by_its_place(catalogue: Catalogue) -> None:
    policy = PolicyProfile(kind="resource", memory=BandOverride(scale_up=40, scale_down=40))

    with pytest.raises(InputError, match=r"scaling\.policies\.0\.memory: scale_down 40 must be below scale_up 40"):
        scaling_of(Profile(scaling=ScalingProfile(policies=[policy])), catalogue.rules)


def test_without_policies_the_forecast_decides(catalogue: Catalogue) -> None:
    assert [policy.kind for policy in scaling_of(Profile(), catalogue.rules).policies] == ["slo"]


def test_policies_stand_in_the_order_of_the_profile(catalogue: Catalogue) -> None:
    policies = [PolicyProfile(kind="pool"), PolicyProfile(kind="target", usage="70%")]

    scaling = scaling_of(Profile(scaling=ScalingProfile(policies=policies)), catalogue.rules)

    assert scaling.policies == (Policy("pool"), Policy("target", {"usage": "70%"}))


def test_damping_of_the_profile_replaces_what_it_names(catalogue: Catalogue, scaling: Scaling) -> None:
    given = ScalingProfile(interval="5s", scale_down=DampingProfile(stabilization_window="1m", max_replicas=1))
    changed = scaling_of(Profile(scaling=given), catalogue.rules)

    assert changed.interval_seconds == 5
    assert changed.scale_down == Damping(60, scaling.scale_down.cooldown_seconds, scaling.scale_down.max_percent, 1)
    assert changed.scale_up == scaling.scale_up


def test_a_stand_alone_environment_keeps_one_copy_and_has_no_failover(catalogue: Catalogue) -> None:
    settings = settings_of(catalogue.tier("enterprise"), catalogue.rules, stand_alone=True)

    assert (settings.replication_factor, settings.failover) == (1, None)
