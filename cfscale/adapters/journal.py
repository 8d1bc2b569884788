"""The journal: what was intended, what came of it, and why nothing was done, as JSON lines that survive a crash.

Every line is written and synced before ``write`` returns. A line cut short by a crash is skipped by readers, and the
next one begins on a line of its own. Old files are ``journal.jsonl.1`` (the newest) and up.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cfscale.core.decision import Decision, Entry, Kind
from cfscale.errors import ActionError, UnavailableError

MAX_BYTES = 4 * 1024 * 1024
KEPT_FILES = 3


class _Head(msgspec.Struct):
    """What a journal line has beside its decision."""

    kind: Kind
    id: str


class Journal:
    """The journal of one deployment, in its state folder."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / "journal.jsonl"
        self._max_bytes = max_bytes

    def write(self, entry: Entry) -> None:
        """Append one entry and sync it; raises ActionError where the disk does not take it."""
        line = msgspec.json.encode(
            {"kind": entry.kind, "id": entry.id, **msgspec.to_builtins(entry.decision)}, order="deterministic"
        )
        try:
            self._rotate()
            _append(self.path, line)
        except OSError as error:
            raise ActionError(
                f"{self.path}: the journal cannot be written: {error.strerror}; see to its disk"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """Every entry, oldest first, lines cut short left out; raises UnavailableError where it cannot be read."""
        for path in (*(self._old(number) for number in range(KEPT_FILES, 0, -1)), self.path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise UnavailableError(f"{path}: the journal cannot be read: {error.strerror}") from error
            yield from filter(None, map(_decoded, lines))

    def _old(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        try:
            full = self.path.stat().st_size >= self._max_bytes
        except FileNotFoundError:
            return
        if not full:
            return
        for number in range(KEPT_FILES - 1, 0, -1):
            if self._old(number).exists():
                self._old(number).replace(self._old(number + 1))
        self.path.replace(self._old(1))


def _append(path: Path, line: bytes) -> None:
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        text = (b"\n" if torn else b"") + line + b"\n"
        if os.write(file, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file)
    finally:
        os.close(file)
    if size == 0:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _decoded(line: bytes) -> Entry | None:
    try:
        head = msgspec.json.decode(line, type=_Head)
        return Entry(head.kind, head.id, msgspec.json.decode(line, type=Decision))
    except msgspec.DecodeError:
        return None
