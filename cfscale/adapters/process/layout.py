"""Where a deployment of local processes keeps its files, all of them for its owner alone.

STATE/supervisor.lock     held by the supervisor for its life; its text names the holder
STATE/replicas.lock       held by every replica's shim: free means that nothing is running
STATE/supervisor.json     what a detached supervisor is to run
STATE/supervisor.sock     where the supervisor answers (elsewhere if STATE is too long for a socket's name)
STATE/logs/SERVICE-N.log  what the replicas write; STATE/data: what they keep
"""

import fcntl
import hashlib
import os
import shutil
import stat
import time
from pathlib import Path

from msgspec import Struct

from cfscale.errors import LockedError, UnavailableError

PRIVATE_DIRECTORY = 0o700
PRIVATE_FILE = 0o600
_SOCKET_NAME_LIMIT = 80  # the kernel takes 107 bytes; HAProxy adds a suffix while it binds
_LOG_BYTES = 10 * 1024 * 1024


class Layout(Struct, frozen=True):
    """The files of one deployment under its state directory."""

    state: Path

    @property
    def supervisor_lock(self) -> Path:
        """Held by the one supervisor."""
        return self.state / "supervisor.lock"

    @property
    def replicas_lock(self) -> Path:
        """Held by whatever still runs."""
        return self.state / "replicas.lock"

    @property
    def order(self) -> Path:
        """What a detached supervisor is to run."""
        return self.state / "supervisor.json"

    @property
    def socket(self) -> Path:
        """Where the supervisor answers."""
        return self.sockets / "supervisor.sock"

    @property
    def balancer_socket(self) -> Path:
        """HAProxy's runtime API."""
        return self.sockets / "haproxy.sock"

    @property
    def balancer_config(self) -> Path:
        """HAProxy's configuration as rendered for local processes."""
        return self.state / "haproxy.cfg"

    @property
    def queue_config(self) -> Path:
        """The queue server's configuration; it holds the password."""
        return self.state / "queue.conf"

    @property
    def queue_password(self) -> Path:
        """The password alone, for clients."""
        return self.state / "queue_password"

    @property
    def logs(self) -> Path:
        """One file a replica, and the supervisor's own."""
        return self.state / "logs"

    @property
    def data(self) -> Path:
        """What services keep across runs."""
        return self.state / "data"

    @property
    def sockets(self) -> Path:
        """The state directory, or a short stand-in for it where its name is too long for a socket address."""
        if len(os.fsencode(self.state)) <= _SOCKET_NAME_LIMIT:
            return self.state
        digest = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:16]
        return Path("/tmp") / f"cfscale-{os.getuid()}-{digest}"  # noqa: S108 - the name is checked for its owner

    def create(self) -> None:
        """Make the directories, for their owner alone; raises UnavailableError."""
        try:
            for directory in (self.state, self.sockets, self.logs, self.data):
                directory.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
                _require_own(directory)
        except OSError as error:
            raise UnavailableError(f"{self.state}: the state directory cannot be used: {error.strerror}") from error


def _require_own(directory: Path) -> None:
    """Refuse a directory that is someone else's or a link: the temporary directory is open to everyone."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UnavailableError(f"{directory} is not a directory of this user: remove it or set CFSCALE_STATE_DIR")
    directory.chmod(PRIVATE_DIRECTORY)


def write_private(path: Path, text: str) -> None:
    """Replace a file as a whole; nobody else may read it at any moment. Raises UnavailableError, the old file intact."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE_FILE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UnavailableError(f"{path}: cannot be written: {error.strerror}") from error


def remove_data(layout: Layout) -> None:
    """Remove what services kept; logs stay."""
    for path in (layout.queue_config, layout.queue_password):
        path.unlink(missing_ok=True)
    shutil.rmtree(layout.data, ignore_errors=True)


def open_log(path: Path) -> int:
    """A descriptor that appends to a log; appending is what lets the log be cut while it is written."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, PRIVATE_FILE)


def cut_log(path: Path) -> None:
    """Move a log of more than 10 MiB to ``NAME.1``, over what was there, and go on with an empty one.

    Lines written in that moment are lost. Where the disk is full the old lines are, so that it is not full for long.
    """
    if path.stat().st_size <= _LOG_BYTES:
        return
    try:
        write_private(path.with_name(path.name + ".1"), path.read_text(encoding="utf-8", errors="replace"))
    except UnavailableError:
        pass
    finally:
        os.truncate(path, 0)


def claim(layout: Layout) -> int:
    """The lock of the one supervisor, held while the descriptor is open; raises LockedError naming the holder."""
    descriptor = os.open(layout.supervisor_lock, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise LockedError(
            f"{layout.state}: already supervised by {holder or 'another process'}: 'cfscale down' stops it"
        ) from error
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()}".encode(), 0)
    return descriptor


def share_replicas_lock(layout: Layout, patience: float) -> int:
    """The lock that every shim inherits; waits until the replicas of a previous supervisor are gone."""
    descriptor = os.open(layout.replicas_lock, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
    if not _wait_exclusive(descriptor, patience):
        os.close(descriptor)
        raise LockedError(
            f"{layout.state}: replicas of a previous supervisor are still stopping after {patience:g} s: try again"
        )
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def wait_until_gone(path: Path, patience: float) -> bool:
    """Whether nobody holds this lock any more, within ``patience`` seconds."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _wait_exclusive(descriptor, patience)
    finally:
        os.close(descriptor)


def _wait_exclusive(descriptor: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
