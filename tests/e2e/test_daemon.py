"""The scaler as a daemon: the unit as systemd reads it, the image as it is built and run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.stack import docker

UNIT = ROOT / "packaging" / "systemd" / "cfscale-scale@.service"
IMAGE = ROOT / "packaging" / "image"
TAG = "cfscale-e2e/scaler:test"
WHEELS_FOR = ("--python-version", "3.13", "--only-binary=:all:")
PLATFORMS = ("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cfscale-scale@acme.service"
    installed = UNIT.read_text().replace("/usr/local/bin/cfscale", str(Path(sys.executable).with_name("cfscale")))
    unit.write_text(installed)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    mine = [line for line in done.stderr.splitlines() if "cfscale-scale" in line]
    assert (done.returncode, mine) == (0, [])


def test_the_unit_gives_the_command_line_options_that_there_are() -> None:
    (start,) = [line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart=")]
    words = start.replace("${METRICS}", ":9464").split()[2:]
    help_text = subprocess.run(
        [sys.executable, "-m", "cfscale", "scale", "--help"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert all(word in help_text for word in words if word.startswith("--"))
    for number in ("SuccessExitStatus=143", "RestartPreventExitStatus=2", "Type=notify", "KillMode=mixed"):
        assert number in UNIT.read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("image")
    shutil.copy(IMAGE / "Dockerfile", context)
    wheels = context / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    own = subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)], timeout=300, check=False)
    if own.returncode == 0:
        built = str(next(wheels.glob("cfscale-*.whl")))
        fetch = [*pip, "download", "-d", str(wheels), *WHEELS_FOR, *PLATFORMS, "pip", built]
        own = subprocess.run(fetch, timeout=300, check=False)
    if own.returncode != 0:
        pytest.skip("no package index answers: the wheels of the image cannot be had")
    docker("build", "--quiet", "--tag", TAG, str(context), timeout=600)
    return TAG


@pytest.mark.engine
def test_the_image_holds_what_the_compose_engine_drives(image: str) -> None:
    assert docker("run", "--rm", image, "--version").startswith("cfscale ")
    assert "version 2" in docker("run", "--rm", "--entrypoint", "docker", image, "compose", "version")
    assert docker("run", "--rm", "--entrypoint", "id", image, "-u").strip() == "10001"


@pytest.mark.engine
def test_the_image_reaches_the_engine_whose_socket_it_is_given(image: str, tmp_path: Path) -> None:
    profile = tmp_path / "cfscale.yaml"
    profile.write_text("name: cfscale-e2e-nobody\nusers: 1\nagents: 4\ntasks: 4\n")
    profile.chmod(0o644)
    group = str(Path("/var/run/docker.sock").stat().st_gid)
    mounts = ["-v", f"{profile}:/etc/cfscale/cfscale.yaml:ro", "-v", "/var/run/docker.sock:/var/run/docker.sock"]
    words = ["scale", "/etc/cfscale/cfscale.yaml", "--engine", "compose", "--log", "json"]
    done = subprocess.run(
        ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--group-add", group, *mounts, image, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "nothing of cfscale-e2e-nobody is there: start it with 'cfscale up'" in done.stdout


@pytest.mark.engine
def test_compose_accepts_the_example(tmp_path: Path) -> None:
    environment = {**os.environ, "STATE": str(tmp_path), "DOCKER_GID": "999"}
    argv = ["docker", "compose", "--file", str(IMAGE / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
