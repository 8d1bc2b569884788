"""A program as the question: its exit code is the answer.

    0 up, anything else down; as a Nagios plugin (``codes=nagios``): 0 up, 1 degraded, 2 down, 3 unknown

It is started from an argument vector, never through a shell, as the leader of a process group of its own that is killed
whole, whatever it forked and whatever signals it ignores. Of its output 4 KiB are kept, the rest is thrown away unread
by anybody. It cannot fill the disk, leave a core or eat the memory of this machine.
"""

import asyncio
import os
import resource
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from cfscale.adapters.probes.network import Answer, BlindError, Dialer
from cfscale.core.health import State, Target

KEPT_BYTES = 4096
_LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 16 * 2**20,
    resource.RLIMIT_AS: 4 * 2**30,
    resource.RLIMIT_NOFILE: 256,
}
_NAGIOS: Mapping[int, State] = {0: State.UP, 1: State.DEGRADED, 2: State.DOWN, 3: State.UNKNOWN}
# a program gets what it takes to find others and to speak; secrets of this process are none of its business
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


async def probe_exec(dial: Dialer, target: Target) -> Answer:
    """Run ``about``; ``user`` says how its exit code is read. Raises BlindError where it cannot be started."""
    process = await _started(target.about)
    dial.marks.connected = monotonic()
    try:
        async with asyncio.timeout(dial.deadline - monotonic()):
            said = await _output(process.stdout) if process.stdout else b""
            code = await process.wait()
    finally:
        _end(process)
        await process.wait()
    return judge(code, said.decode("utf-8", "replace"), nagios=target.user == "nagios")


async def _started(argv: tuple[str, ...]) -> Process:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env=environment, start_new_session=True, cwd="/"
        )
    except OSError as error:
        raise BlindError(f"{argv[0]} cannot be started: {(error.strerror or str(error)).lower()}") from error
    for limit, most in _LIMITS.items():
        with suppress(OSError, ValueError):  # it may have ended already; what is inherited may be lower
            _, hard = resource.prlimit(process.pid, limit)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(process.pid, limit, (bound, bound))
    return process


async def _output(stream: asyncio.StreamReader) -> bytes:
    """All output is drained, so that a program never waits for a reader; the first bytes are kept."""
    kept = b""
    while data := await stream.read(65_536):
        kept += data[: KEPT_BYTES - len(kept)]
    return kept


def _end(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def judge(code: int, said: str, *, nagios: bool) -> Answer:
    """The verdict on an exit code; the first line that was printed is the reason, without performance data."""
    line = next((line for raw in said.splitlines() if (line := raw.partition("|")[0].strip())), "")
    states = _NAGIOS if nagios else {0: State.UP}
    ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return states.get(code, State.DOWN), f"{ended}: {line}" if line else ended
