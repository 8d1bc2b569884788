"""The small parent of one replica: it outlives neither its supervisor nor leaves anything of the replica behind.

    shim.py LINK LOCK GRACE -- COMMAND...

It runs alone (``python -I -S shim.py``) and imports nothing of cfscale. LINK is a socket to the supervisor: the
shim writes the replica's pid to it, and 0 when the replica ended but its children did not; it reads only the end. The end of LINK means ``stop``, whether the
supervisor asked for it or was killed: SIGTERM to the replica's process group, GRACE seconds, SIGKILL. LOCK is a
descriptor that is only held open: the lock on it says to the next supervisor that something is still running.

The shim is the subreaper of everything the replica starts, so that "no child left" means "nothing left", and the
CPU time of every child that ended is in the shim's own account. It signals only its own children, which it has
not reaped: no pid can have changed hands.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CANNOT_EXECUTE = 127
SIGNALLED = 128  # a shell adds the signal to it


def main(argv: Sequence[str]) -> int:
    """Run the command to its end, or to the end of the link, and return its exit status as a shell would."""
    link, lock, grace, command = int(argv[1]), int(argv[2]), float(argv[3]), list(argv[5:])
    os.set_inheritable(link, False)  # noqa: FBT003 - takes no keywords
    os.set_inheritable(lock, False)  # noqa: FBT003 - takes no keywords
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = catch_signals()
    pid = start(command)
    announce(pid, link)
    status = watch(pid, link, wake)
    if status is not None and children_of(os.getpid()):
        announce(0, link)
    status = end(pid, status, wake, grace)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process; a kernel that does not know it is no reason to fail."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def catch_signals() -> int:
    """Turn SIGCHLD and the stop signals into bytes on a pipe, and return its read end."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *STOP_SIGNALS):
        signal.signal(number, lambda _number, _frame: None)
    return reader


def start(command: list[str]) -> int:
    """Start the command in a session of its own and return its pid; if the shim is killed, it is killed too."""
    shim = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, *STOP_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == shim:
            os.execvp(command[0], command)  # noqa: S606 - an argument vector is the point: no shell in between
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(CANNOT_EXECUTE)


def announce(pid: int, link: int) -> None:
    """Tell the supervisor the replica's pid, or 0 when it has ended and left children; its end is no concern here."""
    try:
        os.write(link, b"%d\n" % pid)
    except BrokenPipeError:
        return


def watch(pid: int, link: int, wake: int) -> int | None:
    """Wait until the replica ends (its status) or the link or a signal says stop (None)."""
    while True:
        ready, _, _ = select.select([link, wake], [], [])
        if link in ready:
            return None
        numbers = os.read(wake, 4096)
        status = reap().get(pid)
        if status is not None or any(number in numbers for number in STOP_SIGNALS):
            return status


def reap() -> dict[int, int]:
    """The status of each child that has ended by now, orphans of the replica included."""
    ended: dict[int, int] = {}
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return ended
            ended[pid] = status
    except ChildProcessError:
        return ended


def end(pid: int, status: int | None, wake: int, grace: float) -> int:
    """End all that is left, politely within the grace period and then for certain; return the replica's status."""
    signal_group(pid, signal.SIGTERM)
    asked = {pid}
    deadline = time.monotonic() + grace
    while children := children_of(os.getpid()):
        left = deadline - time.monotonic()
        for child in children:
            if left <= 0:
                os.kill(child, signal.SIGKILL)
            elif child not in asked and os.getpgid(child) != pid:
                asked.add(child)
                os.kill(child, signal.SIGTERM)
        if select.select([wake], [], [], max(0.05, min(left, 0.5)))[0]:
            os.read(wake, 4096)
        ended = reap()
        status = ended.get(pid, status)
    return 0 if status is None else status


def signal_group(pid: int, number: int) -> None:
    """Signal the replica's group; before the replica has made it, and once it is empty, there is none."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        if pid in children_of(os.getpid()):
            os.kill(pid, number)


def children_of(parent: int) -> list[int]:
    """The pids whose parent this is, ended ones that were not reaped included."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the time to start
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - as above
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv))
