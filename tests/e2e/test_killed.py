"""Real processes, really killed: at every point the next run converges, starts nobody twice, and the journal is whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfscale.adapters.journal import Journal
from cfscale.core.decision import Kind, unfinished
from tests.adapters.process_lab import Lab, get, ready, wait_for, wait_ready
from tests.conftest import ROOT
from tests.e2e.killed_scaler import AGENTS
from tests.ports import free_port

pytestmark = pytest.mark.process
POINTS = range(1, 9)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def scaler(lab: Lab, point: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.e2e.killed_scaler", str(lab.layout.state), str(point)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("before", "load", "after"), [(1, 1.5, 2), (3, 0.2, 1)], ids=["growing", "shrinking"])
@pytest.mark.parametrize("point", POINTS)
def test_fault_33_killed_with_9_at_each_point_the_next_run_converges(
    lab: Lab, point: int, before: int, load: float, after: int
) -> None:
    engine = lab.engine(AGENTS)
    engine.up({"agents": before})
    wait_ready(engine, before)
    (lab.layout.state / "load").write_text(str(load))

    killed = scaler(lab, point)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = scaler(lab, 0)
    assert again.returncode == 0, again.stderr

    wait_for(lambda: len(engine.replicas()) == after, f"{after} replicas")
    names = [one.name for one in engine.replicas()]
    assert len(set(names)) == len(names) == after
    entries = tuple(Journal(lab.layout.state).entries())
    assert unfinished(entries) == ()
    results = [item.id for item in entries if item.kind is Kind.RESULT]
    assert len(set(results)) == len(results)


PROFILE = """\
name: signals
environment: development
users: 1
agents: 4
tasks: 4
services:
  agents:
    command: [{python}, {worker}]
    health: {{kind: http, path: /health, interval: 500ms}}
    drain: {{limit: 10m, path: /tasks, json: {{active: "0"}}}}
    stop_grace: 2s
  coordinator:
    command: [{python}, {worker}]
    health: {{kind: http, path: /health, interval: 500ms}}
  loadbalancer: {{publish: "127.0.0.1:{port}"}}
scaling:
  interval: 1s
  scale_down: {{stabilization_window: 0s, cooldown: 0s}}
  services: {{agents: {{min: 1, max: 4}}}}
"""


@pytest.mark.parametrize(
    ("signals", "codes"),
    # the second Ctrl-C may meet a process that is on its way out already: a shell says 130 of either
    [((signal.SIGTERM,), {143}), ((signal.SIGINT, signal.SIGINT), {130, -signal.SIGINT})],
    ids=["SIGTERM once", "Ctrl-C twice"],
)
def test_fault_40_a_signal_within_a_shrink_leaves_a_whole_journal_and_a_count_that_is_one_of_two(
    tmp_path: Path, signals: tuple[signal.Signals, ...], codes: set[int]
) -> None:
    profile = tmp_path / "cfscale.yaml"
    worker = ROOT / "tests" / "adapters" / "process_worker.py"
    profile.write_text(PROFILE.format(python=sys.executable, worker=worker, port=free_port()))
    environment = {**os.environ, "CFSCALE_STATE_DIR": str(tmp_path / "state")}

    def cfscale(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "cfscale", *words], env=environment, cwd=tmp_path)

    assert cfscale("up", "--engine", "process", "--detach").wait(120) == 0
    try:
        engine = Lab(tmp_path).engine(AGENTS)
        engine.grow(AGENTS, 2)
        for one in wait_ready(engine, 2):
            assert one.address
            get(one.address, "/tasks?begin=1")
        scale = cfscale("scale", "--watch", "--apply")
        journal = Journal(tmp_path / "state")
        wait_for(lambda: unfinished(journal.entries()), "the intent of a shrink")
        for number in signals:
            scale.send_signal(number)
            time.sleep(0.2 if len(signals) > 1 else 0)  # two signals at once are one
        assert scale.wait(60) in codes
        for one in engine.replicas():  # what was left to the supervisor goes on
            if one.service == "agents" and one.address:
                get(one.address, "/tasks?end=1")
        assert cfscale("scale", "--apply", "--engine", "process").wait(120) in (0, 3)
        assert unfinished(journal.entries()) == ()
        assert len(ready(engine)) in (1, 2)
    finally:
        assert cfscale("down").wait(120) == 0
