"""The catalogue: tiers, rules and service descriptions, as decoded from ``tiers/``, and the choice of a tier.

Every domain number lives there as a leaf with unit and source; nothing here holds one.
"""

from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from cfscale.core.units import GIB, MIB, TIB
from cfscale.core.workload import Workload
from cfscale.errors import InputError, RefusedError

AGENTS = "agents"
_BYTES: dict[str, int | Fraction] = {"bytes": 1, "KB": 1000, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_SECONDS: dict[str, int | Fraction] = {
    "ms": Fraction(1, 1000),
    "s": 1,
    "min": 60,
    "h": 3600,
    "d": 86_400,
    "y": 31_536_000,
}
_RATIOS: dict[str, int | Fraction] = {"ratio": 1, "factor": 1, "percent": Fraction(1, 100)}
_FACTORS: dict[str, dict[str, int | Fraction]] = {
    "bytes": _BYTES,
    "seconds": _SECONDS,
    "ratio": _RATIOS,
    "millicores": {"cores": 1000},
}


@lru_cache(maxsize=1024)
def fraction(value: int | float) -> Fraction:
    """The decimal that a number was written as, exactly."""
    return Fraction(str(value))


@lru_cache(maxsize=1024)
def _in_base(value: int | float, unit: str, base: str) -> Fraction:
    """The amount in the base unit: a plan asks for the same few hundred again and again."""
    return fraction(value) * _FACTORS[base][unit]


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
        return fraction(self._number)

    @property
    def bytes(self) -> Fraction:
        """The value in bytes; raises KeyError where the unit is not a size."""
        return _in_base(self._number, self.unit, "bytes")

    @property
    def seconds(self) -> int:
        """The value in seconds; raises KeyError where the unit is not a time."""
        return int(_in_base(self._number, self.unit, "seconds"))

    @property
    def ratio(self) -> float:
        """The value as a ratio of 1, whether it is written as a ratio or in percent."""
        return float(_in_base(self._number, self.unit, "ratio"))

    @property
    def millicores(self) -> int:
        """The value, written in cores, in millicores."""
        return int(_in_base(self._number, self.unit, "millicores"))

    @property
    def _number(self) -> int | float:
        if isinstance(self.value, str | bool | None):
            raise TypeError(f"'{self.value}' ({self.source}) is not a number")
        return self.value


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
    optional: list[str] = []
    load_balancing: dict[str, Leaf] = {}
    database: dict[str, Leaf] = {}
    security: dict[str, Leaf] = {}

    def top(self, driver: str) -> int:
        """The most users, agents or tasks that this tier holds."""
        if driver == "tasks":
            return int(self.configuration["max_concurrent_tasks"].exact)
        return int(self.limits[driver].max or 0)

    @property
    def top_millicores(self) -> int:
        """The most CPU of its range."""
        return int(_in_base(self.resources["cpu"].max or 0, "cores", "millicores"))

    def holds(self, workload: Workload) -> bool:
        """Whether all three inputs fit; a shared boundary belongs to the smaller tier."""
        return all(getattr(workload, driver) <= self.top(driver) for driver in ("users", "agents", "tasks"))


class Image(Struct, frozen=True, forbid_unknown_fields=True):
    """One pinned image, and under which licence what is in it comes."""

    repository: str
    tag: str
    licence: str
    note: str = ""
    digest: str = ""

    def reference(self, registry: str = "") -> str:
        """The reference that engines pull, below a registry or a mirror if one is given; a digest outranks the tag."""
        name = f"{registry.rstrip('/')}/{self.repository}" if registry else self.repository
        return f"{name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


class ServiceKind(Struct, frozen=True, forbid_unknown_fields=True):
    """What a service is, whatever its tier. ``direct`` is where it is published when no balancer stands in front."""

    port: Leaf
    stop_grace: Leaf
    health: dict[str, str | int | float]
    build: bool = False
    command: list[str] = []
    routes: list[str] = []
    sticky_header: str | None = None
    one_writer: bool = False
    members: bool = False
    publish: str | None = None
    direct: str | None = None


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
    when: dict[str, list[str]] = {}


class Rules(Struct, frozen=True):
    """What holds for every tier; ``leaves`` holds the single values by dotted path, such as ``sizing.agent_memory``."""

    leaves: dict[str, Leaf]
    phases: list[Phase]
    node_shapes: list[dict[str, Leaf]]
    conflicts: list[SourceConflict]

    def leaf(self, path: str) -> Leaf:
        """The leaf at a dotted path; raises KeyError where there is none."""
        return self.leaves[path]

    def agent_memory(self, agent_class: str) -> str:
        """The path of the leaf that says what an agent of this workload class takes."""
        return "sizing.agent_memory" if agent_class == "process" else f"sizing.agent_classes.{agent_class}"


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Why a computed number is what it is: its formula over other rules, leaves and the profile, and what is assumed."""

    title: str
    unit: str
    formula: str
    assumption: str
    range: str
    field: str = ""
    needs: list[str] = []


class Stated(Struct, frozen=True, forbid_unknown_fields=True):
    """A number passed on as it is: the leaf that states it, and where a profile may state another."""

    field: str
    unit: str
    leaf: str = ""
    profile: str = ""


class Ledger(Struct, frozen=True, forbid_unknown_fields=True):
    """The rules of all numbers of a plan by their ids, in which SERVICE stands for any service."""

    computed: dict[str, Rule]
    stated: dict[str, Stated]


def pool_kind(service: str) -> str:
    """The service whose kind and size this one has: ``agents`` for a further pool of agents, else itself."""
    return AGENTS if service.startswith(f"{AGENTS}-") else service


class Catalogue(Struct, frozen=True):
    """All of ``tiers/``; tiers ascend in size."""

    tiers: list[Tier]
    rules: Rules
    services: dict[str, ServiceKind]
    images: dict[str, Image]
    ledger: Ledger

    def kind(self, service: str) -> ServiceKind:
        """What a service is; every pool of agents is what the agents are. Raises KeyError."""
        return self.services[pool_kind(service)]

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
    return max(1, *(-(-amount // tier.top(driver)) for driver, amount in amounts.items()))


def phase_of(phases: list[Phase], users: int) -> Phase:
    """The roadmap phase of a number of users; a shared boundary belongs to the smaller phase."""
    return next(phase for phase in phases if phase.users.max is None or users <= phase.users.max)
