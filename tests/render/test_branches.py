"""Every branch of the Jinja templates is reached by a plan that somebody could have."""

from collections.abc import Mapping

import jinja2.defaults
import pytest

from cfscale.adapters.assets import load_catalogue, load_templates
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.workload import HealthOverride, Profile, ServiceOverride
from cfscale.render import compose, helm, swarm
from tests.branches import GO, JINJA, Language, marked, unreached
from tests.render.plans import TIERS, changed, plan_for
from tests.render.sized import sized

SHIPPED = load_templates()


def team(**services: ServiceOverride) -> DeploymentPlan:
    """A team's plan with what its profile says of services."""
    named = {name.replace("_", "-"): override for name, override in services.items()}
    return size(Profile("acme", users=10, agents=40, tasks=90, services=named), load_catalogue())


def tried(users: int) -> DeploymentPlan:
    """A plan of one replica each, for so many users."""
    return size(Profile("acme", environment="development", users=users, agents=20, tasks=20), load_catalogue())


FOREIGN = ServiceOverride(
    image="ghcr.io/acme/worker:1",
    routes=["/api"],
    sticky_header="X-Session",
    health=HealthOverride(kind="tcp"),
    command=["serve"],
)
PLANS: Mapping[str, DeploymentPlan] = {
    **{tier: sized(tier) for tier in TIERS},
    # written by hand, and in two cells
    "cells": plan_for("enterprise"),
    # development runs one of each, whatever the tier
    **{f"{users} who try it": tried(users) for users in (10, 50, 500)},
    "a balancer for one user": size(
        Profile("acme", users=1, agents=4, tasks=4, services={"loadbalancer": ServiceOverride()}), load_catalogue()
    ),
    "pools": team(agents_parallel=ServiceOverride(), agents_gpu=ServiceOverride()),
    "images of others": team(agents=FOREIGN, coordinator=ServiceOverride(image="node:22")),
    "no limits": changed(sized("team"), "agents", memory_limit_bytes=None, cpu_limit_millicores=None),
}


def test_every_branch_of_the_templates_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    copies, lines = dict(SHIPPED), dict[str, int]()
    for name in SHIPPED:
        if name.endswith(".j2"):
            copies[name], own = marked(name, SHIPPED[name], JINJA)
            lines |= own
    found: set[str] = set()
    monkeypatch.setitem(jinja2.defaults.DEFAULT_NAMESPACE, "reached", found.add)
    for plan in PLANS.values():
        compose.render(plan, copies)
        swarm.render(plan, copies)
    for name in ("images of others", "pools"):
        helm.render(PLANS[name], copies, {})
    same = compose.render(PLANS["team"], copies)

    assert unreached(lines, found) == []
    assert len(lines) > 150
    # a mark changes nothing but for telling where one was
    assert same == compose.render(PLANS["team"], SHIPPED)


@pytest.mark.parametrize(
    ("language", "text", "lines"),
    [
        (JINJA, "{% if a %}\nx\n{% elif b %}\ny\n{% endif %}\n{% for i in c %}z{% endfor %}", [1, 3, 5, 6]),
        (GO, '{{ define "n" }}\n{{- if a }}x{{ else if b }}y{{ else }}z{{ end }}\n{{ with c }}{{ end }}{{ end }}', [2, 2, 2, 3, 3]),
    ],
    ids=["jinja", "go"],
)  # fmt: skip
def test_the_empty_branch_of_a_condition_without_else_is_one_too(
    language: Language, text: str, lines: list[int]
) -> None:
    copy, found = marked("file", text, language)

    assert list(found.values()) == lines
    assert all(copy.count(language.mark.replace("NUMBER", mark)) == 1 for mark in found)
    assert unreached(found, set()) == [f"file:{line}" for line in lines]
