"""The arguments that several commands share, and the way from them to a plan."""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.plan import DeploymentPlan
from cfscale.core.tier import Catalogue
from cfscale.core.workload import MOST, Profile
from cfscale.errors import InputError

DEFAULT_PROFILE = Path("cfscale.yaml")

ProfileArgument = Annotated[
    str | None,
    typer.Argument(metavar="[PROFILE]", help="Workload profile; ./cfscale.yaml unless given.", show_default=False),
]
Users = Annotated[
    str | None,
    typer.Option("--users", metavar="N", help="Concurrent users; overrides the profile.", show_default=False),
]
Agents = Annotated[str | None, typer.Option("--agents", metavar="N", help="Agents to carry.", show_default=False)]
Tasks = Annotated[str | None, typer.Option("--tasks", metavar="N", help="Concurrent tasks.", show_default=False)]
Environment = Annotated[
    str | None,
    typer.Option("--environment", metavar="NAME", help="development, staging or production.", show_default=False),
]
TierOption = Annotated[
    str | None,
    typer.Option(
        "--tier", metavar="auto|NAME", help="Tier to use instead of the smallest that fits.", show_default=False
    ),
]
Growth = Annotated[
    str | None,
    typer.Option("--growth", metavar="FACTOR", help="Headroom factor on users, agents and tasks.", show_default=False),
]
Coefficients = Annotated[
    str | None,
    typer.Option(
        "--coefficients",
        metavar="FILE",
        help="Measured coefficients, as 'cfscale calibrate' writes them.",
        show_default=False,
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Format of the result.")]
EngineOption = Annotated[
    str, typer.Option("--engine", metavar="auto|process|compose|swarm|kubernetes|host", help="What runs the replicas.")
]


class Sizing(Struct, frozen=True):
    """The sizing flags of one command line; None leaves the profile's value."""

    users: str | None = None
    agents: str | None = None
    tasks: str | None = None
    environment: str | None = None
    tier: str | None = None
    growth: str | None = None

    def given(self) -> dict[str, str]:
        """The flags that were given."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}


def load_profile(path: str | None, sizing: Sizing) -> Profile:
    """The profile of a file (``./cfscale.yaml`` where there is one) with the flags laid over it; raises InputError.

    Of a saved plan it is the recorded profile, however old: ``load_plan`` is what refuses a stale one.
    """
    from cfscale.cli.recognise import is_saved

    if path is not None and is_saved(path):
        from cfscale.cli.savedplan import saved_profile

        return saved_profile(path, sizing.given())
    profile = (
        _read(Path(path)) if path is not None else _read(DEFAULT_PROFILE) if DEFAULT_PROFILE.is_file() else Profile()
    )
    return overlaid(profile, sizing.given())


def _read(path: Path) -> Profile:
    from cfscale.adapters.decode import MAX_BYTES, decode_yaml

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}: give the path of a profile, or write one with 'cfscale init'"
        ) from error
    profile, warnings = decode_yaml(raw, Profile, str(path))
    for warning in warnings:
        console.warn(warning)
    return profile


def overlaid(profile: Profile, given: dict[str, str]) -> Profile:
    """The profile with values from flags; they obey the same schema as the file."""
    import msgspec

    for name, value in given.items():
        field = next(field for field in msgspec.structs.fields(Profile) if field.encode_name == name)
        if value == "null" and field.default is None:  # the lax conversion below takes the word for no value at all
            raise InputError(f"--{name} 'null': give a value, or leave the flag out")
        try:
            typed = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise InputError(f"--{name} '{value}': {_wanted(name, str(error))}") from error
        profile = msgspec.structs.replace(profile, **{name: typed})
    return profile


def _wanted(name: str, technical: str) -> str:
    if name == "environment":
        return "write development, staging or production"
    if name in ("users", "agents", "tasks"):
        return f"write a whole number from 0 to {MOST}"
    if name == "name":
        return "write lower-case letters, digits and inner hyphens, at most 63"
    return technical


def plan_of(profile: Profile) -> DeploymentPlan:
    """The plan of a profile by the catalogue of this installation; raises CfscaleError."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.core.sizing import size

    return size(profile, load_catalogue())


def load_plan(path: str | None, sizing: Sizing) -> DeploymentPlan:
    """Profile, flags and catalogue to a plan, or the plan of a saved one; raises LockedError for one that is stale."""
    from cfscale.cli.recognise import is_saved

    if path is not None and is_saved(path):
        from cfscale.cli.savedplan import open_saved

        return open_saved(path, sizing.given()).plan
    return plan_of(load_profile(path, sizing))


def load_sizing(path: str | None, sizing: Sizing, coefficients: str | None = None) -> tuple[Profile, Catalogue]:
    """What a plan follows from: the profile with its flags, and the catalogue with measured coefficients, if any.

    Raises LockedError for a stale saved plan.
    """
    from cfscale.adapters.assets import load_catalogue
    from cfscale.cli.recognise import is_saved

    if path is not None and is_saved(path):
        from cfscale.cli.savedplan import open_saved

        beside = {} if coefficients is None else {"coefficients": coefficients}
        opened = open_saved(path, sizing.given() | beside)
        return opened.profile, opened.catalogue
    profile, catalogue = load_profile(path, sizing), load_catalogue()
    if coefficients is None:
        return profile, catalogue
    from cfscale.adapters.observations import read_coefficients
    from cfscale.core.coefficients import with_coefficients

    return profile, with_coefficients(catalogue, read_coefficients(Path(coefficients)))
