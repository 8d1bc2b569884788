import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cfscale.adapters.files import (
    LOCK_NAME,
    Drift,
    diff_text,
    drift,
    ensure_secrets,
    read_text,
    write_atomic,
    write_tree,
)
from cfscale.errors import ActionError, InputError, LockedError, RefusedError
from tests.conftest import ROOT

FIRST = {"compose.yaml": "one\n", "config/haproxy.cfg": "two\n"}
SECOND = {"compose.yaml": "one, changed\n", "config/haproxy.cfg": "two\n"}


def lock_of(files: Mapping[str, str]) -> str:
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
    return json.dumps({"schema": "cfscale/lock/v1", "files": digests})


def put(out: Path, files: Mapping[str, str], *, force: bool = False) -> tuple[str, ...]:
    return write_tree(out, files, lock_of(files), force=force)


def tree(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*")) if path.is_file()}


def whole(files: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted({**files, LOCK_NAME: lock_of(files)}.items()))


def test_a_new_tree_is_written_whole_and_readable(tmp_path: Path) -> None:
    out = tmp_path / "a" / "deploy"
    old = os.umask(0o077)
    try:
        written = put(out, FIRST)
    finally:
        os.umask(old)

    assert tree(out) == whole(FIRST)
    assert written == ("compose.yaml", "config/haproxy.cfg", LOCK_NAME)
    assert stat.S_IMODE((out / "compose.yaml").stat().st_mode) == 0o644


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    before = (tmp_path / "config/haproxy.cfg").stat()

    assert put(tmp_path, FIRST) == ()
    assert put(tmp_path, SECOND) == ("compose.yaml", LOCK_NAME)
    assert (tmp_path / "config/haproxy.cfg").stat().st_ino == before.st_ino
    assert tree(tmp_path) == whole(SECOND)


def test_a_relative_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(Path(), {**FIRST, "a/b/c": "x"})
    put(Path(), FIRST)

    assert tree(tmp_path) == whole(FIRST)
    assert not (tmp_path / "a").exists()


def test_every_file_edited_by_hand_is_named_and_kept(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    (tmp_path / "compose.yaml").write_text("mine\n")
    (tmp_path / "config/haproxy.cfg").write_text("mine too\n")
    before = tree(tmp_path)

    with pytest.raises(RefusedError) as caught:
        put(tmp_path, dict.fromkeys(FIRST, "new"))

    assert "compose.yaml (edited by hand), config/haproxy.cfg (edited by hand)" in str(caught.value)
    assert tree(tmp_path) == before


def test_force_overwrites_what_was_edited(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    (tmp_path / "compose.yaml").write_text("mine\n")
    put(tmp_path, SECOND, force=True)

    assert tree(tmp_path) == whole(SECOND)


def test_a_foreign_file_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("somebody else's\n")

    with pytest.raises(RefusedError, match=r"compose.yaml \(not written by cfscale\)"):
        put(tmp_path, FIRST)
    assert tree(tmp_path) == {"compose.yaml": "somebody else's\n"}

    put(tmp_path, FIRST, force=True)
    assert tree(tmp_path) == whole(FIRST)


def test_a_file_that_has_the_wanted_content_already_is_adopted(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(FIRST["compose.yaml"])
    put(tmp_path, FIRST)

    assert tree(tmp_path) == whole(FIRST)


def test_files_nobody_renders_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    (tmp_path / "compose.override.yaml").write_text("mine\n")
    put(tmp_path, SECOND)

    assert (tmp_path / "compose.override.yaml").read_text() == "mine\n"
    assert drift(tmp_path, whole(SECOND)) == ()


def test_what_is_no_longer_rendered_is_removed_unless_edited(tmp_path: Path) -> None:
    put(tmp_path, {**FIRST, "images/agents/Dockerfile": "x", "images/agents/edited": "x", "extra/deep/file": "x"})
    (tmp_path / "images/agents/edited").write_text("mine")
    put(tmp_path, FIRST)

    assert tree(tmp_path) == dict(sorted({**whole(FIRST), "images/agents/edited": "mine"}.items()))
    assert not (tmp_path / "extra").exists()


def test_a_run_that_was_killed_before_the_lock_is_completed_by_the_next(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    (tmp_path / "compose.yaml").write_text(SECOND["compose.yaml"])
    (tmp_path / ".cfscale-compose.yaml.0123.tmp").write_text("half")
    (tmp_path / "config" / ".cfscale-haproxy.cfg.0123.tmp").write_text("half")
    put(tmp_path, SECOND)

    assert tree(tmp_path) == whole(SECOND)


@pytest.mark.parametrize("place", ["compose.yaml", "config", LOCK_NAME])
def test_a_symlink_inside_is_refused_even_with_force(place: str, tmp_path: Path) -> None:
    target, out = tmp_path / "elsewhere", tmp_path / "out"
    target.mkdir()
    out.mkdir()
    (out / place).symlink_to(target if place == "config" else target / "file")

    with pytest.raises(RefusedError, match="a symlink"):
        put(out, FIRST, force=True)
    assert list(target.iterdir()) == []


def test_a_symlinked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")

    with pytest.raises(RefusedError, match="a symlink"):
        put(tmp_path / "out", FIRST)


@pytest.mark.parametrize("path", ["../escape", "/etc/x", "a/../../x", "", ".", "a\0b"], ids=ascii)
def test_a_path_that_leads_out_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="leads out"):
        put(tmp_path / "out", {path: "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_directory_where_a_file_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").mkdir()

    with pytest.raises(RefusedError, match="not a regular file"):
        put(tmp_path, FIRST, force=True)


def test_a_file_where_a_directory_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("x")

    with pytest.raises(RefusedError, match="no directory above it"):
        put(tmp_path, FIRST, force=True)


def test_an_out_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")

    with pytest.raises(ActionError, match="not a directory to write to"):
        put(tmp_path / "out", FIRST)
    with pytest.raises(ActionError, match="not a directory to write to"):
        put(tmp_path / "out" / "deeper", FIRST)


LOCKS = [
    "", "{", "[]", "null", "[" * 100_000, '{"schema": "cfscale/lock/v9", "files": {}}', '{"schema": "cfscale/lock/v1"}',
    '{"schema": "cfscale/lock/v1", "files": {"../x": "0"}}', '{"schema": "cfscale/lock/v1", "files": 7}',
]  # fmt: skip


@pytest.mark.parametrize("text", LOCKS, ids=[str(number) for number in range(len(LOCKS))])
def test_a_lock_that_cannot_be_trusted_is_refused_and_forced_away(text: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(text)

    with pytest.raises(RefusedError, match="not a lock file of this version"):
        put(tmp_path, FIRST)

    put(tmp_path, FIRST, force=True)
    assert tree(tmp_path) == whole(FIRST)


def test_a_second_writer_is_turned_away(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(LockedError, match="another cfscale is writing"):
            put(tmp_path, FIRST)
    finally:
        os.close(descriptor)

    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from cfscale.adapters.files import write_tree
from cfscale.errors import ActionError

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
try:
    write_tree(Path(sys.argv[1]), {"compose.yaml": "new\\n", "new/small": "x", "new/large": "x" * 5000}, "{}", force=True)
except ActionError as error:
    sys.exit(str(error))
finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


def test_a_full_disk_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, FIRST)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, "the old files are intact" in done.stderr) == (1, True)
    assert tree(tmp_path) == whole(FIRST)
    assert not (tmp_path / "new").exists()


def test_a_failure_between_two_files_says_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, FIRST)
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target.name == "second":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(ActionError, match="Input/output error; 1 of 4 files are new: render again"):
        put(tmp_path, {"new/first": "1", "new/second": "2", "other/third": "3"})

    assert sorted(tree(tmp_path)) == sorted([*whole(FIRST), "new/first"])


def test_drift_tells_missing_changed_and_extra(tmp_path: Path) -> None:
    put(tmp_path, {**FIRST, "old": "x", "gone": "x"})
    (tmp_path / "compose.yaml").write_text("mine\n")
    (tmp_path / "config/haproxy.cfg").unlink()
    (tmp_path / "gone").unlink()

    assert drift(tmp_path, FIRST) == (
        Drift("compose.yaml", "changed"),
        Drift("config/haproxy.cfg", "missing"),
        Drift("old", "extra"),
    )
    assert drift(tmp_path / "nowhere", FIRST) == (
        Drift("compose.yaml", "missing"),
        Drift("config/haproxy.cfg", "missing"),
    )


def test_a_symlink_with_the_right_content_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("one\n")
    (tmp_path / "compose.yaml").symlink_to(tmp_path / "real")

    assert drift(tmp_path, {"compose.yaml": "one\n"}) == (Drift("compose.yaml", "changed"),)
    assert "Too many levels of symbolic links" in diff_text(tmp_path, {"compose.yaml": "one\n"})


def test_an_oversized_file_is_a_change(tmp_path: Path) -> None:
    with (tmp_path / "compose.yaml").open("wb") as file:
        file.truncate(20 * 1024**2)

    assert drift(tmp_path, {"compose.yaml": "one\n"}) == (Drift("compose.yaml", "changed"),)


def test_a_diff_goes_from_what_is_there_to_what_would_be(tmp_path: Path) -> None:
    put(tmp_path, {"a": "same\nold\n", "b": "x\n", "extra": "gone\n"})
    (tmp_path / "b").write_bytes(b"x\r\n\xff")
    text = diff_text(tmp_path, {"a": "same\nnew\n", "b": "x\n", "c": "fresh\n"})

    assert text.splitlines()[:6] == ["--- a (on disk)", "+++ a (rendered)", "@@ -1,3 +1,3 @@", " same", "-old", "+new"]
    assert {"+fresh", "-gone"} <= set(text.splitlines())
    assert diff_text(tmp_path, {"a": "same\nold\n", "extra": "gone\n", "b": "x\r\n\ufffd"}) != ""


def test_no_drift_is_no_diff(tmp_path: Path) -> None:
    put(tmp_path, FIRST)

    assert diff_text(tmp_path, whole(FIRST)) == ""


def test_a_file_is_replaced_as_a_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    write_atomic(path, "new", 0o600)

    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="not written: No such file or directory; the old content is intact"):
        write_atomic(tmp_path / "nowhere" / "file", "x", 0o644)


def test_reading_is_bounded_and_follows_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "latin").write_bytes(b"a\xff")
    os.mkfifo(tmp_path / "pipe")

    assert read_text(tmp_path / "file", 5) == "12345"
    for name, problem in [
        ("file", "larger than 4 bytes"),
        ("link", "symbolic links"),
        ("latin", "not UTF-8 at byte 1"),
        ("pipe", "not a regular file"),
        ("nothing", "No such file"),
        ("", "Is a directory"),
    ]:
        with pytest.raises(InputError, match=problem):
            read_text(tmp_path / name, 4)


def test_secrets_are_made_once_and_agree(tmp_path: Path) -> None:
    ensure_secrets(tmp_path / "deploy")
    folder = tmp_path / "deploy" / "secrets"
    before = tree(folder)
    ensure_secrets(tmp_path / "deploy")

    password = before["queue_password"]
    assert tree(folder) == before
    assert len(password) == 64
    assert before["queue_auth.conf"] == f"requirepass {password}\nmasterauth {password}\n"
    assert before[".gitignore"] == "*\n"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}


def test_a_password_that_was_given_is_kept_and_used(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "queue_password").write_text("given-by-hand\n")
    ensure_secrets(tmp_path)

    assert (tmp_path / "secrets" / "queue_password").read_text() == "given-by-hand\n"
    assert (tmp_path / "secrets" / "queue_auth.conf").read_text().splitlines()[0] == "requirepass given-by-hand"


@pytest.mark.parametrize("password", ["", "a b", "it's", 'a"b', "a\\b", "two\nlines", "é"], ids=ascii)
def test_a_password_that_the_queue_cannot_read_is_refused_without_being_shown(password: str, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "queue_password").write_text(password)

    with pytest.raises(InputError, match=r"queue_password: use 1 to 512 printable ASCII"):
        ensure_secrets(tmp_path)


def test_secrets_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    ensure_secrets(tmp_path)
    (tmp_path / "secrets" / "queue_password").unlink()
    with pytest.raises(RefusedError, match=r"queue_auth\.conf without queue_password"):
        ensure_secrets(tmp_path)

    (tmp_path / "secrets" / "queue_password").write_text("another")
    with pytest.raises(RefusedError, match="does not hold the password"):
        ensure_secrets(tmp_path)


def test_secrets_are_not_written_through_a_symlink_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secrets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="a symlink"):
        ensure_secrets(tmp_path)

    (tmp_path / "file").write_text("x")
    with pytest.raises(ActionError, match="cannot be made"):
        ensure_secrets(tmp_path / "file")
