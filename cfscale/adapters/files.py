"""Rendered trees on disk: written whole or not at all, and never over what somebody else wrote.

    refuse (symlinks, hand edits, foreign files) ─▶ stage every file beside its target ─▶ swap ─▶ remove what is ours and gone

The lock file of the previous render says which files are ours and with what content. A file that differs from it was
edited by hand; a file that is not in it is foreign. Neither is replaced without ``force``. The new lock is swapped in
last: a run that was killed half-way is completed by running it again.
"""

import difflib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal

from msgspec import Struct

from cfscale.errors import ActionError, InputError, LockedError, RefusedError

LOCK_NAME = "cfscale.lock.json"
SECRETS = "secrets"
MAX_FILE_BYTES = 16 * 1024 * 1024
_LOCK_SCHEMA = "cfscale/lock/v1"
_PASSWORD = re.compile(r"[!#-&(-\[\]-~]{1,512}")
# PgBouncer's list of users, and the directives that a Valkey server includes
_USERLIST, _AUTH = "pooler_userlist.txt", "_auth.conf"
_STAGED_PREFIX, _STAGED_SUFFIX = ".cfscale-", ".tmp"


class Drift(Struct, frozen=True):
    """One file that is not as it would be rendered."""

    path: str
    kind: Literal["missing", "changed", "extra"]


def read_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """The text of a regular file of at most ``max_bytes``; raises InputError, and follows no symlink."""
    try:
        return _read(path, max_bytes).decode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error


