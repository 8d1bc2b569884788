"""The workload profile: what an operator writes, and the exact numbers that sizing starts from.

``Profile`` mirrors ``cfscale.yaml`` (strictly: unknown keys are refused where it is decoded). ``Workload`` is the
profile after growth: whole users, agents and tasks.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Meta, Struct

from cfscale.core.units import parse_duration
from cfscale.errors import InputError

ALSO = "x-also"  # what a schema admits beside the type, put into ``type`` when the schema is printed
MOST = 100_000_000  # ten thousand cells of the largest tier: what is above is a slip of the hand, not a deployment
Count = Annotated[int, Meta(ge=0, le=MOST)]
Replicas = Annotated[int, Meta(ge=1, le=100_000)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Name = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z",
        description="lower-case letters, digits and inner hyphens, at most 63",
    ),
]
# scalars of a profile stay text until these types say what they are; other YAML readers see a number or a boolean first
Text = Annotated[str, Meta(pattern=r"\A[^\x00]*\Z", max_length=65_536, extra_json_schema={ALSO: ["number", "boolean"]})]
Amount = Annotated[str, Meta(extra_json_schema={ALSO: ["number"]})]
# patterns are text, compiled where they are first asked: most plans ask few of them
_DECIMAL = r"[0-9]{1,4}(?:\.[0-9]{1,6})?"
_LONGEST_SECONDS = 315_360_000.0  # timers of the operating system and of the components end not far above
_LEAST_GROWTH, _MOST_GROWTH = Fraction(1, 100), 1000
_SECRETIVE = r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|CREDENTIAL"
Environment = Literal["development", "staging", "production"]


class Slo(Struct, frozen=True, forbid_unknown_fields=True):
    """A service level objective for tasks: at this arrival rate, at most this share of tasks waits for an agent."""

    task_rate_per_second: Annotated[float, Meta(gt=0, le=1e6)]
    task_seconds: Annotated[float, Meta(gt=0, le=1e6)]
    wait_probability: Annotated[float, Meta(gt=0, lt=1)]


class HealthOverride(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a service's replicas are asked for their health, where it differs from the catalogue."""

    kind: Literal["http", "tcp", "redis", "postgres", "jsonrpc", "none"] | None = None
    path: Text | None = None
    status: Annotated[int, Meta(ge=100, le=599)] | None = None
    json: dict[Text, Text] | None = None
    rpc_path: Text | None = None
    interval: str | None = None
    timeout: str | None = None
    start_period: str | None = None
    rise: Annotated[int, Meta(ge=1, le=100)] | None = None
    fall: Annotated[int, Meta(ge=1, le=100)] | None = None


