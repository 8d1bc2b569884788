"""The inverse of sizing covers what was sized, and the next agent does not fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.inverse import Hardware, capacity, parse_hardware
from cfscale.core.sizing import size
from cfscale.core.workload import Profile
from cfscale.errors import InputError, RefusedError

CATALOGUE = load_catalogue()


@settings(max_examples=15)
@given(st.integers(0, 1500), st.integers(1, 15_000), st.integers(0, 30_000))
def test_the_hardware_of_a_plan_carries_its_load(users: int, agents: int, tasks: int) -> None:
    profile = Profile(users=users, agents=agents, tasks=tasks)
    plan = size(profile, CATALOGUE)
    hardware = Hardware(plan.cells * plan.nodes.count, plan.nodes.cpu_millicores, plan.nodes.memory_bytes)

    assert capacity(profile, CATALOGUE, hardware).agents >= agents


def test_the_next_agent_needs_more_machines() -> None:
    found = capacity(Profile(), CATALOGUE, parse_hardware("nodes=3,cpu=16,memory=64G"))

    assert found.machines <= 3
    assert found.next_machines is None or found.next_machines > 3


def test_hardware_too_small_for_one_agent_is_refused() -> None:
    with pytest.raises(RefusedError, match="not one agent"):
        capacity(Profile(), CATALOGUE, parse_hardware("nodes=1,cpu=1m,memory=1M"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nodes=3",
        "nodes=0,cpu=1,memory=1G",
        "nodes=3,cpu=-1,memory=1G",
        "nodes=3,cpu=nan,memory=1G",
        "nodes=1000000000000,cpu=1,memory=1G",
        "nodes=3,nodes=3,cpu=1,memory=1G",
    ],
)
def test_bad_hardware_is_named(text: str) -> None:
    with pytest.raises(InputError, match="--inverse"):
        parse_hardware(text)
