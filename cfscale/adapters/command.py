"""How adapters run a program: an argument vector without a shell, a deadline, and what it said, line by line.

It stands for no outside thing of its own, which is why adapters may import it.
"""

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer

from cfscale.errors import UnavailableError

_TAIL_LINES = 50


def run(
    argv: Sequence[str],
    folder: Path,
    seconds: float,
    progress: Callable[[str], None] = lambda _: None,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """(exit code, negative if it was stopped; the last lines that it printed). Its Ctrl-C is ours to deal with.

    Raises UnavailableError where the program is not there. ``variables`` are added to its environment.
    """
    said: deque[str] = deque(maxlen=_TAIL_LINES)
    with _started(argv, folder, variables or {}) as child:
        deadline = Timer(seconds, _end, (child,))
        deadline.start()
        try:
            for line in child.stdout or ():
                said.append(line.strip())
                progress(line.rstrip())
            return child.wait(), list(said)
        finally:
            deadline.cancel()
            _end(child)


def gist(said: Sequence[str]) -> str:
    """The one line that says what went wrong."""
    lines = [" ".join(line.split()) for line in said if line]
    errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    return ((errors or lines)[-1:] or ["it says nothing"])[0][:300]


def _started(argv: Sequence[str], folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    # settings meant for other projects (a file, a profile, a name) must not reach ours
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    try:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise UnavailableError(f"there is no command '{argv[0]}': {_remedy(argv)}") from exc
    except OSError as exc:
        raise UnavailableError(f"the command '{argv[0]}' cannot be run: {exc.strerror}") from exc


def _remedy(argv: Sequence[str]) -> str:
    plugin = " and its compose plugin" if "compose" in argv else ""
    return f"install the Docker client{plugin}" if argv[0] == "docker" else "install it"


def _end(child: subprocess.Popen[str]) -> None:
    """End a command with all that it started. It keeps nothing itself: what is half done, the engine's list shows."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
