import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfscale.adapters.process.layout import wait_until_gone
from tests.adapters.process_lab import Lab, daemon_pid, is_gone, service, wait_for, wait_gone, wait_ready

pytestmark = pytest.mark.process
FOREGROUND = """
import sys
from pathlib import Path
from tests.adapters.process_lab import Lab, service
coordinator, agents = service("coordinator", routes=("/rpc",)), service("agents", *sys.argv[2:], stop_grace_seconds=1.0)
lab = Lab(Path(sys.argv[1]))
number = lab.engine(coordinator, agents).supervise({"coordinator": 1, "agents": 2}, lambda text: print(text, flush=True))
print("ended by", number, flush=True)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def foreground(lab: Lab, *modes: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", FOREGROUND, str(lab.base_dir), *modes]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_foreground_supervisor_is_down(lab: Lab, number: signal.Signals) -> None:
    with foreground(lab, "orphan") as supervisor:
        engine = lab.engine(service("coordinator"), service())
        wait_for(lab.layout.socket.exists, "the socket")
        pids = [item.pid for item in wait_ready(engine, 2) + wait_ready(engine, 1, "coordinator")]
        pids.append(daemon_pid(lab))
        supervisor.send_signal(number)
        output, _ = supervisor.communicate(timeout=20)
    assert all(pid and is_gone(pid) for pid in pids)
    assert output.splitlines()[-1] == f"ended by {int(number)}"
    stops = [line for line in output.splitlines() if line.endswith("stopped")]
    assert sorted(stops[:2]) == ["agents-1 stopped", "agents-2 stopped"]
    assert stops[2:] == ["coordinator-1 stopped"]
    assert not lab.layout.socket.exists()


def test_down_from_another_terminal_ends_the_foreground_supervisor(lab: Lab) -> None:
    with foreground(lab) as supervisor:
        engine = lab.engine(service("coordinator"), service())
        wait_for(lab.layout.socket.exists, "the socket")
        wait_ready(engine, 2)
        engine.down(volumes=False)
        output, _ = supervisor.communicate(timeout=20)
    assert output.splitlines()[-1] == "ended by None"


def test_a_second_signal_does_not_wait_and_still_leaves_nothing(lab: Lab) -> None:
    with foreground(lab, "ignore-term") as supervisor:
        engine = lab.engine(service("coordinator"), service())
        wait_for(lab.layout.socket.exists, "the socket")
        pids = [item.pid for item in wait_ready(engine, 2) if item.pid]
        supervisor.send_signal(signal.SIGINT)
        wait_for(lambda: "SIGTERM" in lab.log("agents-1"), "the first signal's effect")
        supervisor.send_signal(signal.SIGINT)
        output, _ = supervisor.communicate(timeout=20)
    assert output.splitlines()[-1] == "ended by 2"
    wait_gone(pids)
    assert wait_until_gone(lab.layout.replicas_lock, 10)


def test_a_foreground_supervisor_killed_with_9_leaves_nothing(lab: Lab) -> None:
    with foreground(lab, "orphan") as supervisor:
        engine = lab.engine(service("coordinator"), service())
        wait_for(lab.layout.socket.exists, "the socket")
        pids = [item.pid for item in wait_ready(engine, 2) + wait_ready(engine, 1, "coordinator") if item.pid]
        pids.append(daemon_pid(lab))
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.communicate(timeout=20)
    wait_gone(pids)
    assert wait_until_gone(lab.layout.replicas_lock, 10)
