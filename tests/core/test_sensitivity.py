"""Sensitivities are exact: checked against a linear scan of real plans, and against differences of the demand."""

import os
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.plan import DeploymentPlan
from cfscale.core.search import first
from cfscale.core.sensitivity import STEPS, Sensitivity, sensitivities
from cfscale.core.sizing import recount, size
from cfscale.core.workload import Environment, Profile, Slo
from cfscale.errors import InputError, RefusedError

CATALOGUE = load_catalogue()
SCAN = 70


def planned(profile: Profile) -> DeploymentPlan | None:
    try:
        return size(profile, CATALOGUE)
    except (InputError, RefusedError):
        return None


def scanned(profile: Profile, name: str, output: str, sign: int) -> tuple[int, str | int | None] | None:
    """The first step of an output within reach of the profile, by looking at every value."""
    view, start = STEPS[output], getattr(profile, name)
    base = planned(profile)
    assert base is not None
    for value in range(start + sign, start + sign * (SCAN + 1), sign):
        if value < 0:
            return None
        plan = planned(replace(profile, **{name: value}))
        if plan is None or view(plan) != view(base):
            return value, None if plan is None else view(plan)
    return None


def check_against_scan(profile: Profile) -> None:
    found = sensitivities(profile, CATALOGUE)
    for step in found.steps:
        sign = 1 if step.direction == "up" else -1
        seen = scanned(profile, step.input, step.output, sign)
        if seen is not None:
            beyond = step.at is None and sign * seen[0] > sign * step.searched_to
            assert beyond or (step.at, step.becomes) == seen, step
        elif step.at is not None:
            assert abs(step.at - getattr(profile, step.input)) > SCAN, step


@settings(max_examples=40 if os.environ.get("CFSCALE_FULL") else 4)  # each scans hundreds of plans
@given(
    st.integers(0, 130),
    st.integers(0, 1100),
    st.integers(0, 2300),
    st.sampled_from(["development", "staging", "production"]),
    st.sampled_from(["1", "1.5", "0.3"]),
)
def test_no_value_before_a_step_differs(
    users: int, agents: int, tasks: int, environment: Environment, growth: str
) -> None:
    check_against_scan(Profile(users=users, agents=agents, tasks=tasks, environment=environment, growth=growth))


@pytest.mark.parametrize(
    ("users", "agents", "tasks"),
    [
        (5, 50, 100),
        (6, 51, 101),
        (25, 250, 500),
        (100, 1000, 2000),
        (1000, 10_000, 20_000),
        (1001, 10_001, 20_001),
        (990, 3990, 8000),
        (0, 0, 0),
    ],
)
def test_steps_are_exact_at_the_tier_edges(users: int, agents: int, tasks: int) -> None:
    check_against_scan(Profile(users=users, agents=agents, tasks=tasks))


def step(found: Sensitivity, name: str, output: str, direction: str) -> tuple[int | None, str | int | None]:
    item = next(s for s in found.steps if (s.input, s.output, s.direction) == (name, output, direction))
    return item.at, item.becomes


def rate(found: Sensitivity, name: str, output: str) -> float:
    return next(r.per_unit for r in found.rates if (r.input, r.output) == (name, output))


def test_the_next_tier_is_one_unit_past_the_top() -> None:
    found = sensitivities(Profile(users=40, agents=400, tasks=800), CATALOGUE)

    assert step(found, "users", "tier", "up") == (101, "enterprise")
    assert step(found, "agents", "tier", "up") == (1001, "enterprise")
    assert step(found, "agents", "tier", "down") == (None, None)
    assert step(found, "agents", "cells", "up") == (10_001, 2)


def test_a_tier_that_was_asked_for_ends_in_no_plan() -> None:
    found = sensitivities(Profile(users=20, agents=200, tasks=400, tier="team"), CATALOGUE)

    assert step(found, "agents", "tier", "up") == (251, None)


@given(st.integers(0, 100), st.integers(0, 12_000), st.integers(0, 20_000))
@settings(max_examples=15)
def test_the_slope_of_memory_is_the_leaf(users: int, agents: int, tasks: int) -> None:
    found = sensitivities(Profile(users=users, agents=agents, tasks=tasks), CATALOGUE)

    assert rate(found, "agents", "demand.memory_bytes") == float(Fraction(5, 100) * 2**30)
    assert rate(found, "tasks", "demand.memory_bytes") == float(Fraction(1, 100) * 2**30)
    assert rate(found, "users", "demand.memory_bytes") == 0


@pytest.mark.parametrize(
    ("agents", "slope"), [(0, 20), (49, 20), (50, 30), (250, 32), (1000, 32 / 3), (10_000, 32 / 3)]
)
def test_the_slope_of_cpu_is_the_one_to_the_right(agents: int, slope: float) -> None:
    found = sensitivities(Profile(users=1, agents=agents, tasks=0), CATALOGUE)

    assert rate(found, "agents", "demand.cpu_millicores") == pytest.approx(slope)


def test_growth_scales_the_slope() -> None:
    found = sensitivities(Profile(users=1, agents=100, tasks=0, growth="1.5"), CATALOGUE)

    assert rate(found, "agents", "demand.cpu_millicores") == 45


def test_agents_that_are_not_admitted_move_nothing() -> None:
    found = sensitivities(Profile(users=1, agents=50, tasks=10, environment="development"), CATALOGUE)

    assert rate(found, "agents", "demand.memory_bytes") == 0


def test_declared_agents_below_the_objective_move_nothing() -> None:
    slo = Slo(task_rate_per_second=10, task_seconds=20, wait_probability=0.2)

    found = sensitivities(Profile(users=1, agents=50, tasks=10, slo=slo), CATALOGUE)

    assert rate(found, "agents", "demand.memory_bytes") == 0


def test_the_largest_effect_comes_first() -> None:
    effects = [
        rate.effect_ratio or 0 for rate in sensitivities(Profile(users=9, agents=90, tasks=180), CATALOGUE).rates
    ]

    assert effects == sorted(effects, reverse=True)


@given(st.integers(1, 500), st.integers(0, 600))
def test_a_guess_decides_nothing(turn: int, guess: int) -> None:
    assert first(lambda value: value >= turn, 0, 400, guess) == (turn if turn <= 400 else None)


@settings(max_examples=60)
@given(
    st.integers(0, 1500),
    st.integers(0, 15_000),
    st.integers(0, 30_000),
    st.integers(0, 15_000),
    st.sampled_from([None, "0.4"]),
)
def test_replicas_counted_again_are_those_of_the_whole_plan(
    users: int, agents: int, tasks: int, other: int, sustained: str | None
) -> None:
    profile = Profile(users=users, agents=agents, tasks=tasks, sustained=sustained)
    changed = replace(profile, agents=other)
    base, plan = size(profile, CATALOGUE), size(changed, CATALOGUE)

    counts = recount(changed, CATALOGUE, base)

    same = (base.tier, base.cells) == (plan.tier, plan.cells)
    assert counts == (tuple(service.replicas for service in plan.services) if same else None)
