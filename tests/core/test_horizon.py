"""Each event of the horizon is the first day on which the plan differs, by looking at every day."""

from datetime import date

import pytest

from cfscale.adapters.assets import load_catalogue
from cfscale.core.horizon import _fields, horizon, load_at, parse_rate
from cfscale.core.search import loaded
from cfscale.core.sizing import size
from cfscale.core.workload import Profile
from cfscale.errors import InputError

CATALOGUE = load_catalogue()


def test_every_event_is_found_and_none_else() -> None:
    profile, rate = Profile(users=20, agents=200, tasks=400), parse_rate("100%/month")
    found = [event.days for event in horizon(profile, CATALOGUE, rate, date(2026, 11, 24)).events if event.days <= 120]
    loads = [load_at(profile, rate, day) for day in range(121)]
    seen = [_fields(size(loaded(profile, load), CATALOGUE)) for load in loads if load is not None]

    assert found == [day for day in range(1, 121) if seen[day] != seen[day - 1]]


@pytest.mark.parametrize("text", ["", "0%/month", "-100%/month", "8%", "8/month", "nan%/month", "1001%/month"])
def test_a_bad_rate_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--growth-rate"):
        parse_rate(text)
