"""The state folder of one deployment: which engine runs it, what is paused, and what the scaler remembers.

Four files, each replaced as a whole, each with one kind of writer: ``engine.json`` (up and down), ``pauses.json``
(pause and resume), ``scaling.json`` and ``loads.json`` (whoever holds the lock). One that cannot be read is refused, never taken for
an empty one. Folder mode 0700, files 0600.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from cfscale.core.foresight import Loads
from cfscale.core.history import History, Remembered
from cfscale.core.policy import Pause
from cfscale.errors import ActionError, UnavailableError

STATE_SCHEMA = "cfscale/state/v1"
ALL_SERVICES = "*"
FOREVER = 253_402_300_799.0  # the last second of the year 9999


class _Stored(msgspec.Struct, frozen=True):
    schema: str


class _Engine(_Stored, frozen=True):
    engine: str


class _Pauses(_Stored, frozen=True):
    pauses: dict[str, Pause]


class _Histories(_Stored, frozen=True):
    histories: dict[str, History]
    boot: str = ""
    clock_ahead: float | None = None


class _Loads(_Stored, frozen=True):
    loads: dict[str, Loads]


T = TypeVar("T", bound=_Stored)


def state_folder(name: str, environment: Mapping[str, str]) -> Path:
    """Where the state of the deployment of this name is; nothing is created. Raises UnavailableError without a home."""
    if given := environment.get("CFSCALE_STATE_DIR"):
        return Path(given)
    if base := environment.get("XDG_STATE_HOME"):
        return Path(base) / "cfscale" / name
    try:
        return Path.home() / ".local" / "state" / "cfscale" / name
    except RuntimeError as error:
        raise UnavailableError("there is no home directory for the state: set CFSCALE_STATE_DIR") from error


class State:
    """Typed access to the files of one state folder. Reading creates nothing; a missing file is an empty one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[tuple[int, int, int] | None, Mapping[str, Pause]] = (None, {})

    def create(self) -> None:
        """Make the folder, for this user alone; one that exists keeps its mode. Raises ActionError."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ActionError(
                f"{self.folder}: the state folder cannot be made: {error.strerror}; set CFSCALE_STATE_DIR"
            ) from error

    def engine(self) -> str | None:
        """The engine that ``up`` recorded, if any."""
        stored = self._read("engine.json", _Engine)
        return stored.engine if stored else None

    def record_engine(self, engine: str | None) -> None:
        """Record the engine that runs the deployment; None after ``down``."""
        if engine is None:
            with suppress(FileNotFoundError):
                (self.folder / "engine.json").unlink()
        else:
            self._write("engine.json", _Engine(STATE_SCHEMA, engine))

    def pauses(self) -> Mapping[str, Pause]:
        """Pauses by service, expired ones included; ``*`` stands for all services."""
        stored = self._read("pauses.json", _Pauses)
        return stored.pauses if stored else {}

    def pause_of(self, service: str) -> Pause:
        """What is paused for one service, whether by its own name or for all."""
        return self.pauses_of((service,))[service]

    def pauses_of(self, services: Iterable[str]) -> Mapping[str, Pause]:
        """What is paused, for each of these services."""
        pauses = self._current_pauses()
        everywhere = pauses.get(ALL_SERVICES, Pause())
        return {name: _either(pauses[name], everywhere) if name in pauses else everywhere for name in services}

    def _current_pauses(self) -> Mapping[str, Pause]:
        """The pauses, read again only where their file is another one: they are asked for with every tick."""
        try:
            stat = (self.folder / "pauses.json").stat()
        except OSError:
            return self.pauses()
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._seen[0] != mark:
            self._seen = (mark, self.pauses())
        return self._seen[1]

    def pause(self, service: str, *, scale_in_until: float | None, scale_out_until: float | None) -> None:
        """Pause a service (or ``*``) until then, per direction; None leaves a direction as it is, 0 resumes it."""
        with self._exclusive():
            pauses = dict(self.pauses())
            old = pauses.get(service, Pause())
            pauses[service] = Pause(
                old.scale_in_until if scale_in_until is None else scale_in_until,
                old.scale_out_until if scale_out_until is None else scale_out_until,
            )
            self._write("pauses.json", _Pauses(STATE_SCHEMA, pauses))

    def recall(self) -> Remembered:
        """What the scaler remembers. The monotonic clock begins anew with the host: that of another start says nothing."""
        stored = self._read("scaling.json", _Histories)
        if stored is None:
            return Remembered({})
        same = stored.boot and stored.boot == _boot()
        return Remembered(stored.histories, stored.clock_ahead if same else None)

    def remember(self, remembered: Remembered) -> None:
        """Store what the scaler remembers."""
        stored = _Histories(STATE_SCHEMA, dict(remembered.histories), _boot(), remembered.clock_ahead)
        self._write("scaling.json", stored, indented=False)

    def loads(self) -> Mapping[str, Loads]:
        """The loads by the minute that forecasts are made of, by service."""
        stored = self._read("loads.json", _Loads)
        return stored.loads if stored else {}

    def remember_loads(self, loads: Mapping[str, Loads]) -> None:
        """Store the loads by the minute."""
        self._write("loads.json", _Loads(STATE_SCHEMA, dict(loads)), indented=False)

    def _read(self, name: str, kind: type[T]) -> T | None:
        path = self.folder / name
        try:
            raw = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnavailableError(f"{path}: the state cannot be read: {error.strerror}") from error
        try:
            stored = msgspec.json.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnavailableError(f"{path}: not readable ({error}): move it away to start afresh") from error
        if stored.schema != STATE_SCHEMA:
            raise UnavailableError(f"{path}: written by another version of cfscale: use that one, or move it away")
        return stored

    def _write(self, name: str, value: object, *, indented: bool = True) -> None:
        self.create()
        text = msgspec.json.encode(value)
        try:
            _replace(self.folder / name, msgspec.json.format(text) if indented else text)
        except OSError as error:
            raise ActionError(f"{self.folder / name}: cannot be written: {error.strerror}; see to its disk") from error

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep a second writer out between reading and replacing."""
        self.create()
        folder = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _boot() -> str:
    """A name for the time since the host was started; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _either(one: Pause, other: Pause) -> Pause:
    """What either of two pauses stops."""
    return Pause(
        max(one.scale_in_until, other.scale_in_until),
        max(one.scale_out_until, other.scale_out_until),
    )


def _replace(path: Path, text: bytes) -> None:
    """Put text in a file's place at once and for good: readers see the old file or the new one, never a part."""
    file, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
