"""Saved plans on disk: digests of what they were made from, and paths that survive a move of the whole folder."""

import hashlib
import os
from pathlib import Path

from cfscale.core.savedplan import MAX_BYTES, Source, recognised
from cfscale.errors import InputError, RefusedError


def read_start(path: Path) -> bytes:
    """The file up to just past the most that is read; raises InputError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a file that can be read") from error


def source_of(path: str, saved: Path) -> Source:
    """A file as a saved plan records it: its digest, and its path seen from the folder of the saved plan.

    Raises InputError for a pipe: nobody could tell later whether it has changed.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: no regular file: a plan is saved with files it can be held against")
    digest = hashlib.sha256(read_start(Path(path))).hexdigest()
    if Path(path).is_absolute():
        return Source(path, digest)
    folder = saved.parent.resolve()
    return Source(os.path.relpath(Path(path).parent.resolve() / Path(path).name, folder), digest)


def shown(source: Source, saved: Path) -> str:
    """The path of a recorded file as seen from here."""
    return os.path.normpath(saved.parent / source.path)


def changed_source(source: Source, saved: Path) -> str | None:
    """What has happened to a recorded file since; None where it is the same."""
    path = shown(source, saved)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        return f"{path} cannot be read any more ({error.strerror})"
    return None if hashlib.sha256(raw).hexdigest() == source.sha256 else f"{path} has changed since"


def refuse_foreign(path: Path) -> None:
    """Raise RefusedError where something else than a saved plan stands in the way."""
    if not os.path.lexists(path):
        return
    if not path.is_file() or b'"cfscale/saved-plan/' not in (raw := read_start(path))[:256] or not recognised(raw):
        raise RefusedError(f"{path}: exists and is no saved plan: choose another name, or move it away")