def _read(path: Path, max_bytes: int) -> bytes:
    with open(path, "rb", opener=_no_follow) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes")
    return raw


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def write_atomic(path: Path, text: str, mode: int) -> None:
    """Replace a file as a whole, synced to disk, or leave it as it was and raise ActionError; a symlink is replaced."""
    try:
        staged = _stage(path, text, mode)
        staged.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise ActionError(f"{path}: not written: {error.strerror}; the old content is intact") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable for all, or leave it as it was and raise ActionError."""
    try:
        staged = _stage(path, content, 0o644)
        staged.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise ActionError(f"{path}: not written: {error.strerror}; the old content is intact") from error


def _stage(path: Path, text: str | bytes, mode: int) -> Path:
    """The text in a synced temporary file beside its target; raises OSError and leaves nothing behind."""
    staged = path.parent / f"{_STAGED_PREFIX}{path.name}.{secrets.token_hex(4)}{_STAGED_SUFFIX}"
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            os.fchmod(descriptor, mode)  # whatever the umask: containers with a user of their own read these files
            file.flush()
            os.fsync(descriptor)
    except OSError:
        staged.unlink(missing_ok=True)
        raise
    return staged


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def drift(out: Path, files: Mapping[str, str]) -> tuple[Drift, ...]:
    """How the directory differs from these files (the lock among them); nothing is written.

    ``extra`` is a file that an earlier render wrote and this one does not; foreign files are none of our business.
    """
    found: list[Drift] = []
    for path, text in files.items():
        digest = _digest_on_disk(out, path)
        if digest != _digest(text):
            found.append(Drift(path, "missing" if digest is None else "changed"))
    gone = _owned(out, force=True).keys() - files.keys()
    found.extend(Drift(path, "extra") for path in sorted(gone) if _digest_on_disk(out, path) is not None)
    return tuple(found)


def diff_text(out: Path, files: Mapping[str, str]) -> str:
    """The drift as a unified diff from what is on disk to what would be rendered; empty where there is none."""
    parts: list[str] = []
    for item in drift(out, files):
        old = "" if item.kind == "missing" else _shown(out / item.path)
        new = files.get(item.path, "")
        names = (f"{item.path} (on disk)", f"{item.path} (rendered)")
        parts.extend(difflib.unified_diff(old.split("\n"), new.split("\n"), *names, lineterm=""))
    return "\n".join(parts)


def _shown(path: Path) -> str:
    try:
        return _read(path, MAX_FILE_BYTES).decode(errors="backslashreplace")
    except OSError as error:
        return f"({error.strerror or error})"


def write_tree(out: Path, files: Mapping[str, str], lock_text: str, *, force: bool) -> tuple[str, ...]:
    """Make the directory hold these files and the lock; returns the paths that were written, in order.

    RefusedError names every file that was edited by hand or is not ours, and every symlink in the way (``force``
    overrides the former only). ActionError: the disk refused; the old files are intact unless it says otherwise.
    """
    wanted = {**files, LOCK_NAME: lock_text}
    for path in wanted:
        _require_inside(path)
    with _claimed(out):
        owned = _owned(out, force=force)
        _refuse_obstacles(out, wanted)
        changed = {path: text for path, text in wanted.items() if _digest_on_disk(out, path) != _digest(text)}
        if not force:
            _refuse_foreign(out, [path for path in changed if path != LOCK_NAME], owned)
        _sweep(out, {*wanted, *owned})
        _swap(out, changed)
        _remove_stale(out, {path: digest for path, digest in owned.items() if path not in wanted})
    return tuple(changed)


def _require_inside(path: str) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise RefusedError(f"{path!a}: leads out of the directory that is rendered into")


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """The directory, made where it is missing, and for one writer at a time."""
    if out.is_symlink():
        raise RefusedError(f"{out}: a symlink: give the directory itself")
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ActionError(f"{out}: not a directory to write to: {error.strerror}") from error
    try:
        _lock(out, descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(out: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockedError(f"{out}: another cfscale is writing there: try again when it is done") from error
    except OSError as error:
        raise ActionError(f"{out}: cannot be locked: {error.strerror}") from error


def _owned(out: Path, *, force: bool) -> dict[str, str]:
    """What the lock on disk says is ours: path to digest. Without a lock nothing is; a damaged one is refused."""
    if not os.path.lexists(out / LOCK_NAME):
        return {}
    try:
        return _parsed_lock(_read(out / LOCK_NAME, MAX_FILE_BYTES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RefusedError) as error:
        if force:
            return {}
        raise RefusedError(
            f"{out / LOCK_NAME}: not a lock file of this version: restore it, or give --force"
        ) from error


def _parsed_lock(raw: bytes) -> dict[str, str]:
    document = json.loads(raw)
    if document["schema"] != _LOCK_SCHEMA:
        raise ValueError(document["schema"])
    for path in document["files"]:
        _require_inside(path)
    return {path: str(digest) for path, digest in document["files"].items()}


def _refuse_obstacles(out: Path, paths: Iterable[str]) -> None:
    found = [f"{path} ({obstacle})" for path in paths if (obstacle := _obstacle(out, path))]
    if found:
        raise RefusedError(
            f"{out}: in the way: {', '.join(found)}: remove them, not even --force follows or replaces these"
        )


def _obstacle(out: Path, path: str) -> str | None:
    """What keeps a path from being a file that we may replace: a symlink anywhere, or something that is no file."""
    place = out
    *parents, name = PurePosixPath(path).parts
    for part in parents:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return "a symlink above it" if place.is_symlink() else "no directory above it"
    place /= name
    if place.is_symlink():
        return "a symlink"
    return "not a regular file" if place.exists() and not place.is_file() else None


def _refuse_foreign(out: Path, changed: Iterable[str], owned: Mapping[str, str]) -> None:
    found = []
    for path in changed:
        digest = _digest_on_disk(out, path)
        if digest is not None and digest != owned.get(path):
            found.append(f"{path} ({'edited by hand' if path in owned else 'not written by cfscale'})")
    if found:
        raise RefusedError(f"{out}: would overwrite {', '.join(found)}: move them away, or give --force")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_on_disk(out: Path, path: str) -> str | None:
    """The digest of a file, None where there is none, and no digest at all of what is not a file we could have written."""
    if not os.path.lexists(out / path):
        return None
    try:
        return "" if _obstacle(out, path) else hashlib.sha256(_read(out / path, MAX_FILE_BYTES)).hexdigest()
    except OSError:
        return ""


def _sweep(out: Path, paths: Iterable[str]) -> None:
    """Remove what a killed run had staged."""
    for folder in {(out / path).parent for path in paths}:
        for leftover in folder.glob(f"{_STAGED_PREFIX}*{_STAGED_SUFFIX}"):
            with suppress(OSError):  # in the way of nothing
                leftover.unlink(missing_ok=True)


def _swap(out: Path, changed: Mapping[str, str]) -> None:
    """Stage everything, then replace file by file; the lock, which comes last, makes it official."""
    staged: dict[Path, Path] = {}
    made: list[Path] = []
    done = 0
    try:
        for path, text in changed.items():
            _make_folders(out, out / path, made)
            staged[out / path] = _stage(out / path, text, 0o644)
        for target, temporary in staged.items():
            temporary.replace(target)
            done += 1
        for folder in {out, *made, *(target.parent for target in staged)}:
            _sync_directory(folder)
    except OSError as error:
        _undo(list(staged.values())[done:], made)
        state = "the old files are intact" if done == 0 else f"{done} of {len(staged)} files are new: render again"
        raise ActionError(f"{out}: cannot be written: {error.strerror}; {state}") from error


def _make_folders(out: Path, target: Path, made: list[Path]) -> None:
    missing = [folder for folder in target.parents if out in folder.parents and not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o755)
        made.append(folder)


def _undo(staged: Iterable[Path], made: Iterable[Path]) -> None:
    for temporary in staged:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    for folder in reversed(list(made)):
        with suppress(OSError):  # it holds a file that was swapped in already
            folder.rmdir()


def _remove_stale(out: Path, stale: Mapping[str, str]) -> None:
    """Remove what an earlier render wrote and nobody has edited since, and the directories that this empties."""
    for path, digest in stale.items():
        if _digest_on_disk(out, path) != digest:
            continue
        try:
            (out / path).unlink()
            _remove_empty(out, (out / path).parent)
        except OSError as error:
            raise ActionError(f"{out / path}: no longer rendered but cannot be removed: {error.strerror}") from error


def _remove_empty(out: Path, folder: Path) -> None:
    while out in folder.parents and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def ensure_env_files(out: Path, names: Iterable[str]) -> None:
    """Create the files for the operator's own variables where they are missing, empty, for their owner only."""
    for name in names:
        _create(out / SECRETS / name, "", 0o600)


