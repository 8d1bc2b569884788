"""The catalogue's leaves in base units, and the choice of a tier by name."""

from fractions import Fraction

import pytest

from cfscale.core.rules import cpu_at
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue, Leaf
from cfscale.core.workload import Profile, ServiceOverride
from cfscale.errors import InputError, RefusedError


def test_a_word_is_no_number() -> None:
    with pytest.raises(TypeError, match="'SSD' \\(founding:115\\) is not a number"):
        _ = Leaf(unit="word", source="founding:115", value="SSD").exact


@pytest.mark.parametrize(
    ("leaf", "attribute", "value"),
    [
        (Leaf(unit="GiB", source="design", value=0.5), "bytes", 2**29),
        (Leaf(unit="min", source="design", value=1.5), "seconds", 90),
        (Leaf(unit="percent", source="design", value=85), "ratio", 0.85),
        (Leaf(unit="ratio", source="design", value=0.85), "ratio", 0.85),
        (Leaf(unit="cores", source="design", value=0.25), "millicores", 250),
    ],
)
def test_a_leaf_is_read_in_base_units(leaf: Leaf, attribute: str, value: float) -> None:
    assert getattr(leaf, attribute) == value


@pytest.mark.parametrize("path", ["scaling.nothing", "sizing.base_memory.value.deeper"])
def test_a_leaf_that_is_not_there_is_named(path: str, catalogue: Catalogue) -> None:
    with pytest.raises(KeyError):
        catalogue.rules.leaf(path)


def test_a_tier_that_is_not_there_is_refused_with_those_that_are(catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match="no tier is called 'huge': choose auto, single-user, team, department"):
        catalogue.tier("huge")


def test_a_named_tier_that_does_not_hold_the_workload_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(RefusedError, match=r"tier team cannot hold 26 users \(at most 25\)"):
        size(Profile(users=26, agents=1, tasks=1, tier="team"), catalogue)


def test_a_named_tier_may_be_larger_than_needed(catalogue: Catalogue) -> None:
    assert size(Profile(users=1, agents=1, tasks=1, tier="department"), catalogue).tier == "department"


def test_the_cpu_curve_is_not_extrapolated(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match="more than a cell holds"):
        cpu_at(catalogue, Fraction(10_001))


def test_a_service_is_found_by_its_name_only(catalogue: Catalogue) -> None:
    plan = size(Profile(users=1, agents=1, tasks=1), catalogue)

    assert plan.service("queue").name == "queue"
    with pytest.raises(KeyError):
        plan.service("queues")


@pytest.mark.parametrize(
    ("grace", "message"),
    [("11y", "longer than ten years"), ("soon", r"services\.agents\.stop_grace: 'soon' is not a duration")],
)
def test_a_duration_that_no_timer_can_carry_is_refused(grace: str, message: str, catalogue: Catalogue) -> None:
    profile = Profile(users=1, agents=1, tasks=1, services={"agents": ServiceOverride(stop_grace=grace)})

    with pytest.raises(InputError, match=message):
        size(profile, catalogue)
