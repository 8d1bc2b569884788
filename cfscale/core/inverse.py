"""The inverse of sizing: which load a given number of equal machines carries.

The load grows along a fixed mix of users, agents and tasks. Its need for machines rises within a tier and a number of
cells, and may fall where the next one begins (other shapes, other copies); so the search goes from place to place, the
largest first, and takes the first whose beginning fits. Within it the last load that fits is found by bisection.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor

from msgspec import Struct

from cfscale.core.nodes import Shape, lower_bound, needed_by, pack
from cfscale.core.plan import DeploymentPlan
from cfscale.core.search import DRIVERS, first, loaded, planned, spare_of
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size, parse_cpu, parse_size
from cfscale.core.workload import MOST, Profile, Workload, parse_growth
from cfscale.errors import InputError, RefusedError

CAPACITY_SCHEMA = "cfscale/capacity/v1"
MOST_MACHINES = 10_000
_COUNT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_FORM = "write machines, cores and memory, such as nodes=3,cpu=16,memory=64G"


class Hardware(Struct, frozen=True):
    """Equal machines, and how many."""

    count: int
    cpu_millicores: int
    memory_bytes: int


class Capacity(Struct, frozen=True):
    """The document: the largest load that the hardware carries, what binds, and what the next agent would need.

    ``bound_by`` is memory, cpu, machines (copies, spares or whole replicas) or environment. The ratios are of all machines,
    the spare ones included. ``next_machines`` is None where the next agent could not be carried by any number.
    """

    schema: str
    hardware: Hardware
    users: int
    agents: int
    tasks: int
    tier: str
    cells: int
    machines: int
    bound_by: str
    cpu_ratio: float
    memory_ratio: float
    next_agents: int
    next_tier: str | None
    next_machines: int | None


def parse_hardware(text: str) -> Hardware:
    """The machines of ``nodes=3,cpu=16,memory=64G``; raises InputError saying what to write."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    wrong = sorted(given.keys() ^ {"nodes", "cpu", "memory"})
    if wrong or len(pairs) != len(given):
        words = (
            f"'{wrong[0]}' is {'missing' if wrong[0] in _FORM.split(' such as ')[1] else 'unknown'}"
            if wrong
            else "a key stands twice"
        )
        raise InputError(f"--inverse '{text}': {words}: {_FORM}")
    if not _COUNT.fullmatch(given["nodes"]) or int(given["nodes"]) > MOST_MACHINES:
        raise InputError(
            f"--inverse: '{given['nodes']}' is not a number of machines from 1 to {MOST_MACHINES}: {_FORM}"
        )
    try:
        return Hardware(int(given["nodes"]), parse_cpu(given["cpu"]), parse_size(given["memory"]))
    except InputError as error:
        raise InputError(f"--inverse: {error}") from error


def capacity(profile: Profile, catalogue: Catalogue, hardware: Hardware) -> Capacity:
    """The largest load of the profile's mix on this hardware; raises RefusedError where it carries not one agent."""
    scale = _Scale(profile, catalogue, hardware, _mix(profile, catalogue))
    start = next((start for start in scale.starts() if scale.fits(start)), None)
    if start is None:
        size(loaded(profile, scale.load(1)), catalogue)  # raises what is wrong with the profile, whatever the hardware
        raise RefusedError(_too_small(scale))
    beyond = first(lambda agents: not scale.fits(agents), start, scale.end(start))
    agents = scale.end(start) if beyond is None else beyond - 1
    return _capacity(scale, agents)


def _mix(profile: Profile, catalogue: Catalogue) -> Workload:
    """The profile's own proportions where it states all three, else those of the largest tier's tops."""
    given = {name: getattr(profile, name) for name in DRIVERS}
    if None in given.values():
        return Workload(**{name: catalogue.tiers[-1].top(name) for name in DRIVERS})
    if not given["agents"]:
        raise InputError(
            "--inverse counts in agents and the profile has none: give --agents, or leave out users and tasks"
        )
    return Workload(**given)