def ensure_secrets(out: Path, names: Iterable[str] = ("queue_password", "queue_auth.conf")) -> None:
    """Create the secrets of a deployment where they are missing; what exists is never rewritten.

    Compose ignores owner and mode of file secrets and containers do not run as root: the files are readable (0444),
    the directory is not (0700). A password is drawn; the other files hold one in the words of a component.
    """
    folder = out / SECRETS
    if folder.is_symlink():
        raise RefusedError(f"{folder}: a symlink: secrets are kept in a directory of their own")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ActionError(f"{folder}: cannot be made: {error.strerror}") from error
    _create(folder / ".gitignore", "*\n")
    derived = {name: of for name in names if (of := _derived_from(name)) is not None}
    for name, of in derived.items():
        if not os.path.lexists(folder / of) and os.path.lexists(folder / name):
            raise RefusedError(f"{folder}: {name} without {of}: restore it, or remove both")
    for name in names:
        if name not in derived:
            _password(folder / name)
    for name, of in derived.items():
        _derive(folder / name, of, _password(folder / of))


def _derived_from(name: str) -> str | None:
    """The password that a file holds in a component's words; None for a password itself."""
    if name == _USERLIST:
        return "database_password"
    return name.removesuffix(_AUTH) + "_password" if name.endswith(_AUTH) else None


def _password(path: Path) -> str:
    """The password in a file, drawn where there is none yet."""
    _create(path, secrets.token_hex(32))
    password = read_text(path).rstrip("\n")
    if not _PASSWORD.fullmatch(password):
        raise InputError(f"{path}: use 1 to 512 printable ASCII characters on one line, no space, quote or backslash")
    return password


def _derive(path: Path, of: str, password: str) -> None:
    text = f'"app" "{password}"\n' if path.name == _USERLIST else f"requirepass {password}\nmasterauth {password}\n"
    _create(path, text)
    if read_text(path) != text:
        raise RefusedError(
            f"{path.parent}: {path.name} does not hold the password of {of}: remove it to derive it again"
        )


def _create(path: Path, text: str, mode: int = 0o444) -> None:
    if not os.path.lexists(path):
        write_atomic(path, text, mode)
