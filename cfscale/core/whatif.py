"""What-if: a profile with some values changed, and the two plans side by side."""

import re
from difflib import get_close_matches
from fractions import Fraction
from math import ceil

import msgspec
from msgspec import Struct

from cfscale.core.plan import DeploymentPlan
from cfscale.core.search import DRIVERS, machines
from cfscale.core.units import format_cpu, format_size
from cfscale.core.workload import Profile
from cfscale.errors import InputError

WHAT_IF_SCHEMA = "cfscale/what-if/v1"
KEYS = (*DRIVERS, "growth", "environment", "tier", "agent_class", "sustained")
_MOVED = re.compile(r"([+-]?)([0-9]{1,10}(?:\.[0-9]{1,6})?)(%?)", re.ASCII)


class Difference(Struct, frozen=True):
    """One field that the change moves; ``change_ratio`` is None where a word changed or nothing was there."""

    field: str
    base: str | int
    what_if: str | int
    change_ratio: float | None


class WhatIf(Struct, frozen=True):
    """The document: what differs, and both whole plans."""

    schema: str
    changes: tuple[Difference, ...]
    base: DeploymentPlan
    what_if: DeploymentPlan


def with_changes(profile: Profile, text: str) -> Profile:
    """The profile with ``agents=2000,tasks=+50%`` laid over it; raises InputError naming what is wrong."""
    seen: set[str] = set()
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(KEYS)}"
            raise InputError(f"--what-if '{text}': nothing is called '{key}': {remedy}")
        if not equals or not value or key in seen:
            raise InputError(f"--what-if '{text}': give {key} one value, once, such as agents=2000,tasks=+50%")
        seen.add(key)
        profile = _with(profile, key, value)
    return profile


def _with(profile: Profile, key: str, value: str) -> Profile:
    typed: object = _moved(key, value, getattr(profile, key)) if key in DRIVERS else value
    field = next(field for field in msgspec.structs.fields(Profile) if field.name == key)
    try:
        typed = msgspec.convert(typed, field.type)
    except msgspec.ValidationError as error:
        raise InputError(f"--what-if {key}={value}: {error}: give another value") from error
    return msgspec.structs.replace(profile, **{key: typed})


def _moved(key: str, value: str, now: int | None) -> int:
    match = _MOVED.fullmatch(value)
    if match is None or (match[3] and not match[1]) or (not match[3] and "." in match[2]):
        raise InputError(f"--what-if {key}={value}: write a whole number, +N, -N, +P% or -P%")
    sign, amount = -1 if match[1] == "-" else 1, Fraction(match[2])
    base = (now or 0) if match[1] else 0
    moved = ceil(base + sign * (base * amount / 100 if match[3] else amount))
    if moved < 0:
        raise InputError(f"--what-if {key}={value}: that is less than none of {base}: take away at most {base}")
    return moved


def differences(base: DeploymentPlan, what_if: DeploymentPlan) -> tuple[Difference, ...]:
    """The fields that differ between two plans."""
    old, new = _fields(base), _fields(what_if)
    pairs = {name: (old.get(name, "no"), new.get(name, "no")) for name in {**old, **new}}
    return tuple(Difference(name, a, b, _ratio(a, b)) for name, (a, b) in pairs.items() if a != b)


def _ratio(old: str | int, new: str | int) -> float | None:
    return (new - old) / old if isinstance(old, int) and isinstance(new, int) and old else None


def _fields(plan: DeploymentPlan) -> dict[str, str | int]:
    fields: dict[str, str | int] = {name: getattr(plan, name) for name in ("users", "agents", "tasks")}
    fields |= {name: getattr(plan, name) for name in ("admitted_agents", "environment", "tier", "phase", "cells")}
    for name in ("demand", "totals"):
        amounts = getattr(plan, name)
        fields |= {
            f"{name}.{unit}": getattr(amounts, unit) for unit in ("cpu_millicores", "memory_bytes", "storage_bytes")
        }
    fields["nodes.count"] = machines(plan)
    fields["nodes.shape"] = f"{format_cpu(plan.nodes.cpu_millicores)} cores, {format_size(plan.nodes.memory_bytes)}"
    for service in plan.services:
        fields[f"services.{service.name}.replicas"] = service.replicas
        fields[f"services.{service.name}.bounds"] = f"{service.min_replicas}..{service.max_replicas}"
        fields[f"services.{service.name}.driver"] = service.driver
    fields |= {f"conflict {conflict.id}": "yes" for conflict in plan.conflicts}
    fields |= {f"warning {text}": "yes" for text in plan.warnings}
    return fields