class DrainOverride(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a replica that is to go may finish its work first, by its own account."""

    limit: str | None = None
    path: Text | None = None
    status: Annotated[int, Meta(ge=100, le=599)] | None = None
    json: dict[Text, Text] | None = None


class ResourceOverride(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one replica, where they differ from the tier's shape; requests follow the limits."""

    cpu: Amount | None = None
    memory: Amount | None = None


class ImageOverride(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where one image comes from, where it differs from the catalogue."""

    repository: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._/:-]{0,254}\Z")] | None = None
    tag: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")] | None = None
    digest: Annotated[str, Meta(pattern=r"\Asha256:[0-9a-f]{64}\Z")] | None = None


class ServiceOverride(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a profile says of one service beyond the tier. ``share`` is the part of the agents that a pool carries."""

    image: (
        Annotated[str, Meta(pattern=r"\A[^\s\x00-\x1f]{1,512}\Z", description="an image reference without white space")]
        | None
    ) = None
    command: list[Text] | None = None
    port: Port | None = None
    publish: str | None = None
    routes: list[Text] | None = None
    sticky_header: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,64}\Z")] | None = None
    health: HealthOverride | None = None
    resources: ResourceOverride | None = None
    env: (
        dict[Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z", description="a variable name")], Text] | None
    ) = None
    stop_grace: str | None = None
    drain: DrainOverride | None = None
    share: Amount | None = None


class BandOverride(Struct, frozen=True, forbid_unknown_fields=True):
    """The dead band of one resource in percent."""

    scale_up: Percent
    scale_down: Percent


class WindowProfile(Struct, frozen=True, forbid_unknown_fields=True, rename={"lasts": "for"}):
    """A time in which there are at least so many replicas: a cron line begins it."""

    start: str
    lasts: str
    min: Replicas


class PolicyProfile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One scaling policy; parameters stand beside its kind."""

    kind: Literal["slo", "resource", "target", "pool", "predictive", "schedule", "queue"]
    cpu: BandOverride | None = None
    memory: BandOverride | None = None
    resource: Literal["cpu", "memory"] | None = None
    usage: Amount | None = None
    goal: Amount | None = None
    law: Literal["proportional", "founding"] | None = None
    windows: list[WindowProfile] | None = None
    source: Literal["redis", "prometheus", "http"] | None = None
    url: Text | None = None
    key: Text | None = None
    query: Text | None = None
    field: Text | None = None
    per_replica: Annotated[float, Meta(gt=0, le=1e9)] | None = None


class DampingProfile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Damping of one direction, where it differs from the catalogue."""

    stabilization_window: str | None = None
    cooldown: str | None = None
    max_percent: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    max_replicas: Replicas | None = None


class ScalingBounds(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The hard bounds of one service's replica count."""

    min: Replicas | None = None
    max: Replicas | None = None


class ScalingProfile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The scaling section; what is not given comes from the catalogue."""

    interval: str | None = None
    policies: list[PolicyProfile] | None = None
    goal: Amount | None = None
    tolerance: Annotated[float, Meta(ge=0, lt=1)] | None = None
    scale_up: DampingProfile | None = None
    scale_down: DampingProfile | None = None
    services: dict[str, ScalingBounds] = {}


class Profile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workload profile as written in ``cfscale.yaml``; flags override single values."""

    name: Name = "cfscale"
    environment: Environment = "production"
    users: Count | None = None
    agents: Count | None = None
    tasks: Count | None = None
    growth: Amount = "1"
    sustained: Amount | None = None
    agent_class: Literal["registered", "process", "container"] = "process"
    tier: str = "auto"
    slo: Slo | None = None
    services: dict[str, ServiceOverride] = {}
    images: dict[str, ImageOverride] = {}
    registry: Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9.:/-]{0,254}\Z")] | None = None
    scaling: ScalingProfile = ScalingProfile()


class Workload(Struct, frozen=True):
    """Whole users, agents and tasks to carry, growth included."""

    users: int
    agents: int
    tasks: int


def parse_growth(text: str) -> Fraction:
    """The headroom factor as an exact fraction; raises InputError for anything but a plain decimal in range."""
    if not re.fullmatch(_DECIMAL, text, re.ASCII) or not _LEAST_GROWTH <= Fraction(text) <= _MOST_GROWTH:
        raise InputError(f"growth '{text}' is not a factor: write a decimal number from 0.01 to 1000, such as 1.5")
    return Fraction(text)


def parse_share(text: str) -> Fraction:
    """The share of the peak that is carried most of the time; raises InputError for anything but a decimal up to 1."""
    if not re.fullmatch(_DECIMAL, text, re.ASCII) or not 0 < Fraction(text) <= 1:
        raise InputError(f"sustained '{text}' is not a share of the peak: write a decimal number up to 1, such as 0.4")
    return Fraction(text)


def parse_fraction(text: str, where: str) -> Fraction:
    """A part of a whole; raises InputError for anything but a decimal between 0 and 1."""
    if not re.fullmatch(_DECIMAL, text, re.ASCII) or not 0 < Fraction(text) < 1:
        raise InputError(f"{where} '{text}' is not a part of the whole: write a decimal number below 1, such as 0.25")
    return Fraction(text)


def grown_workload(profile: Profile) -> Workload:
    """Users, agents and tasks times growth, rounded up; raises InputError naming what is missing."""
    given = {"users": profile.users, "agents": profile.agents, "tasks": profile.tasks}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        flags = " ".join(f"--{name} N" for name in missing)
        raise InputError(
            f"the profile lacks {', '.join(missing)}: set {'it' if len(missing) == 1 else 'them'} in cfscale.yaml or give {flags}"
        )
    factor = parse_growth(profile.growth)
    return Workload(
        **{
            name: -(-value * factor.numerator // factor.denominator)
            for name, value in given.items()
            if value is not None
        }
    )


def checked_env(name: str, env: Mapping[str, str]) -> Mapping[str, str]:
    """The variables of a service; raises InputError for one that looks like a secret: it would stand in manifests."""
    for variable, value in env.items():
        if value and re.search(_SECRETIVE, variable, re.IGNORECASE) and not variable.endswith("_FILE"):
            raise InputError(
                f"services.{name}.env.{variable} looks like a secret, and a profile ends up in manifests: "
                f"write it into secrets/{name}.env beside the rendered manifests, or export it before 'cfscale up --engine process'"
            )
    return env


def duration(text: str | None, default: float, where: str) -> float:
    """Seconds of an optional duration of the profile; an InputError names where it stands."""
    if text is None:
        return default
    try:
        seconds = parse_duration(text)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if seconds > _LONGEST_SECONDS:
        raise InputError(f"{where}: '{text}' is longer than ten years: give less")
    return seconds
