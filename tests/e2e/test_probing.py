"""The reference coordinator: its ``/health`` is a fixed text, and the deep probe knows better."""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.engine
IMAGE = "cfscale/coordinator:3.43.0"


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def probe(*words: str) -> dict[str, dict[str, object]]:
    argv = [sys.executable, "-m", "cfscale", "probe", *words, "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {result["kind"]: result for result in json.loads(done.stdout)["results"]}


@pytest.fixture(scope="module")
def coordinator() -> Iterator[tuple[str, str]]:
    """A coordinator on its own, as name and address."""
    name = f"cfscale-e2e-probing-{uuid.uuid4().hex[:8]}"
    docker(
        "run", "--detach", "--init", "--name", name, "--memory", "512m", "--publish", "127.0.0.1::3000", "--label",
        f"{name}=yes", IMAGE,
    )  # fmt: skip
    try:
        address = docker("port", name, "3000/tcp").splitlines()[0]
        deadline = time.monotonic() + 120
        while probe(f"http://{address}/health")["http"]["state"] != "up":
            assert time.monotonic() < deadline, docker("logs", name)
            time.sleep(0.5)
        yield name, address
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)


def test_the_static_answer_says_ok_while_the_deep_probe_knows_better(coordinator: tuple[str, str]) -> None:
    _, address = coordinator
    found = probe(f"http://{address}/health", f"jsonrpc+http://{address}/rpc")

    assert found["http"]["state"] == "up"
    assert found["jsonrpc"]["state"] == "degraded"
    assert "score" in str(found["jsonrpc"]["reason"])


def test_the_engine_and_its_label_find_the_same_container(coordinator: tuple[str, str]) -> None:
    name, _ = coordinator

    assert probe(f"docker://{name}")["docker"]["state"] in ("up", "starting")
    assert probe("--discover", f"label:{name}=yes")["docker"]["target"] == name


def test_a_paused_container_is_in_maintenance_and_a_stopped_one_is_down(coordinator: tuple[str, str]) -> None:
    name, _ = coordinator
    docker("pause", name)
    assert probe(f"docker://{name}")["docker"]["state"] == "maintenance"
    docker("unpause", name)
    docker("stop", name)

    assert probe(f"docker://{name}")["docker"]["state"] == "down"
