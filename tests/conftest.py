"""Shared fixtures: the catalogue, and the command line run in-process.

A test marked ``engine`` is skipped, with the reason, where no Docker engine with the compose plugin and the local test
images answers. In CI that is a failure: a skip would hide a hole.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest
from msgspec import Struct

from cfscale.adapters.assets import load_catalogue
from cfscale.cli.main import run
from cfscale.core.tier import Catalogue
from tests.helm.lab import cluster_problem, tools_problem

# a busy machine is no defect: examples have no deadline, and the same ones are tried everywhere
hypothesis.settings.register_profile("cfscale", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("cfscale")

ROOT = Path(__file__).resolve().parent.parent
IMAGES = (
    "haproxy:3.2",
    "valkey/valkey:8.1",
    "cfscale/database:17",
    "edoburu/pgbouncer:v1.24.1-p0",
    "quay.io/coreos/etcd:v3.5.16",
    "prom/prometheus:v2.53.3",
    "python:3.13-slim",
    "cfscale/demo-worker:1",
    "cfscale/coordinator:3.43.0",
    "cfscale/agents:2.21.0",
)


class Result(Struct, frozen=True):
    """What a command printed and returned."""

    code: int
    stdout: str
    stderr: str


@cache
def engine_problem() -> str | None:
    """Why engine tests cannot run here, or None."""
    if shutil.which("docker") is None:
        return "no docker client: run tests/e2e/engine.sh start"
    for argv, remedy in (
        (["docker", "info"], "no Docker engine answers: run tests/e2e/engine.sh start"),
        (["docker", "compose", "version"], "no compose plugin: run tests/e2e/engine.sh start"),
        (["docker", "image", "inspect", *IMAGES], "local test images are missing: run tests/e2e/images.sh"),
    ):
        if subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode != 0:
            return remedy
    return None


def pytest_report_header() -> list[str]:
    """What this run shows of Kubernetes, and what it cannot."""
    chart = tools_problem() or "rendered by helm 3 and 4, against the schemas of four versions"
    cluster = "not in this run: set CFSCALE_FULL=1"
    if os.environ.get("CFSCALE_FULL"):
        seen = "an API server with controllers and scheduler, and no kubelet: no container starts, no operator acts"
        cluster = cluster_problem() or seen
    return [f"chart: {chart}", f"cluster: {cluster}"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (item.get_closest_marker("cluster") or item.get_closest_marker("matrix")) and not os.environ.get("CFSCALE_FULL"):
        pytest.skip("not part of every run: set CFSCALE_FULL=1, or run .ci/run --full")
    asked = (
        ("engine", engine_problem),
        ("helm", tools_problem),
        ("cluster", cluster_problem),
        ("matrix", tools_problem),
    )
    for marker, ask in asked:
        if item.get_closest_marker(marker) and (problem := ask()):
            (pytest.fail if os.environ.get("CI") else pytest.skip)(problem)


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture
def cfscale(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Result]:
    """Run a command line in a directory and state of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CFSCALE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*argv: str) -> Result:
        capsys.readouterr()
        code = run(argv)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
