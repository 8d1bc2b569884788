"""Sensitivities: what one more unit of an input moves, and at which value of it the plan takes its next step.

The demand moves by closed forms, since the rules are linear between the tier tops; everything else moves in steps,
which are found exactly (see ``search``), upwards and downwards.
"""

from collections.abc import Callable, Hashable
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.nodes import memory_of
from cfscale.core.plan import DeploymentPlan
from cfscale.core.rules import cpu_curve, measured
from cfscale.core.search import DRIVERS, Line, machines, spare_of
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size
from cfscale.core.workload import MOST, Profile, parse_growth

SENSITIVITY_SCHEMA = "cfscale/sensitivity/v1"

STEPS: dict[str, Callable[[DeploymentPlan], str | int]] = {
    "tier": lambda plan: plan.tier,
    "cells": lambda plan: plan.cells,
    "nodes.count": machines,
    "nodes.shape": lambda plan: (
        f"{format_cpu(plan.nodes.cpu_millicores)} cores, {format_size(plan.nodes.memory_bytes)}"
    ),
    "totals.cpu_millicores": lambda plan: plan.totals.cpu_millicores,
    "totals.memory_bytes": lambda plan: plan.totals.memory_bytes,
}
_PLACES = ("tier", "cells")


class Rate(Struct, frozen=True):
    """How much one more unit of an input moves an amount.

    Of the demand it is the exact slope before rounding (within the tier and the cells); of everything else the difference
    that the very next unit makes. ``effect_ratio`` is the slope as percent for percent, None where it has no meaning.
    """

    input: str
    output: str
    per_unit: float
    effect_ratio: float | None


class Step(Struct, frozen=True):
    """The nearest value of an input at which an output differs; ``becomes`` is None where nothing can be planned there.

    ``direction`` is up or down; ``at`` is None where the output stays as it is up to and at ``searched_to``: the place of
    the next tier or number of cells, where there is one (beyond it look from there).
    """

    input: str
    output: str
    direction: str
    now: str | int
    at: int | None
    becomes: str | int | None
    searched_to: int


class Sensitivity(Struct, frozen=True):
    """The document: rates with the largest effect first, and the next steps of every input in both directions."""

    schema: str
    name: str
    tier: str
    cells: int
    users: int
    agents: int
    tasks: int
    rates: tuple[Rate, ...]
    steps: tuple[Step, ...]


def sensitivities(profile: Profile, catalogue: Catalogue) -> Sensitivity:
    """All sensitivities of the plan of a profile; raises what sizing it raises."""
    plan = size(profile, catalogue)
    given = {name: getattr(profile, name) for name in DRIVERS}
    rates: list[Rate] = []
    steps: list[Step] = []
    packed: dict[Hashable, DeploymentPlan] = {}
    for name, value in given.items():
        up, down = (
            replace(_line(profile, plan, name, catalogue, rising=rising), packed=packed) for rising in (True, False)
        )
        rates += _rates(up, name, plan, value)
        steps += _steps(up, name, plan, value) + _steps(down, name, plan, value)
    rates.sort(key=lambda rate: (-(rate.effect_ratio or 0), -abs(rate.per_unit)))
    return Sensitivity(
        SENSITIVITY_SCHEMA, plan.name, plan.tier, plan.cells, **given, rates=tuple(rates), steps=tuple(steps)
    )


class _InputLine(Line, frozen=True):
    """The plans at one input's values from the profile's on."""

    growth: Fraction = Fraction(1)


def _line(profile: Profile, plan: DeploymentPlan, name: str, catalogue: Catalogue, *, rising: bool) -> _InputLine:
    start: int = getattr(profile, name)
    sign = 1 if rising else -1

    def at(index: int) -> Profile | None:
        value = start + sign * index
        return replace(profile, **{name: value}) if 0 <= value <= MOST else None

    def guess(plan: DeploymentPlan, replicas: int) -> int:
        filled = replicas - spare_of(plan, catalogue) - (1 if rising else 0)
        return sign * (_filled_at(profile, catalogue, name, (plan, filled)) - start) + (1 if rising else 0)

    return _InputLine(catalogue, at, rising, guess, {0: plan}, growth=parse_growth(profile.growth))


