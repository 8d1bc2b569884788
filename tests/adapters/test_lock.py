import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfscale.adapters.lock import Lock, lock_holder, lock_path
from cfscale.errors import LockedError, UnavailableError

HOLD = """
import sys
from pathlib import Path
from cfscale.adapters.lock import Lock
with Lock("process:acme", command="cfscale scale --watch", started_at="today", folder=Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def a_lock(folder: Path, target: str = "process:acme") -> Lock:
    return Lock(target, command="cfscale up", started_at="now", folder=folder)


def test_fault_32_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with a_lock(tmp_path), pytest.raises(LockedError, match=rf"pid {os.getpid()} \('cfscale up'.*does not reach other"):
        a_lock(tmp_path).acquire()


def test_other_targets_are_free(tmp_path: Path) -> None:
    with a_lock(tmp_path), a_lock(tmp_path, "compose:acme"):
        assert lock_path("process:acme", tmp_path) != lock_path("compose:acme", tmp_path)


def test_released_it_has_no_holder_and_can_be_taken(tmp_path: Path) -> None:
    lock = a_lock(tmp_path)
    with lock:
        assert str(lock_holder("process:acme", tmp_path)).startswith(f"pid {os.getpid()} ")
    lock.release()
    assert lock_holder("process:acme", tmp_path) is None
    with a_lock(tmp_path):
        pass


@pytest.mark.process
def test_fault_32_a_holder_killed_outright_frees_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"pid {child.pid}"):
            a_lock(tmp_path).acquire()
        child.kill()
        child.wait()
    assert lock_holder("process:acme", tmp_path) is None
    with a_lock(tmp_path) as lock:
        lock.check()


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_lock_taken_away_is_noticed_before_the_next_action(tmp_path: Path, *, replaced: bool) -> None:
    with a_lock(tmp_path) as lock:
        lock.check()
        lock.path.unlink()
        if replaced:
            lock.path.write_text("")
        with pytest.raises(LockedError, match="removed or replaced"):
            lock.check()


def test_a_lock_never_taken_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(LockedError):
        a_lock(tmp_path).check()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    lock_path("process:acme", tmp_path).symlink_to(target)
    with pytest.raises(UnavailableError, match="the lock cannot be opened"):
        a_lock(tmp_path).acquire()
    assert target.read_text() == "precious"


def test_a_holder_that_is_gone_or_unreadable_is_nobody(tmp_path: Path) -> None:
    lock_path("process:acme", tmp_path).write_text(
        '{"pid":1,"process_start":"x","started_at":"","command":"","user":""}'
    )
    assert lock_holder("process:acme", tmp_path) is None
    lock_path("process:acme", tmp_path).write_text("garbage")
    assert lock_holder("process:acme", tmp_path) is None
