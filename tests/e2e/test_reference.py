"""The real packages on a real engine: coordinators, agents, HAProxy and Valkey from one profile, then gone without a trace."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.test_demo import journal_of, left_behind

sys.path.insert(0, str(ROOT / "examples" / "demo"))

pytestmark = pytest.mark.engine

PORT = 18180
PROFILE = f"""
name: cfscale-e2e-reference
users: 6
agents: 60
tasks: 60
services:
  coordinator: {{health: {{kind: jsonrpc, path: /health, rpc_path: /rpc, interval: 2s, start_period: 60s}}}}
  agents:
    health: {{kind: http, path: /api/health, interval: 1s, start_period: 60s}}
    resources: {{cpu: 0.5, memory: 1G}}
    stop_grace: 5s
  loadbalancer: {{publish: 127.0.0.1:{PORT}}}
scaling:
  interval: 1s
  policies: [{{kind: resource, cpu: {{scale_up: 80, scale_down: 30}}}}]
  scale_up: {{cooldown: 1s}}
  scale_down: {{stabilization_window: 2s, cooldown: 1s}}
  services: {{agents: {{min: 2, max: 9}}}}
"""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running deployment and the way to ask cfscale about it."""

    profile: Path
    env: dict[str, str]

    def cfscale(self, command: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command on this deployment."""
        argv = [sys.executable, "-m", "cfscale", command, str(self.profile), *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=300, check=False)
        sys.stdout.write(f"$ cfscale {command} {' '.join(words)}\n{done.stdout}{done.stderr}")
        assert not check or done.returncode == 0, done.stderr
        return done

    @property
    def state(self) -> Path:
        """Its state directory."""
        return Path(self.env["CFSCALE_STATE_DIR"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    scratch = tmp_path_factory.mktemp("reference")
    profile = scratch / "cfscale.yaml"
    profile.write_text(PROFILE)
    deployment = Deployment(profile, {**os.environ, "CFSCALE_STATE_DIR": str(scratch / "state"), "NO_COLOR": "1"})
    try:
        deployment.cfscale("up", "--engine", "compose", "--timeout", "4m")
        yield deployment
    finally:
        deployment.cfscale("down", "--volumes", "--yes", check=False)
    assert left_behind("cfscale-e2e-reference") == []


def test_every_replica_is_healthy_when_asked_deeply(reference: Deployment) -> None:
    report = json.loads(reference.cfscale("probe", "-o", "json").stdout)
    kinds = {result["kind"] for result in report["results"]}

    assert report["summary"]["down"] == 0
    assert report["summary"]["unknown"] == 0
    assert {"jsonrpc", "http", "redis"} <= kinds


def ask(
    method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def test_the_balancer_sends_rpc_to_the_coordinators_and_the_rest_to_the_agents(reference: Deployment) -> None:
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}},
    }

    status, _, text = ask("POST", "/rpc", initialize)

    assert status == 200
    assert "claude-flow" in text
    assert ask("GET", "/api/health")[0] == 200


def test_nothing_is_lost_while_real_agents_grow_and_shrink(reference: Deployment) -> None:
    """The worker of the package burns no CPU on request: the counts are moved by bounds, the demo shows growth by load."""
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); from load import Load; "
            "print(Load(lambda: [sys.argv[2]], '/api/health', rate=50, seconds=30).start().wait().line())",
            str(ROOT / "examples" / "demo"),
            f"127.0.0.1:{PORT}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as load:
        scaled = reference.cfscale("scale", "--watch", "--apply", "--for", "25s", "-o", "json")
        report = load.communicate(timeout=120)[0]
    decisions = [json.loads(line) for line in scaled.stdout.splitlines()]
    print(report)

    assert " 0 lost" in report
    assert any(decision["action"] == "scale_down" and decision["applied"] for decision in decisions)


def test_the_journal_explains_each_step_before_and_after_it(reference: Deployment) -> None:
    entries = journal_of(reference.state)
    intents = [entry for entry in entries if entry["kind"] == "intent"]
    results = {entry["id"] for entry in entries if entry["kind"] == "result"}

    assert intents
    assert all(entry["reason"] for entry in entries)
    assert {entry["id"] for entry in intents} <= results


def test_up_again_changes_nothing(reference: Deployment) -> None:
    before = subprocess.run(
        ["docker", "ps", "-q", "--filter", "label=com.docker.compose.project=cfscale-e2e-reference"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    reference.cfscale("up")
    after = subprocess.run(
        ["docker", "ps", "-q", "--filter", "label=com.docker.compose.project=cfscale-e2e-reference"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert sorted(after.split()) == sorted(before.split())
