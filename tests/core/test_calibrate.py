"""Calibration against known truths."""

import random
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.calibrate import Observation, calibrated
from cfscale.core.coefficients import COEFFICIENTS_SCHEMA, Cited, Coefficient, Coefficients, with_coefficients
from cfscale.core.sizing import size
from cfscale.core.units import GIB
from cfscale.core.workload import Profile
from cfscale.errors import UnavailableError

CATALOGUE = load_catalogue()
TRUTH = {"base": 1.5, "agent": 0.12, "task": 0.004}  # GiB


def sample(rng: random.Random, *, noise: float = 0.3, agents: int | None = None) -> Observation:
    count = rng.randint(10, 300) if agents is None else agents
    tasks = rng.randint(0, 600) if agents is None else 2 * agents
    memory = TRUTH["base"] + TRUTH["agent"] * count + TRUTH["task"] * tasks + rng.gauss(0, noise)
    cpu = 0.5 + 0.02 * count + 0.001 * tasks + rng.gauss(0, noise / 10)
    return Observation(count, tasks, max(0, round(memory * GIB)), max(0, round(cpu * 1000)))


def fitted(observations: list[Observation]) -> dict[str, Coefficient]:
    document = calibrated(observations, CATALOGUE, "process", "test")
    return {item.name: item for item in document.coefficients}


def test_data_move_the_founding_coefficients_to_the_truth() -> None:
    rng = random.Random(1)
    found = fitted([sample(rng) for _ in range(2000)])

    assert found["sizing.agent_memory"].prior == 0.05
    assert found["sizing.agent_memory"].posterior == pytest.approx(0.12, rel=0.01)
    assert found["sizing.task_memory"].posterior == pytest.approx(0.004, rel=0.1)
    assert found["sizing.agent_cpu"].posterior == pytest.approx(0.02, rel=0.02)
    assert found["sizing.agent_memory"].data_ratio > 0.99


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(2)
    held = 0
    for _ in range(200):
        item = fitted([sample(rng) for _ in range(120)])["sizing.agent_memory"]
        held += item.low <= TRUTH["agent"] <= item.high

    # 95 % of 200 are 190; fewer than 180 would happen by chance once in a thousand
    assert held >= round(200 * 0.95 - NormalDist().inv_cdf(0.999) * (200 * 0.95 * 0.05) ** 0.5)


def test_more_data_weigh_more() -> None:
    rng = random.Random(3)
    observations = [sample(rng, noise=20) for _ in range(5000)]
    few, many = fitted(observations[:100]), fitted(observations)

    for name in ("sizing.base_memory", "sizing.agent_memory", "sizing.task_memory"):
        assert few[name].data_ratio < many[name].data_ratio
        assert few[name].high - few[name].low > many[name].high - many[name].low


def test_agents_and_tasks_that_never_move_apart_keep_their_founding_share() -> None:
    """One load only: the sum is known, its parts are not."""
    rng = random.Random(4)
    found = fitted([sample(rng, agents=200) for _ in range(500)])
    total = sum(
        found[name].posterior * amount
        for name, amount in (("sizing.base_memory", 1), ("sizing.agent_memory", 200), ("sizing.task_memory", 400))
    )

    assert total == pytest.approx(1.5 + 0.12 * 200 + 0.004 * 400, rel=0.02)
    assert found["sizing.base_memory"].data_ratio < 0.2
    assert found["sizing.base_memory"].high - found["sizing.base_memory"].low > 1


def test_what_was_measured_without_the_base_leaves_the_base_alone() -> None:
    rng = random.Random(5)
    rows = [Observation(n, 2 * n, n * GIB // 10, 20 * n, base=False) for n in (rng.randint(1, 90) for _ in range(200))]
    base = fitted(rows)["sizing.base_memory"]

    assert (base.posterior, base.data_ratio) == (base.prior, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            Observation,
            agents=st.integers(0, 10**6),
            tasks=st.integers(0, 10**6),
            memory_bytes=st.integers(0, 2**50),
            cpu_millicores=st.integers(0, 10**9),
        ),
        min_size=100,
        max_size=120,
    )
)
def test_no_data_give_a_negative_coefficient(rows: list[Observation]) -> None:
    try:
        document = calibrated(rows, CATALOGUE, "process", "test")
    except UnavailableError as error:
        assert "an agent would take no memory" in str(error)  # noqa: PT017 - either is right
        return
    for item in document.coefficients:
        assert 0 <= item.low <= item.posterior <= item.high
        assert 0 <= item.data_ratio <= 1


def test_too_few_observations_are_refused() -> None:
    with pytest.raises(UnavailableError, match="99 observations, fewer than 100: sample for longer"):
        calibrated([Observation(1, 1, GIB, 1000)] * 99, CATALOGUE, "process", "test")


def test_data_in_which_agents_take_nothing_are_refused() -> None:
    rows = [Observation(n, 0, (500 - n) * GIB, 1000) for n in range(1, 201)]

    with pytest.raises(UnavailableError, match="an agent would take no memory"):
        calibrated(rows, CATALOGUE, "process", "test")


def coefficients(**values: float) -> Coefficients:
    units = {"base_memory": "GiB", "agent_memory": "GiB", "task_memory": "GiB"}
    given = {"base_memory": 1.0, "agent_memory": 0.2, "task_memory": 0.02}
    given |= {"cpu_intercept": 0.5, "agent_cpu": 0.01, "task_cpu": 0.002} | values
    rows = (
        Coefficient(f"sizing.{name}", units.get(name, "cores"), 1, 1, value, 0, 9, 1) for name, value in given.items()
    )
    return Coefficients(COEFFICIENTS_SCHEMA, "test", 100, 0.95, tuple(rows))


def test_a_plan_by_coefficients_uses_and_cites_them() -> None:
    catalogue = with_coefficients(CATALOGUE, Cited("mine.json", coefficients()))
    plan = size(Profile(users=40, agents=400, tasks=800, agent_class="container"), catalogue)
    sources = {entry.rule: entry.source for entry in plan.ledger}

    assert plan.demand.memory_bytes == 97 * GIB  # 1 + 0.2 x 400 + 0.02 x 800
    assert plan.demand.cpu_millicores == 6100  # 0.5 + 0.01 x 400 + 0.002 x 800
    assert sources["memory.demand"] == "calibration:mine.json"
    assert sources["cpu.measured"] == "calibration:mine.json"
    assert plan.totals.memory_bytes >= plan.demand.memory_bytes
    assert plan.totals.cpu_millicores >= plan.demand.cpu_millicores
