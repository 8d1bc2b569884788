"""``plan --out`` and every command that is given its file: a saved plan is taken only while it would come out the same."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

import cfscale
from cfscale.adapters.assets import load_catalogue
from cfscale.adapters.files import write_atomic
from cfscale.adapters.savedplan import changed_source, read_start, refuse_foreign, shown, source_of
from cfscale.cli.options import DEFAULT_PROFILE
from cfscale.cli.recognise import is_saved
from cfscale.core.plan import DeploymentPlan
from cfscale.core.savedplan import (
    SAVED_SCHEMA,
    Inputs,
    Installation,
    SavedPlan,
    again,
    catalogue_digest,
    changed_plan,
    parse_saved,
    saved_text,
)
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import InputError, LockedError

_READABLE = 0o644


class Origin(Struct, frozen=True):
    """What a command line made a plan from: the files it named and its sizing flags."""

    profile: str | None
    flags: Mapping[str, str]
    coefficients: str | None = None


class Opened(Struct, frozen=True):
    """A saved plan that still holds: the profile, the catalogue with its coefficients, and the plan of both."""

    profile: Profile
    catalogue: Catalogue
    plan: DeploymentPlan


def save_plan(path: Path, profile: Profile, sized: DeploymentPlan, origin: Origin) -> None:
    """Write a plan whole, or not at all; RefusedError where another file stands there, InputError for a saved plan as profile.

    A profile that was not named is ``./cfscale.yaml`` where there is one, as it is for ``load_profile``.
    """
    given = origin.profile
    if given is None and DEFAULT_PROFILE.is_file():
        given = str(DEFAULT_PROFILE)
    if given is not None and is_saved(given):
        raise InputError(f"{given}: a saved plan already: copy it, or plan its profile again")
    refuse_foreign(path)
    inputs = Inputs(
        profile=None if given is None else source_of(given, path),
        flags=dict(origin.flags),
        coefficients=None if origin.coefficients is None else source_of(origin.coefficients, path),
        catalogue_sha256=catalogue_digest(load_catalogue()),
    )
    document = SavedPlan(SAVED_SCHEMA, cfscale.__version__, inputs, profile, sized)
    write_atomic(path, saved_text(document), _READABLE)


def open_saved(path: str, given: Mapping[str, str]) -> Opened:
    """The saved plan of a file.

    Raises InputError for a malformed one or for flags beside it, LockedError naming what has changed since.
    """
    refuse_flags(path, given)
    raw = read_start(Path(path))
    document = parse_saved(raw, path)
    _refuse_changed_files(document, path)
    base = load_catalogue()
    catalogue = _with_coefficients(base, document, path)
    sized = size(document.profile, catalogue)
    here = Installation(cfscale.__version__, catalogue_digest(base))
    if problem := changed_plan(document, raw, sized, here):
        raise _stale(document, path, problem)
    return Opened(document.profile, catalogue, sized)


def saved_profile(path: str, given: Mapping[str, str]) -> Profile:
    """The profile that a saved plan records, stale or not: for those who need its name only."""
    refuse_flags(path, given)
    return parse_saved(read_start(Path(path)), path).profile


def refuse_flags(path: str, given: Mapping[str, str]) -> None:
    """Raise InputError where flags would change what has been saved."""
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(f"{path} is a saved plan, which {flags} cannot change: leave it out, or plan again with --out")


def _refuse_changed_files(document: SavedPlan, path: str) -> None:
    for source in (document.inputs.profile, document.inputs.coefficients):
        problem = None if source is None else changed_source(source, Path(path))
        if problem:
            raise _stale(document, path, problem)


def _with_coefficients(catalogue: Catalogue, document: SavedPlan, path: str) -> Catalogue:
    source = document.inputs.coefficients
    if source is None:
        return catalogue
    from cfscale.adapters.observations import read_coefficients
    from cfscale.core.coefficients import with_coefficients

    return with_coefficients(catalogue, read_coefficients(Path(shown(source, Path(path)))))


def _stale(document: SavedPlan, path: str, problem: str) -> LockedError:
    profile, coefficients = (
        None if source is None else shown(source, Path(path))
        for source in (document.inputs.profile, document.inputs.coefficients)
    )
    return LockedError(f"{path} is stale: {problem}: run '{again(document, profile, coefficients, path)}' again")
