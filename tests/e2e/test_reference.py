"""The real packages on a real engine: coordinators, agents, HAProxy and Valkey from one profile, then gone without a trace."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.conftest import ROOT
from tests.e2e.stack import clear, docker, kill_all, left_behind, until
from tests.e2e.test_demo import journal_of

pytestmark = pytest.mark.engine

NAME = "cfscale-e2e-reference"
PORT = 18180
PROFILE = f"""
# The reference workload with short windows; everything else comes from the catalogue.
name: {NAME}
users: 6
agents: 60
tasks: 60
services:
  coordinator: {{health: {{interval: 2s, start_period: 60s}}}}
  agents:
    health: {{kind: http, path: /api/health, interval: 4s, start_period: 60s}}
    resources: {{cpu: 0.5, memory: 1G}}
    stop_grace: 5s
  loadbalancer: {{publish: 127.0.0.1:{PORT}}}
scaling:
  interval: 1s
  scale_up: {{cooldown: 1s}}
  scale_down: {{stabilization_window: 2s, cooldown: 1s}}
  services: {{agents: {{min: 2, max: 9}}}}
"""
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"}},
}
AGENT = "node node_modules/claude-flow-novice/dist/cli/index.js agent backend-developer --task-id t1 --agent-id a1 --context hello"


class Deployment(Struct, frozen=True):
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

    def compose(self, *words: str) -> str:
        """One docker compose command on the rendered project."""
        return docker("compose", "--project-name", NAME, "--file", str(self.state / "compose" / "compose.yaml"), *words)

    def running(self) -> list[str]:
        """The ids of its running containers."""
        return sorted(docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={NAME}").split())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    scratch = tmp_path_factory.mktemp("reference")
    profile = scratch / "cfscale.yaml"
    profile.write_text(PROFILE)
    clear(NAME)  # a run that was killed leaves volumes, and with them the passwords of other secrets
    deployment = Deployment(profile, {**os.environ, "CFSCALE_STATE_DIR": str(scratch / "state"), "NO_COLOR": "1"})
    try:
        deployment.cfscale("up", "--engine", "compose", "--timeout", "4m")
        yield deployment
    finally:
        kill_all(NAME)
        deployment.cfscale("down", "--volumes", "--yes", check=False)
    assert left_behind(NAME) == []


def ask(method: str, path: str, body: object = None) -> tuple[int, str]:
    """One request to the balancer: status and text."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_every_replica_is_healthy_when_asked_deeply(reference: Deployment) -> None:
    report = json.loads(reference.cfscale("probe", "-o", "json").stdout)
    results = report["results"]

    assert report["summary"]["down"] + report["summary"]["unknown"] + report["summary"]["starting"] == 0
    assert {result["kind"] for result in results} == {"jsonrpc", "http", "redis", "postgres"}
    assert all("score" in result["reason"] for result in results if result["kind"] == "jsonrpc")


def test_the_limits_are_what_the_engine_enforces(reference: Deployment) -> None:
    plan = json.loads(reference.cfscale("plan", "-o", "json").stdout)
    running = reference.compose("ps", "--services").split()
    for service in plan["services"]:
        name = service["name"] if service["name"] in running else f"{service['name']}-1"  # a member has its own name
        container = reference.compose("ps", "--quiet", name).split()[0]
        memory, cpus = docker(
            "inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", container
        ).split()

        assert int(memory) == service["memory_limit_bytes"]
        assert int(cpus) == service["cpu_limit_millicores"] * 10**6


def test_the_balancer_sends_rpc_to_the_coordinators_and_the_rest_to_the_agents(reference: Deployment) -> None:
    status, text = ask("POST", "/rpc", INITIALIZE)

    assert status == 200
    assert "Claude-Flow" in text
    assert ask("GET", "/api/health")[0] == 200


def test_nothing_that_is_written_through_the_balancer_is_lost_between_coordinators(reference: Deployment) -> None:
    ask("POST", "/rpc", INITIALIZE)
    for number in range(8):
        call = {"name": "agent_spawn", "arguments": {"agentType": "coder", "agentId": f"e2e-{number}"}}
        status, text = ask("POST", "/rpc", {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call})
        assert status in (200, 429), text
    _, text = ask(
        "POST",
        "/rpc",
        {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "agent_list", "arguments": {}}},
    )

    assert all(f"e2e-{number}" in text for number in range(8))


