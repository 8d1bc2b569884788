"""The catalogue: tiers, rules and service descriptions, as decoded from ``tiers/``, and the choice of a tier.

Every domain number lives there as a leaf with unit and source; nothing here holds one.
"""

from fractions import Fraction
from math import ceil

from msgspec import Struct, convert

from cfscale.core.units import GIB, MIB, TIB
from cfscale.core.workload import Workload
from cfscale.errors import InputError, RefusedError

_BYTES = {"bytes": 1, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "y": Fraction(31_536_000),
}


class Leaf(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One value or range of the catalogue, with its unit and where it comes from."""

    unit: str
    source: str
    value: int | float | str | bool | None = None
    min: int | float | None = None
    max: int | float | None = None
    note: str = ""

    @property
    def exact(self) -> Fraction:
        """The value as an exact fraction of its unit; raises TypeError for a word."""
        if isinstance(self.value, str | bool | None):
            raise TypeError(f"'{self.value}' ({self.source}) is not a number")
        return Fraction(str(self.value))

    @property
    def bytes(self) -> Fraction:
        """The value in bytes; raises KeyError where the unit is not a size."""
        return self.exact * _BYTES[self.unit]

    @property
    def seconds(self) -> int:
        """The value in seconds; raises KeyError where the unit is not a time."""
        return int(self.exact * _SECONDS[self.unit])

    @property
    def ratio(self) -> float:
        """The value as a ratio of 1, whether it is written as a ratio or in percent."""
        return float(self.exact / (100 if self.unit == "percent" else 1))

    @property
    def millicores(self) -> int:
        """The value, written in cores, in millicores."""
        return int(self.exact * 1000)


class Tier(Struct, frozen=True, forbid_unknown_fields=True):
    """One named size class with its limits and settings."""

    name: str
    title: str
    source: str
    limits: dict[str, Leaf]
    resources: dict[str, Leaf]
    configuration: dict[str, Leaf]
    monitoring: dict[str, Leaf]
    services: dict[str, dict[str, Leaf]]
    load_balancing: dict[str, Leaf] = {}
    database: dict[str, Leaf] = {}
    security: dict[str, Leaf] = {}

    def top(self, driver: str) -> int:
        """The most users, agents or tasks that this tier holds."""
        if driver == "tasks":
            return int(self.configuration["max_concurrent_tasks"].exact)
        return int(self.limits[driver].max or 0)

    def holds(self, workload: Workload) -> bool:
        """Whether all three inputs fit; a shared boundary belongs to the smaller tier."""
        return all(getattr(workload, driver) <= self.top(driver) for driver in ("users", "agents", "tasks"))


class ServiceKind(Struct, frozen=True, forbid_unknown_fields=True):
    """What a service is, whatever its tier: durations in seconds."""

    image: str
    port: int
    stop_grace: float
    health: dict[str, str | int | float]
    build: bool = False
    command: list[str] = []
    routes: list[str] = []
    sticky_header: str | None = None
    one_writer: bool = False
    publish: str | None = None


class Phase(Struct, frozen=True):
    """One phase of the roadmap; ``users`` is a range, open-ended where it has no maximum."""

    name: str
    users: Leaf
    source: str = ""
    features: list[object] = []


class SourceConflict(Struct, frozen=True):
    """Something the founding document says twice and differently, and when it concerns a plan."""

    id: str
    lines: list[int]
    values: list[str]
    chosen: str
    why: str
    when: dict[str, object]


class Rules(Struct, frozen=True):
    """What holds for every tier."""

    environments: dict[str, object]
    sizing: dict[str, object]
    scaling: dict[str, object]
    health: dict[str, object]
    limits: dict[str, object]
    phases: list[Phase]
    node_shapes: list[dict[str, Leaf]]
    conflicts: list[SourceConflict]

    def leaf(self, path: str) -> Leaf:
        """The leaf at a dotted path such as ``sizing.agent_memory``; raises KeyError where there is none."""
        section, *rest = path.split(".")
        node: object = getattr(self, section)
        for part in rest:
            if not isinstance(node, dict):
                raise KeyError(path)
            node = node[part]
        return convert(node, Leaf)


class Catalogue(Struct, frozen=True):
    """All of ``tiers/``; tiers ascend in size."""

    tiers: list[Tier]
    rules: Rules
    services: dict[str, ServiceKind]

    def tier(self, name: str) -> Tier:
        """The tier of this name; raises InputError naming those there are."""
        for tier in self.tiers:
            if tier.name == name:
                return tier
        raise InputError(f"no tier is called '{name}': choose auto, {', '.join(tier.name for tier in self.tiers)}")


def choose_tier(catalogue: Catalogue, workload: Workload, wanted: str) -> tuple[Tier, int]:
    """The smallest tier that holds the workload and the number of its cells; past the largest tier come cells.

    A named tier is taken as it is; raises RefusedError where it does not hold the workload and is not the largest.
    """
    largest = catalogue.tiers[-1]
    if wanted == "auto":
        tier = next((tier for tier in catalogue.tiers if tier.holds(workload)), largest)
    else:
        tier = catalogue.tier(wanted)
    if not tier.holds(workload) and tier is not largest:
        over = [
            f"{getattr(workload, d)} {d} (at most {tier.top(d)})"
            for d in ("users", "agents", "tasks")
            if getattr(workload, d) > tier.top(d)
        ]
        raise RefusedError(f"tier {tier.name} cannot hold {', '.join(over)}: choose a larger tier or --tier auto")
    return tier, cells(tier, workload)


def cells(tier: Tier, workload: Workload) -> int:
    """How many cells of this tier carry the workload; one where it fits."""
    amounts = {"users": workload.users, "agents": workload.agents, "tasks": workload.tasks}
    return max(1, *(ceil(Fraction(amount, tier.top(driver))) for driver, amount in amounts.items()))


def phase_of(phases: list[Phase], users: int) -> Phase:
    """The roadmap phase of a number of users; a shared boundary belongs to the smaller phase."""
    return next(phase for phase in phases if phase.users.max is None or users <= phase.users.max)
