"""Load on the real engine through HAProxy: a step, a ramp, and the way back, with every request answered."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from msgspec import Struct

from tests.conftest import ROOT
from tests.e2e.stack import left_behind
from tests.e2e.test_demo import journal_of
from tests.ports import free_port

sys.path.insert(0, str(ROOT / "examples" / "demo"))
from load import Load, Report  # type: ignore[import-not-found]

pytestmark = pytest.mark.engine

NAME = "cfscale-e2e-load"
PROFILE = """\
# short windows, so that growing and shrinking can be watched; everything else as in a real deployment
name: {name}
environment: development
users: 2
agents: 4
tasks: 4
services:
  coordinator:
    image: cfscale/demo-worker:1
    command: [python3, worker.py]
    port: 8080
    routes: []
    health: {{kind: http, path: /health, json: {{status: ok}}, interval: 1s, start_period: 20s}}
    resources: {{cpu: 0.2, memory: 256M}}
    stop_grace: 2s
    env: {{DRAIN_SECONDS: "0"}}
  agents:
    image: cfscale/demo-worker:1
    command: [python3, worker.py]
    port: 8080
    routes: [/]
    # checks inside the container start a Python each, 0.1 s of CPU: more often, or of a smaller share of a core, and the
    # sample of two seconds they fall into would show an idle agent near the 30% that it must be below to be taken away
    health: {{kind: http, path: /health, json: {{status: ok}}, interval: 4s, start_period: 20s}}
    resources: {{cpu: 0.5, memory: 256M}}
    stop_grace: 10s
    env: {{DRAIN_SECONDS: "1"}}
  loadbalancer: {{publish: "127.0.0.1:{port}"}}
scaling:
  interval: 2s
  scale_up: {{cooldown: 3s}}
  scale_down: {{stabilization_window: 6s, cooldown: 3s, max_percent: 100}}
  services: {{agents: {{min: 1, max: 4}}}}
"""


class Fleet(Struct, frozen=True):
    """A running deployment under its scaler."""

    profile: Path
    env: dict[str, str]
    port: int

    def cfscale(self, command: str, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        argv = [sys.executable, "-m", "cfscale", command, str(self.profile), *words]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode in codes, done.stdout + done.stderr
        return done.stdout

    def ready(self) -> int:
        """How many agents there are, all of them ready; -1 while one starts or goes, or a busy engine does not say in time."""
        services = json.loads(self.cfscale("status", "-o", "json", codes=(0, 3)))["services"]
        found = next(service for service in services if service["service"] == "agents")
        return -1 if found["ready"] is None or found["ready"] != found["current"] else int(found["ready"])

    def until(self, reached: Callable[[int], bool], seconds: float) -> tuple[int, float]:
        """(ready agents, seconds) when they are as many as wanted; the time is up otherwise."""
        begin = time.monotonic()
        while not reached(count := self.ready()):
            late = time.monotonic() - begin >= seconds
            assert not late, "\n".join([f"{count} are ready after {seconds} s", *self.reasons()])
        return count, time.monotonic() - begin

    def reasons(self) -> list[str]:
        """What the scaler last did, and why."""
        last = journal_of(Path(self.env["CFSCALE_STATE_DIR"]))[-12:]
        return [f"{item['time']} {item['service']} {item['kind']} {item['action']}: {item['reason']}" for item in last]

    def load(self, rate: float, seconds: float, ms: int = 20) -> Load:
        return Load(lambda: [f"127.0.0.1:{self.port}"], f"/work?ms={ms}", rate=rate, seconds=seconds).start()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    port, profile = free_port(), tmp_path / "cfscale.yaml"
    profile.write_text(PROFILE.format(name=NAME, port=port))
    env = {**os.environ, "CFSCALE_STATE_DIR": str(tmp_path / "state"), "NO_COLOR": "1"}
    fleet = Fleet(profile, env, port)
    argv = [sys.executable, "-m", "cfscale", "scale", str(profile), "--watch", "--apply", "--log", "json"]
    try:
        fleet.cfscale("up", "--engine", "compose", "--timeout", "2m")
        with subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as scaler:
            yield fleet
            scaler.terminate()
            assert scaler.wait(60) == 143
    finally:
        fleet.cfscale("down", "--volumes", "--yes")
    assert left_behind(NAME) == []


def test_a_step_and_a_ramp_are_followed_and_no_request_is_lost(fleet: Fleet, tmp_path: Path) -> None:
    fleet.until(lambda count: count == 1, 60.0)
    begin, step = time.time(), fleet.load(rate=25.0, seconds=30.0)
    _, until_ready = fleet.until(lambda count: count >= 2, 60.0)
    decided = first_growth(tmp_path / "state", begin) - begin
    report = step.wait()
    shown("step of 25 requests/s", report)
    told(f"from the step to the decision {decided:.1f} s, to a new healthy replica {until_ready:.1f} s")
    assert report.lost == 0
    assert report.sent == 750

    ramp = [fleet.load(rate=8.0, seconds=40.0 - delay) for delay in (0.0, 8.0, 16.0) if waited(8.0 if delay else 0.0)]
    reports = [part.wait() for part in ramp]
    for part in reports:
        shown("ramp", part)
    assert sum(part.lost for part in reports) == 0

    _, back = fleet.until(lambda count: count == 1, 90.0)
    told(f"back to one replica {back:.1f} s after the load")
    results = [entry for entry in journal_of(tmp_path / "state") if entry["kind"] == "result"]
    assert {"scale_up", "scale_down"} <= {entry["action"] for entry in results}
    assert all(entry["applied"] for entry in results)


def test_shrinking_under_load_loses_no_request(fleet: Fleet, tmp_path: Path) -> None:
    """The load is light, so that the scaler shrinks what somebody had made too large, while requests are in flight."""
    fleet.until(lambda count: count == 1, 60.0)
    manifest = tmp_path / "state" / "compose" / "compose.yaml"
    scale = ["docker", "compose", "-p", NAME, "-f", str(manifest), "up", "-d", "--no-recreate", "--no-deps"]
    done = subprocess.run([*scale, "--scale", "agents=4", "agents"], capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    load = fleet.load(rate=3.0, seconds=40.0, ms=10)
    fleet.until(lambda count: count == 1, 60.0)
    report = load.wait()
    shown("light load", report)
    assert (report.lost, report.sent) == (0, 120)
    reasons = [str(entry["reason"]) for entry in journal_of(tmp_path / "state")]
    assert any("changed from outside from 1 to" in reason for reason in reasons)


def first_growth(state: Path, begin: float) -> float:
    """When the first growth after ``begin`` was decided, both in seconds since the epoch."""
    intents = [item for item in journal_of(state) if item["kind"] == "intent" and item["action"] == "scale_up"]
    times = [datetime.fromisoformat(str(item["time"])).timestamp() for item in intents]
    return min(time for time in times if time >= begin)


def waited(seconds: float) -> bool:
    """A part of the ramp begins later: this much real time is what the test is about."""
    time.sleep(seconds)
    return True


def shown(what: str, report: Report) -> None:
    told(f"{what}: {report.line()}")


def told(line: str) -> None:
    """A figure for who reads the output (pytest -s, or -rP)."""
    sys.stdout.write(f"{line}\n")