class _Scale(Struct, frozen=True):
    """Loads of one mix, counted in agents, against hardware."""

    profile: Profile
    catalogue: Catalogue
    hardware: Hardware
    mix: Workload

    def load(self, agents: int) -> Workload:
        """The load with this many agents; users and tasks follow, rounded up."""
        return Workload(
            users=ceil(Fraction(agents * self.mix.users, self.mix.agents)),
            agents=agents,
            tasks=ceil(Fraction(agents * self.mix.tasks, self.mix.agents)),
        )

    def plan(self, agents: int) -> DeploymentPlan | None:
        """The plan of the load; None where there is none."""
        load = self.load(agents)
        if max(load.users, load.agents, load.tasks) > MOST:
            return None
        return planned(loaded(self.profile, load), self.catalogue)

    def machines(self, plan: DeploymentPlan) -> int | None:
        """How many of the machines the plan takes in all cells; None where a replica fits none."""
        used = pack(self.shape, plan.services)
        if used is None:
            return None
        return plan.cells * max(used + spare_of(plan, self.catalogue), plan.settings.replication_factor)

    @property
    def shape(self) -> Shape:
        """One of the machines."""
        return Shape(self.hardware.cpu_millicores, self.hardware.memory_bytes)

    def fits(self, agents: int) -> bool:
        """Whether the hardware carries the whole load."""
        plan = self.plan(agents)
        if plan is None or plan.admitted_agents < plan.agents:
            return False
        machines = self.machines(plan)
        return machines is not None and machines <= self.hardware.count

    def starts(self) -> Iterator[int]:
        """The first load of every place that could fit, the largest first; one cell takes one machine at least."""
        edges = sorted({1, *(self._last(tops) + 1 for tops in self._tops())})
        return iter(edge for edge in reversed(edges) if edge <= MOST)

    def end(self, start: int) -> int:
        """The last load of the place that begins here."""
        return min(last for tops in self._tops() if (last := self._last(tops)) >= start)

    def _tops(self) -> Iterator[Workload]:
        tiers = [Workload(**{name: tier.top(name) for name in DRIVERS}) for tier in self.catalogue.tiers]
        yield from tiers
        for cells in range(2, self.hardware.count + 2):
            yield Workload(*(cells * getattr(tiers[-1], name) for name in DRIVERS))

    def _last(self, tops: Workload) -> int:
        """The most agents whose load is within the tops."""
        growth = parse_growth(self.profile.growth)
        return min(
            floor(Fraction(floor(getattr(tops, name) / growth) * self.mix.agents, getattr(self.mix, name)))
            for name in DRIVERS
            if getattr(self.mix, name)
        )


def _capacity(scale: _Scale, agents: int) -> Capacity:
    plan, load, after = scale.plan(agents), scale.load(agents), scale.plan(agents + 1)
    machines = None if plan is None else scale.machines(plan)
    if plan is None or machines is None:
        raise ValueError(f"{agents} agents were found to fit and have no plan")
    hardware = scale.hardware
    return Capacity(
        CAPACITY_SCHEMA,
        hardware,
        load.users,
        agents,
        load.tasks,
        plan.tier,
        plan.cells,
        machines,
        _bound(scale, after),
        plan.totals.cpu_millicores / (hardware.count * hardware.cpu_millicores),
        plan.totals.memory_bytes / (hardware.count * hardware.memory_bytes),
        agents + 1,
        None if after is None else after.tier,
        None if after is None or _capped(after) else scale.machines(after),
    )


def _capped(plan: DeploymentPlan) -> bool:
    return plan.admitted_agents < plan.agents


def _bound(scale: _Scale, after: DeploymentPlan | None) -> str:
    """What keeps the next agent out: the resource of which it takes more machines, if divisible replicas do not fit either."""
    if after is None:
        return "tier"
    if _capped(after):
        return "environment"
    shape, services = scale.shape, after.services
    needed = after.cells * (lower_bound(shape, needed_by(services)) + spare_of(after, scale.catalogue))
    if needed <= scale.hardware.count:
        return "machines"
    totals = after.totals
    cpu, memory = totals.cpu_millicores / shape.cpu_millicores, totals.memory_bytes / shape.memory_bytes
    return "cpu" if cpu > memory else "memory"


def _too_small(scale: _Scale) -> str:
    hardware, plan = scale.hardware, scale.plan(1)
    words = f"{hardware.count} x {format_cpu(hardware.cpu_millicores)} cores, {format_size(hardware.memory_bytes)} carry not one agent"
    if plan is None:
        return f"{words}: no plan has one: leave out --tier"
    machines = scale.machines(plan)
    if machines is None:
        return f"{words}: a replica of the {plan.tier} tier fits no such machine: take larger ones"
    return f"{words}: tier {plan.tier} takes {machines} of these machines: add some or take larger ones"
