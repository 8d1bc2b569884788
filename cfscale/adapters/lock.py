"""One actor at a time on one target of this host: an flock on a file in a host-wide directory.

The kernel frees it when its holder ends, however that happens. It says who holds it, and it does not reach other hosts.
"""

import fcntl
import getpass
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from cfscale.errors import LockedError, UnavailableError

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class Holder(Struct, frozen=True):
    """Who holds a lock. ``process_start`` tells its process from a later one with the same pid."""

    pid: int
    process_start: str
    started_at: str
    command: str
    user: str

    def __str__(self) -> str:
        return f"pid {self.pid} ('{self.command}', user {self.user}, since {self.started_at})"


class Lock:
    """The lock on one target, held between ``acquire`` and ``release`` or inside ``with``."""

    def __init__(self, target: str, *, command: str, started_at: str, folder: Path | None = None) -> None:
        self.path = lock_path(target, folder)
        self._target = target
        self._holder = Holder(os.getpid(), _process_start(os.getpid()), started_at, command, _user())
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise LockedError naming its holder."""
        file = _open(self.path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            who = lock_holder(self._target, self.path.parent) or "another process"
            raise LockedError(
                f"{self._target} is locked by {who}: wait for it, or stop it (the lock does not reach other hosts)"
            ) from error
        self._file = file
        self._write(msgspec.json.encode(self._holder))

    def check(self) -> None:
        """Raise LockedError unless the lock is still ours: to be called before every action."""
        try:
            held = self._file is not None and os.path.samestat(os.fstat(self._file), self.path.lstat())
        except FileNotFoundError:
            held = False
        if not held:
            raise LockedError(
                f"{self.path}: the lock was removed or replaced while it was held: nothing more is changed"
            )

    def release(self) -> None:
        """Give the lock back; doing so twice is harmless."""
        if self._file is None:
            return
        self._write(b"")
        os.close(self._file)
        self._file = None

    def _write(self, text: bytes) -> None:
        """Name the holder in the file. One that another user made can be locked but not written."""
        if self._file is None or fcntl.fcntl(self._file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def lock_path(target: str, folder: Path | None = None) -> Path:
    """Where the lock of a target is, for every user of this host alike."""
    digest = hashlib.sha256(target.encode()).hexdigest()[:32]
    return (folder or _host_folder()) / f"cfscale-{digest}.lock"


def lock_holder(target: str, folder: Path | None = None) -> Holder | None:
    """Who holds the lock of a target, if that process is still alive; takes no lock itself."""
    try:
        holder = msgspec.json.decode(lock_path(target, folder).read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None
    return holder if holder.process_start == _process_start(holder.pid) else None


def _host_folder() -> Path:
    shared = Path("/run/lock")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _open(path: Path) -> int:
    try:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
        except PermissionError:
            return os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        raise UnavailableError(f"{path}: the lock cannot be opened: {error.strerror}; check its folder") from error


def _process_start(pid: int) -> str:
    """The start time of a process in clock ticks since boot; empty for one that is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
