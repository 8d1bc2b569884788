"""A running replica as the supervisor holds it: the shim, and the socket pair that ties the two together.

The end of our side asks the shim to stop; the end of its side says that nothing of the replica is left.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cfscale.adapters.process.layout import Layout, open_log
from cfscale.adapters.process.procfs import Stat, read_stat
from cfscale.adapters.process.recipes import Recipe
from cfscale.adapters.process.shim import SIGNALLED

_SHIM = str(Path(__file__).with_name("shim.py"))


@dataclass(slots=True)
class Surroundings:
    """What all slots of a supervisor share. ``strays``: a shim was killed, and what it held may still run."""

    layout: Layout
    selector: selectors.BaseSelector
    replicas_lock: int
    tell: Callable[[str], None]
    pick_port: Callable[[], int]
    env: dict[str, str] = field(default_factory=dict)
    strays: bool = False


class Process:
    """One shim with its replica. Raises OSError when it cannot be started."""

    def __init__(self, recipe: Recipe, words: Sequence[str], env: Mapping[str, str], log: Path, lock: int) -> None:
        grace = recipe.service.stop_grace_seconds
        ours, theirs = socket.socketpair()
        try:
            with theirs, os.fdopen(open_log(log), "ab") as output:
                self._popen = subprocess.Popen(
                    [sys.executable, "-I", "-S", _SHIM, str(theirs.fileno()), str(lock), str(grace), "--", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=recipe.directory,
                    env=env,
                    pass_fds=(theirs.fileno(), lock),
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            raise
        self.link = ours

    @property
    def shim(self) -> int:
        """The pid of the shim, our own child."""
        return self._popen.pid

    def listen(self) -> tuple[bool, Stat | None]:
        """What the shim said, after its link became ready: (still there, the replica's process unless it has ended)."""
        words = self.link.recv(64)
        stat = read_stat(int(words.split()[-1])) if words else None
        return bool(words), stat if stat is not None and stat.parent == self.shim else None

    def stop(self) -> None:
        """Ask the shim to end the replica: SIGTERM, grace, SIGKILL."""
        self.link.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End a shim that does not end by itself; the kernel then kills the replica."""
        self._popen.kill()

    def wait(self) -> str:
        """How the replica ended, in words; to be called after the link's end."""
        self.link.close()
        status = self._popen.wait()
        if status < 0:
            return f"ended with its shim by {_signal_name(-status)}"
        return f"ended by {_signal_name(status - SIGNALLED)}" if status > SIGNALLED else f"exited with {status}"

    @property
    def shim_was_killed(self) -> bool:
        """Whether the shim itself was killed, and so could not clean up; known after ``wait``."""
        return self._popen.returncode is not None and self._popen.returncode < 0

    def abandon(self) -> None:
        """Let go without waiting; the shim still ends the replica within its grace period."""
        self.link.close()
        if self._popen.returncode is None:
            self._popen.returncode = 0  # it is left to init on purpose


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