def test_a_one_shot_agent_reports_through_the_queue_and_exits_zero(reference: Deployment) -> None:
    """Its language model is a stub on the deployment's own network."""
    stub = ROOT / "tests" / "e2e" / "stub_llm.py"
    mount = f"type=bind,source={stub},target=/stub.py,readonly"
    network = f"{NAME}_app"
    name = docker(
        "run",
        "--detach",
        "--rm",
        "--network",
        network,
        "--mount",
        mount,
        "python:3.13-slim",
        "python3",
        "/stub.py",
        "--host",
        "0.0.0.0",
        "--port",
        "13900",
    ).strip()
    try:
        address = docker(
            "inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}', name
        ).strip()
        settings = ["CLAUDE_API_PROVIDER=zai", "ZAI_API_KEY=sk-test", f"ZAI_BASE_URL=http://{address}:13900"]
        flags = [word for setting in settings for word in ("-e", setting)]
        said = reference.compose("run", "--rm", "--no-deps", "-T", *flags, "agents", *AGENT.split())
    finally:
        docker("stop", "--time", "1", name)
    ask_queue = "REDISCLI_AUTH=$(cat /run/secrets/queue_password) valkey-cli LRANGE cfn:cli:t1:completion 0 -1"
    report = reference.compose("exec", "-T", "queue-1", "sh", "-c", ask_queue)

    assert "Success" in said
    assert json.loads(report)["status"] == "completed"


def test_nothing_is_lost_while_real_agents_grow_and_shrink(reference: Deployment) -> None:
    """The package's worker burns no CPU on request, so the shrink is real and the growth is back to the plan; growth by load is the demo's."""
    planned = next(
        service["replicas"]
        for service in json.loads(reference.cfscale("plan", "-o", "json").stdout)["services"]
        if service["name"] == "agents"
    )
    client = [
        sys.executable,
        str(ROOT / "examples" / "demo" / "load.py"),
        f"127.0.0.1:{PORT}",
        "/api/health",
        "--rate",
        "8",  # far from the threshold: the checks inside the containers alone take a good part of it
        "--seconds",
        "40",
    ]
    with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as load:
        shrunk = reference.cfscale("scale", "--watch", "--apply", "--for", "25s", "-o", "json")
        reference.cfscale("up", "--reset-replicas", "--timeout", "2m")
        report = load.communicate(timeout=120)[0]
    sys.stdout.write(report)
    decisions = [json.loads(line) for line in shrunk.stdout.splitlines()]

    assert any(decision["action"] == "scale_down" and decision["applied"] for decision in decisions)
    assert load.returncode == 0, report
    # up asks them itself; status says what the engine's next check finds
    until(lambda: ready_agents(reference) == planned or None, 60, "as many as planned are ready")


def ready_agents(reference: Deployment) -> int:
    services = json.loads(reference.cfscale("status", "-o", "json").stdout)["services"]
    return int(next(service["ready"] for service in services if service["service"] == "agents"))


def test_the_journal_explains_each_step_before_and_after_it(reference: Deployment) -> None:
    entries = journal_of(reference.state)
    intents = [entry["id"] for entry in entries if entry["kind"] == "intent"]
    results = [entry["id"] for entry in entries if entry["kind"] == "result"]

    assert intents
    assert sorted(map(str, intents)) == sorted(map(str, results))
    assert all(entry["reason"] and entry["samples"] for entry in entries)


def test_up_again_changes_nothing(reference: Deployment) -> None:
    before = reference.running()
    reference.cfscale("up")

    assert reference.running() == before


def test_the_password_is_in_no_manifest_argument_or_log(reference: Deployment) -> None:
    password = (reference.state / "compose" / "secrets" / "queue_password").read_text().strip()
    texts = [
        path.read_text()
        for path in (reference.state / "compose").rglob("*")
        if path.is_file() and "secrets" not in path.parts
    ]
    texts += [docker("inspect", container) + docker("logs", container) for container in reference.running()]
    texts.append((reference.state / "journal.jsonl").read_text())

    assert not any(password in text for text in texts)
