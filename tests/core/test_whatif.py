"""What-if changes are exact, and bad ones are named."""

import pytest

from cfscale.adapters.assets import load_catalogue
from cfscale.core.sizing import size
from cfscale.core.whatif import differences, with_changes
from cfscale.core.workload import Profile
from cfscale.errors import InputError

CATALOGUE = load_catalogue()
PROFILE = Profile(users=40, agents=401, tasks=800)


def test_values_are_absolute_added_or_percentages_rounded_up() -> None:
    changed = with_changes(PROFILE, "users=-10, agents=+50%, tasks=7")

    assert (changed.users, changed.agents, changed.tasks) == (30, 602, 7)


def test_equal_plans_do_not_differ() -> None:
    assert differences(size(PROFILE, CATALOGUE), size(with_changes(PROFILE, "agents=401"), CATALOGUE)) == ()


def test_a_tier_that_changes_is_shown() -> None:
    found = differences(size(PROFILE, CATALOGUE), size(with_changes(PROFILE, "agents=2000"), CATALOGUE))

    assert next((item.base, item.what_if) for item in found if item.field == "tier") == ("department", "enterprise")


@pytest.mark.parametrize(
    "text", ["", "agents", "agents=", "agent=1", "agents=1,agents=2", "agents=-402", "agents=nan", "environment=x"]
)
def test_a_bad_change_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--what-if"):
        with_changes(PROFILE, text)
