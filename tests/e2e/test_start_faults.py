"""What goes wrong while a deployment is rendered or started: one line, the exit code of its kind, and nothing half done."""

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.e2e.fault_proxy import Fault, spoiling
from tests.e2e.stack import left_behind

NAME = f"cfscale-e2e-start-{os.getpid()}"
CFSCALE = (sys.executable, "-m", "cfscale")
SIZE = ("--users", "1", "--agents", "1", "--tasks", "1")
IDLE = {
    "image": "cfscale/demo-worker:1",
    "command": ["sleep", "600"],
    "port": 8080,
    "health": {"kind": "none"},
    "resources": {"cpu": "0.2", "memory": "1G"},
    "stop_grace": "1s",
}


class Place(Struct, frozen=True):
    """A deployment of two idle containers and its stores, which is not started yet."""

    folder: Path

    def write(self, port: int = 0, **agents: str) -> None:
        """Write its profile; nothing is published without a port."""
        published = {"publish": f"127.0.0.1:{port}"} if port else {}
        profile = {
            "name": NAME,
            "environment": "development",
            "users": 1,
            "agents": 1,
            "tasks": 1,
            "services": {"coordinator": {**IDLE, **published}, "agents": {**IDLE, **agents}},
            "scaling": {"services": {"agents": {"min": 2, "max": 2}}},
        }
        (self.folder / "cfscale.yaml").write_text(json.dumps(profile))

    def start(self, command: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        env = {**os.environ, "CFSCALE_STATE_DIR": str(self.folder / "state"), "NO_COLOR": "1", **variables}
        argv = (*CFSCALE, command, str(self.folder / "cfscale.yaml"), *words)
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def cfscale(self, command: str, *words: str) -> tuple[int, list[str]]:
        """The exit code, and the lines of errors."""
        return finished(self.start(command, *words))


def finished(child: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """How a command ended, and the lines that say why not well."""
    said = child.communicate(timeout=200)[1]
    sys.stdout.write(said)
    assert "Traceback" not in said
    return child.returncode, [line for line in said.splitlines() if line.startswith("error: ")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.write()
    found.cfscale("down", "--volumes", "--yes")
    assert left_behind(NAME) == []


@pytest.mark.engine
def test_a_missing_image_starts_nothing_and_is_named(place: Place) -> None:
    place.write(image="cfscale/no-such-image:1")
    code, errors = place.cfscale("up", "--engine", "compose")

    assert code == 1
    (error,) = errors
    assert "image of agents" in error
    assert left_behind(NAME) == []


@pytest.mark.engine
def test_a_port_that_is_taken_starts_nothing_and_is_named(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        place.write(port)
        code, errors = place.cfscale("up", "--engine", "compose")

        assert code == 1
        (error,) = errors
        assert f"127.0.0.1:{port} (coordinator)" in error
        assert left_behind(NAME) == []
    assert place.cfscale("up", "--engine", "compose")[0] == 0
    assert place.cfscale("up", "--engine", "compose")[0] == 0  # a port of our own is not another's


@pytest.mark.engine
def test_an_engine_that_goes_while_it_starts_is_no_verdict_and_the_next_start_completes_it(place: Place) -> None:
    place.write()
    socket_path = place.folder / "engine.sock"
    with spoiling(socket_path) as proxy:
        child = place.start("up", "--engine", "compose", DOCKER_HOST=f"unix://{socket_path}")
        assert child.stderr is not None
        for line in child.stderr:
            if "Creat" in line:
                proxy.fault = Fault.RESET
                break
        code, errors = finished(child)
        assert code == 3
        assert len(errors) == 1

    assert place.cfscale("up", "--engine", "compose") == (0, [])


def limited(script: str, folder: Path) -> tuple[int, str]:
    """What a shell says and returns in a directory, where cfscale is called as ``$cfscale``."""
    argv = ["sh", "-c", f"cfscale={shlex.quote(shlex.join(CFSCALE))}\n{script}"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


RENDER = f"$cfscale render {' '.join(SIZE)} --target compose --out out"


def test_a_disk_that_is_full_while_rendering_leaves_nothing(tmp_path: Path) -> None:
    """A file system of 16 KiB in a mount namespace of its own; the manifests need more."""
    (tmp_path / "out").mkdir()
    inside = f"mount -t tmpfs -o size=16k tmpfs out && {{ {RENDER}; code=$?; find out -type f; exit $code; }}"
    spaces = "--mount" if os.geteuid() == 0 else "--mount --map-root-user"
    probe = subprocess.run(["unshare", *spaces.split(), "true"], capture_output=True, timeout=20, check=False)
    if probe.returncode != 0:
        pytest.skip("no mount namespaces here")
    code, said = limited(
        f"unshare {spaces} sh -c {shlex.quote(inside.replace('$cfscale', shlex.join(CFSCALE)))}", tmp_path
    )

    assert code == 1
    assert said.splitlines() == ["error: out: cannot be written: No space left on device; the old files are intact"]


def test_a_disk_that_takes_no_more_while_rendering_again_leaves_the_old_files(tmp_path: Path) -> None:
    assert limited(RENDER, tmp_path)[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    code, said = limited(f"ulimit -f 8\n{RENDER} --tier team --force", tmp_path)  # no file of more than 4 KiB

    assert code == 1
    assert said.splitlines() == ["error: out: cannot be written: File too large; the old files are intact"]
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
