"""The growth horizon: on which day a tier, the cells, the machines or their shape are outgrown.

Growth is compound: after d days an input is ceil(x (1 + rate) ^ (d / period)). The power is taken in floating point, and
by whole-number powers where that comes too near a whole number to be trusted; so every day's load is exact.
"""

import re
from datetime import date, timedelta
from fractions import Fraction
from math import ceil, exp, log1p

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan
from cfscale.core.search import DRIVERS, Line, loaded, machines
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size
from cfscale.core.workload import MOST, Profile, Workload
from cfscale.errors import InputError

HORIZON_SCHEMA = "cfscale/horizon/v1"
LAST_DAY = 1826  # five years
MOST_EVENTS = 40
_MOST_PERCENT = 1000
_DAYS = {"day": Fraction(1), "week": Fraction(7), "month": Fraction("365.25") / 12, "year": Fraction("365.25")}
_RATE = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,6})?)%/(day|week|month|year)", re.ASCII)
_NEAR = 1e-9  # relative: the power is good to about 1e-13


class Rate(Struct, frozen=True):
    """Compound growth in a period."""

    ratio: Fraction
    days: Fraction

    def after(self, amount: int, day: int) -> int | None:
        """The amount after this many days, rounded up; None above what a profile may say."""
        power = day / self.days
        if amount == 0 or day == 0:
            return amount
        if float(power) * log1p(float(self.ratio)) > log1p(MOST / amount):
            return None
        grown = amount * exp(float(power) * log1p(float(self.ratio)))
        near = round(grown)
        if abs(grown - near) > max(grown, 1.0) * _NEAR:
            return ceil(grown) if grown <= MOST else None
        return near + (0 if self._reached(amount, power, near) else 1)

    def _reached(self, amount: int, power: Fraction, least: int) -> bool:
        """Whether amount x (1 + ratio) ^ power is at most a whole number, by whole-number powers."""
        return (1 + self.ratio) ** power.numerator <= Fraction(least, amount) ** power.denominator


class Change(Struct, frozen=True):
    """One thing that is outgrown on a day; ``becomes`` is None where nothing can be planned from then on."""

    field: str
    before: str | int
    becomes: str | int | None


class Event(Struct, frozen=True):
    """The first day on which the plan differs from the day before, and the load of that day (growth factor aside)."""

    date: date
    days: int
    users: int | None
    agents: int | None
    tasks: int | None
    changes: tuple[Change, ...]


class Horizon(Struct, frozen=True):
    """The document: events in order, looked for up to ``searched_to`` or to the most that are listed (``complete`` says)."""

    schema: str
    name: str
    rate_ratio: float
    period_days: float
    start: date
    searched_to: date
    complete: bool
    events: tuple[Event, ...]


def parse_rate(text: str) -> Rate:
    """The rate of ``8%/month``; raises InputError for anything but a positive decimal percentage of a period."""
    match = _RATE.fullmatch(text.strip())
    if match is None or not 0 < Fraction(match[1]) <= _MOST_PERCENT:
        raise InputError(
            f"--growth-rate '{text}' is not a rate of growth: write a percentage above 0 and up to 1000 and its period, such as 8%/month (day, week, month, year)"
        )
    return Rate(Fraction(match[1]) / 100, _DAYS[match[2]])


def horizon(profile: Profile, catalogue: Catalogue, rate: Rate, start: date) -> Horizon:
    """When the plan of a profile is outgrown; raises InputError where a day lies beyond the calendar."""
    if date.max - start < timedelta(days=LAST_DAY):
        raise InputError(f"--from {start}: five years from then the calendar ends: give an earlier date")
    line = _days(profile, catalogue, rate)
    days = _event_days(line)
    events = tuple(_event(line, (profile, rate), start, day) for day in days)
    complete = len(events) < MOST_EVENTS
    last = start + timedelta(days=LAST_DAY) if complete else events[-1].date
    return Horizon(HORIZON_SCHEMA, profile.name, float(rate.ratio), float(rate.days), start, last, complete, events)


def load_at(profile: Profile, rate: Rate, day: int) -> Workload | None:
    """The load of a day; None above what a profile may say."""
    amounts = [rate.after(getattr(profile, name), day) for name in DRIVERS]
    return Workload(*(amount for amount in amounts if amount is not None)) if None not in amounts else None


def _days(profile: Profile, catalogue: Catalogue, rate: Rate) -> Line:
    def at(day: int) -> Profile | None:
        load = load_at(profile, rate, day)
        return None if load is None else loaded(profile, load)

    return Line(catalogue, at)


def _event_days(line: Line) -> list[int]:
    days: list[int] = []
    day: int | None = 0
    while day is not None and line.at(day) is not None and len(days) < MOST_EVENTS:
        day = line.next_step(_signature, day, LAST_DAY)
        if day is not None:
            days.append(day)
    return days


def _signature(plan: DeploymentPlan) -> tuple[str | int, ...]:
    return tuple(_fields(plan).values())


def _fields(plan: DeploymentPlan) -> dict[str, str | int]:
    shape = f"{format_cpu(plan.nodes.cpu_millicores)} cores, {format_size(plan.nodes.memory_bytes)}"
    return {"tier": plan.tier, "cells": plan.cells, "nodes": machines(plan), "node shape": shape}


def _event(line: Line, growing: tuple[Profile, Rate], start: date, day: int) -> Event:
    before, after, load = line.at(day - 1), line.at(day), load_at(*growing, day)
    old, new = {} if before is None else _fields(before), None if after is None else _fields(after)
    changes = [
        Change(name, value, None if new is None else new[name])
        for name, value in old.items()
        if new is None or new[name] != value
    ]
    users, agents, tasks = (None, None, None) if load is None else (load.users, load.agents, load.tasks)
    return Event(start + timedelta(days=day), day, users, agents, tasks, tuple(changes))
