"""Deviations of a deployment from a plan: a rendered plan has none, and one changed number is exactly one."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cfscale.adapters.assets import load_templates
from cfscale.adapters.deployed import read_deployed
from cfscale.core.deviation import TOTAL, Deployed, Deviation, Tolerance, Verdict, compare
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Environment, Profile
from cfscale.render.compose import render
from cfscale.render.families import health_command

TENTH = Tolerance(Fraction(1, 10), Fraction(1, 10))
# users, agents and tasks that fall into each tier, the largest past its edge as well
RANGES = {
    "single-user": (5, 50, 100),
    "team": (20, 200, 500),
    "department": (100, 500, 2000),
    "enterprise": (2000, 4000, 9000),
}
AMOUNTS = {
    "cpu_limit_millicores": "cpu_limit",
    "memory_limit_bytes": "memory_limit",
    "cpu_request_millicores": "cpu_request",
    "memory_request_bytes": "memory_request",
    "stop_grace_milliseconds": "stop_grace",
}


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    most = RANGES[draw(st.sampled_from(sorted(RANGES)))]
    users, agents, tasks = (draw(st.integers(1, limit)) for limit in most)
    environment: Environment = draw(st.sampled_from(("development", "staging", "production")))
    return Profile(users=users, agents=agents, tasks=tasks, environment=environment)


@pytest.fixture(scope="session")
def templates() -> Mapping[str, str]:
    return load_templates()


def deployed_as_rendered(plan: DeploymentPlan, templates: Mapping[str, str]) -> tuple[Deployed, ...]:
    with TemporaryDirectory() as folder:
        (Path(folder) / "compose.yaml").write_text(render(plan, templates)["compose.yaml"])
        return read_deployed(Path(folder))[0]


def found(plan: DeploymentPlan, deployed: tuple[Deployed, ...]) -> tuple[Deviation, ...]:
    checked = {service.name for service in plan.services if health_command(service) is not None}
    return compare(plan, deployed, TENTH, checked)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(profile=profiles())
def test_a_rendered_plan_does_not_deviate_from_itself(
    profile: Profile, catalogue: Catalogue, templates: Mapping[str, str]
) -> None:
    plan = size(profile, catalogue)

    assert found(plan, deployed_as_rendered(plan, templates)) == ()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(profile=profiles(), data=st.data())
def test_one_changed_amount_is_exactly_that_deviation(
    profile: Profile, data: st.DataObject, catalogue: Catalogue, templates: Mapping[str, str]
) -> None:
    plan = size(profile, catalogue)
    deployed = list(deployed_as_rendered(plan, templates))
    index = data.draw(st.integers(0, len(deployed) - 1))
    part = deployed[index]
    name = data.draw(st.sampled_from([name for name in AMOUNTS if getattr(part, name) is not None]))
    factor, verdict = data.draw(st.sampled_from([(Fraction(1, 2), Verdict.UNDER), (Fraction(2), Verdict.OVER)]))
    deployed[index] = replace(part, **{name: int(getattr(part, name) * factor)})

    own = [item for item in found(plan, tuple(deployed)) if item.service != TOTAL]

    assert [(item.service, item.verdict, item.rule) for item in own] == [
        (part.name, verdict, f"{part.part_of}.{AMOUNTS[name]}")
    ]


@pytest.fixture
def plan(catalogue: Catalogue) -> DeploymentPlan:
    return size(Profile(users=40, agents=400, tasks=800), catalogue)


@pytest.fixture
def deployed(plan: DeploymentPlan, templates: Mapping[str, str]) -> dict[str, Deployed]:
    return {part.name: part for part in deployed_as_rendered(plan, templates)}


def changed(deployed: dict[str, Deployed], name: str, **values: object) -> tuple[Deployed, ...]:
    return tuple({**deployed, name: replace(deployed[name], **values)}.values())


@pytest.mark.parametrize(
    ("share", "verdicts"),
    [
        (Fraction(90, 100), []),
        (Fraction(89, 100), [Verdict.UNDER]),
        (Fraction(110, 100), []),
        (Fraction(111, 100), [Verdict.OVER]),
    ],
    ids=["just-in-below", "under", "just-in-above", "over"],
)
def test_an_amount_may_lie_within_the_tolerance(
    plan: DeploymentPlan, deployed: dict[str, Deployed], share: Fraction, verdicts: list[Verdict]
) -> None:
    parts = changed(deployed, "coordinator", cpu_limit_millicores=int(2000 * share))

    assert [item.verdict for item in found(plan, parts)] == verdicts


@pytest.mark.parametrize("bound", ["min_replicas", "max_replicas"])
def test_a_count_that_may_move_may_stand_at_either_bound_and_not_past_it(
    plan: DeploymentPlan, deployed: dict[str, Deployed], bound: str
) -> None:
    limit, step = getattr(plan.service("agents"), bound), -1 if bound == "min_replicas" else 1

    at = [item for item in found(plan, changed(deployed, "agents", replicas=limit)) if item.service != TOTAL]
    past = [item for item in found(plan, changed(deployed, "agents", replicas=limit + step)) if item.service != TOTAL]

    assert (at, [item.rule for item in past]) == ([], [f"agents.{bound}"])


def test_the_parts_of_a_split_service_are_counted_together(plan: DeploymentPlan, deployed: dict[str, Deployed]) -> None:
    assert sum(deployed[f"queue-{number}"].replicas for number in (1, 2, 3)) == 3

    (item,) = found(plan, changed(deployed, "queue-3", replicas=0))

    assert (item.service, item.planned, item.deployed, item.rule) == ("queue", 3, 2, "queue.replicas")


def test_too_little_in_all_is_held_against_demand(plan: DeploymentPlan, deployed: dict[str, Deployed]) -> None:
    items = found(plan, changed(changed_all(deployed), "agents", replicas=1))

    assert {(TOTAL, "cpu", "cpu.demand"), (TOTAL, "memory", "memory.demand")} <= {
        (item.service, item.what, item.rule) for item in items
    }


def changed_all(deployed: dict[str, Deployed]) -> dict[str, Deployed]:
    """All but the coordinators with next to no memory."""
    small = {
        name: replace(part, memory_limit_bytes=2**20, memory_request_bytes=2**20) for name, part in deployed.items()
    }
    return {**small, "coordinator": deployed["coordinator"]}


def test_a_missing_service_is_named_with_its_rule(plan: DeploymentPlan, deployed: dict[str, Deployed]) -> None:
    items = found(plan, tuple(part for part in deployed.values() if part.name != "loadbalancer"))

    assert [(item.service, item.verdict, item.rule) for item in items] == [
        ("loadbalancer", Verdict.MISSING, "loadbalancer.replicas")
    ]


@pytest.mark.parametrize(
    ("values", "verdict", "rule"),
    [
        ({"memory_limit_bytes": None}, Verdict.UNLIMITED, "coordinator.memory_limit"),
        ({"cpu_limit_millicores": None}, Verdict.UNLIMITED, "coordinator.cpu_limit"),
        ({"image": "cfscale/coordinator:1"}, Verdict.DIFFERS, "coordinator.image"),
        ({"ports": ("0.0.0.0:80->3000",)}, Verdict.DIFFERS, "coordinator.publish"),
        ({"checked": False}, Verdict.MISSING, "coordinator.health.interval"),
        ({"unknown": {"replicas": "${N}"}}, Verdict.UNKNOWN, "coordinator.replicas"),
        ({"unknown": {"image": "${I}"}}, Verdict.UNKNOWN, "coordinator.image"),
        ({"unknown": {"memory_limit_bytes": "${M}"}}, Verdict.UNKNOWN, "coordinator.memory_limit"),
    ],
    ids=[
        "no-memory-limit",
        "no-cpu-limit",
        "image",
        "ports",
        "no-check",
        "count-hidden",
        "image-hidden",
        "limit-hidden",
    ],
)
def test_what_differs_is_named_with_its_rule(
    plan: DeploymentPlan, deployed: dict[str, Deployed], values: dict[str, object], verdict: Verdict, rule: str
) -> None:
    items = found(plan, changed(deployed, "coordinator", **values))

    assert [(item.verdict, item.rule) for item in items] == [(verdict, rule)]


def test_a_limit_counts_as_the_reservation_that_is_not_stated(
    plan: DeploymentPlan, deployed: dict[str, Deployed]
) -> None:
    assert found(plan, changed(deployed, "agents", memory_request_bytes=None)) == ()


def test_a_limit_where_none_is_planned_is_too_little(plan: DeploymentPlan, deployed: dict[str, Deployed]) -> None:
    free = replace(
        plan, services=tuple(replace(s, cpu_limit_millicores=None) if s.name == "agents" else s for s in plan.services)
    )

    assert [(item.verdict, item.rule) for item in found(free, tuple(deployed.values()))] == [
        (Verdict.UNDER, "agents.cpu_limit")
    ]


def test_what_the_plan_does_not_know_is_no_deviation(plan: DeploymentPlan, deployed: dict[str, Deployed]) -> None:
    assert found(plan, (*deployed.values(), Deployed(name="grafana", part_of="grafana"))) == ()