def _filled_at(profile: Profile, catalogue: Catalogue, name: str, target: tuple[DeploymentPlan, int]) -> int:
    """About which value of an input fills this many replicas of the agents with memory; a guess for the search."""
    if name == "users":
        return 0
    (plan, replicas), leaf = target, catalogue.rules.leaf
    slopes = {
        "agents": leaf(catalogue.rules.agent_memory(plan.agent_class)).bytes,
        "tasks": leaf("sizing.task_memory").bytes,
    }
    room = plan.cells * replicas * memory_of(plan.service("agents")) * leaf("sizing.target_utilisation").exact
    other = "tasks" if name == "agents" else "agents"
    room /= parse_growth(profile.growth)
    return int((room - slopes[other] * getattr(profile, other)) // slopes[name])


def _steps(line: _InputLine, name: str, plan: DeploymentPlan, value: int) -> list[Step]:
    last = MOST - value if line.rising else value
    places = {view: line.next_change(STEPS[view], last, _edge(line, plan, (name, value), view)) for view in _PLACES}
    reach = min(last if index is None else index for index in places.values())
    found = []
    for output, view in STEPS.items():
        index = places[output] if output in places else line.next_step(view, 0, reach)
        found.append(_step(line, (name, output), index, (value, last if output in places else reach)))
    return found


def _step(line: _InputLine, names: tuple[str, str], index: int | None, span: tuple[int, int]) -> Step:
    (name, output), (value, reach), sign = names, span, 1 if line.rising else -1
    view, here = STEPS[output], line.at(0)
    there = None if index is None or here is None else line.along(index, here)
    at = None if index is None else value + sign * index
    return Step(
        name,
        output,
        "up" if line.rising else "down",
        "" if here is None else view(here),
        at,
        None if there is None else view(there),
        value + sign * reach,
    )


def _edge(line: _InputLine, plan: DeploymentPlan, given: tuple[str, int], view: str) -> int:
    """The index at which an input passes the top of a tier or of the cells; a guess for the search."""
    (name, value), tiers = given, line.catalogue.tiers
    index = [tier.name for tier in tiers].index(plan.tier)
    if view == "cells":
        top = tiers[-1].top(name) * (plan.cells if line.rising else plan.cells - 1)
    elif line.rising:
        top = 0 if index + 1 == len(tiers) else tiers[index].top(name)
    else:
        top = 0 if index == 0 else tiers[index - 1].top(name)
    edge = floor(top / line.growth)
    return edge + 1 - value if line.rising else value - edge


def _rates(line: _InputLine, name: str, plan: DeploymentPlan, value: int) -> list[Rate]:
    after = line.at(1) or plan
    cpu, memory = _slopes(line, name, plan)
    slopes = {"demand.cpu_millicores": cpu, "demand.memory_bytes": memory}
    bases = {"demand.cpu_millicores": plan.demand.cpu_millicores, "demand.memory_bytes": plan.demand.memory_bytes}
    rates = [Rate(name, key, float(slope), _effect(slope, value, bases[key])) for key, slope in slopes.items()]
    before, then = _amounts(plan), _amounts(after)
    return rates + [Rate(name, key, float(then[key] - amount), None) for key, amount in before.items()]


def _effect(slope: Fraction, value: int, base: int) -> float:
    """Percent of the base for one percent of the input."""
    return float(slope * value / base) if base else 0.0


def _amounts(plan: DeploymentPlan) -> dict[str, int]:
    """What moves in whole steps."""
    return {
        "totals.cpu_millicores": plan.totals.cpu_millicores,
        "totals.memory_bytes": plan.totals.memory_bytes,
        "totals.storage_bytes": plan.totals.storage_bytes,
        "nodes.count": machines(plan),
        **{f"services.{service.name}.replicas": plan.cells * service.replicas for service in plan.services},
    }


def _slopes(line: _InputLine, name: str, plan: DeploymentPlan) -> tuple[Fraction, Fraction]:
    """The exact right-hand slopes of the demand in millicores and bytes, in the tier and the cells of the plan."""
    catalogue, growth = line.catalogue, line.growth
    if name == "users" or not _carried(line, name, plan):
        return Fraction(0), Fraction(0)
    leaf = catalogue.rules.leaf
    memory = leaf("sizing.task_memory" if name == "tasks" else catalogue.rules.agent_memory(plan.agent_class)).bytes
    return growth * _cpu_slope(catalogue, name, Fraction(plan.admitted_agents, plan.cells)), growth * memory


def _carried(line: _InputLine, name: str, plan: DeploymentPlan) -> bool:
    """Whether more of the input is carried at all: an environment may cap the agents, an objective outweigh them."""
    after = line.at(ceil(1 / line.growth))
    return name != "agents" or after is None or after.admitted_agents > plan.admitted_agents


def _cpu_slope(catalogue: Catalogue, name: str, share: Fraction) -> Fraction:
    if measured(catalogue):
        return 1000 * catalogue.rules.leaf("sizing.task_cpu" if name == "tasks" else "sizing.agent_cpu").exact
    if name == "tasks":
        return Fraction(0)
    pieces = list(pairwise(cpu_curve(catalogue)))
    (x0, y0), (x1, y1) = next((piece for piece in pieces if share < piece[1][0]), pieces[-1])
    return Fraction(y1 - y0, x1 - x0)
