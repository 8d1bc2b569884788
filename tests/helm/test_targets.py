"""One plan, three targets: what each says is what the plan says, but for what its table of losses lists."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_templates
from cfscale.core import composeloss
from cfscale.core import swarm as swarmloss
from cfscale.core.losses import Loss
from cfscale.core.plan import DeploymentPlan
from cfscale.core.workload import HealthOverride, ResourceOverride, ServiceOverride
from cfscale.render import compose, swarm
from cfscale.render.helm import losses as helm_losses
from tests.helm.lab import PLANS, TIERS, chart, manifests, plan_of
from tests.helm.neutral import Facts, charted, composed, planned

pytestmark = pytest.mark.helm
TEMPLATES = load_templates()
# what a line of a table of losses stands for; a line that is not here is about no fact that a manifest states
FACTS: Mapping[str, Sequence[str]] = {
    "ports": ("publish",),
    "publish": ("publish",),
    "image": ("image",),
    "image, port": ("image",),
    "cpu_limit": ("cpu_limit",),
    "memory_request": ("memory_request",),
    "replicas": ("replicas",),
    "reads of the database": ("endpoints",),
    "storage": ("storage",),
    "healthcheck": ("health",),
    "health": ("health", "rise"),
    "health, stop_grace": ("health", "stop_grace"),
    "health.rise": ("rise",),
    "health.json": ("body",),
    "health.status, health.json": ("status", "body"),
    # of the deployment
    "metrics and their retention": ("retention",),
    "profiles": ("retention",),
}
AGENTS = ServiceOverride(
    routes=["/", "/api"],
    sticky_header="X-Session",
    command=["serve", "$HOME {{ x }}"],
    env={"LEVEL": "7", "NODE_OPTIONS": "--trace-warnings"},
    port=4000,
    stop_grace="1500ms",
    resources=ResourceOverride(cpu="1.5", memory="3G"),
    health=HealthOverride(
        path="/ready", status=204, json={"ok": "true"}, interval="2500ms", start_period="15s", rise=1
    ),
)
VARIANTS: Mapping[str, DeploymentPlan] = {
    **{tier: PLANS[tier] for tier in TIERS},
    "pools": plan_of(10, 60, 90, services={"agents-parallel": ServiceOverride(), "agents-gpu": ServiceOverride()}),
    "told": plan_of(10, 60, 90, services={"agents": AGENTS, "queue": ServiceOverride(stop_grace="20s")}),
    "tried": plan_of(50, 20, 20, environment="development"),
    "cells": plan_of(1500, 5000, 9000),
}


def differences(plan: DeploymentPlan, found: Facts) -> set[tuple[str, str]]:
    """(service, fact) of all that a target says otherwise than the plan; one that is not there says no count."""
    wanted = planned(plan)
    assert found.keys() <= wanted.keys()
    differing = {(name, "replicas") for name in wanted.keys() - found.keys()}
    for name in found:
        both = wanted[name].keys() | found[name].keys()
        differing |= {(name, fact) for fact in both if wanted[name].get(fact) != found[name].get(fact)}
    return differing


def require_listed(plan: DeploymentPlan, found: Facts, losses: Sequence[Loss]) -> None:
    """Every difference has its line, and every line that is about a fact has its difference."""
    lines = [({(name, fact) for name in loss.services or ("",) for fact in FACTS[loss.field]}, loss) for loss in losses if loss.field in FACTS]  # fmt: skip
    differing = differences(plan, found)

    assert differing - {one for covered, _ in lines for one in covered} == set()
    for covered, loss in lines:
        for name in loss.services or ("",):
            assert any(where == name for where, _ in covered & differing), loss.line()


@pytest.mark.parametrize("name", VARIANTS)
def test_all_targets_say_what_the_plan_says_but_for_their_printed_losses(name: str, tmp_path: Path) -> None:
    require_same(VARIANTS[name], tmp_path)


def require_same(plan: DeploymentPlan, folder: Path) -> None:
    """All three say what the plan says, or list it."""
    objects = manifests(chart(folder, plan), "--set=monitoring.prometheus.enabled=true")

    require_listed(plan, composed(compose.render(plan, TEMPLATES)), composeloss.losses(plan))
    require_listed(plan, composed(swarm.render(plan, TEMPLATES)), swarmloss.losses(plan))
    require_listed(plan, charted(objects), helm_losses(plan))


def test_a_fact_that_one_target_has_otherwise_is_noticed_and_so_is_a_line_too_many() -> None:
    plan = PLANS["team"]
    files, lines = compose.render(plan, TEMPLATES), composeloss.losses(plan)
    more = {**files, "compose.yaml": files["compose.yaml"].replace("replicas: 12", "replicas: 13")}
    other = {**files, "config/haproxy.cfg": files["config/haproxy.cfg"].replace("balance leastconn", "balance first")}
    for changed in (more, other):
        with pytest.raises(AssertionError):
            require_listed(plan, composed(changed), lines)
    with pytest.raises(AssertionError):
        require_listed(plan, composed(files), (*lines, Loss("compose", ("agents",), "publish", "", "", "")))
    with pytest.raises(AssertionError):
        require_listed(plan, composed(files), [line for line in lines if line.field != "storage"])


SERVICES = st.builds(
    ServiceOverride,
    command=st.none() | st.lists(st.text("ab $'\"{}:#", max_size=8), max_size=3),
    env=st.none() | st.dictionaries(st.sampled_from(["A", "NODE_OPTIONS", "CFN_LOG_LEVEL"]), st.text(max_size=8)),
    stop_grace=st.none() | st.sampled_from(["1s", "2500ms", "2m"]),
    sticky_header=st.none() | st.just("X-Session"),
    port=st.none() | st.integers(1024, 65_535),
    health=st.none()
    | st.builds(
        HealthOverride,
        rise=st.none() | st.integers(1, 4),
        fall=st.none() | st.integers(1, 4),
        status=st.sampled_from([None, 204]),
        interval=st.sampled_from([None, "1s", "1500ms"]),
        start_period=st.sampled_from([None, "0s", "7s"]),
    ),
)


@pytest.mark.matrix
@settings(max_examples=40, phases=[Phase.generate])  # an example takes a second: shrinking would take minutes
@given(
    users=st.integers(1, 1200),
    agents=st.integers(1, 11_000),
    environment=st.sampled_from(["development", "staging", "production"]),
    services=st.dictionaries(st.sampled_from(["agents", "agents-gpu", "coordinator"]), SERVICES),
)
def test_any_plan_is_the_same_plan_on_all_targets(
    users: int, agents: int, environment: str, services: dict[str, ServiceOverride]
) -> None:
    plan = plan_of(users, agents, agents, environment=environment, services=services)
    with TemporaryDirectory() as folder:
        require_same(plan, Path(folder))
