"""The whole path with the demo worker, as ``make demo`` runs it, on both engines: grow, shrink, nothing lost, nothing left."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.stack import left_behind, started

DEMO = ROOT / "examples" / "demo"
FIRST = "cfscale-e2e-first"


def run_demo(engine: str, tmp_path: Path) -> str:
    """The output of the demo; its temporary files go below ``tmp_path``."""
    done = subprocess.run(
        [sys.executable, str(DEMO / "run.py"), "--engine", engine],
        env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    sys.stdout.write(done.stdout + done.stderr)
    assert done.returncode == 0
    return done.stdout


def counts(output: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", output.split("agents ready over time:")[1].splitlines()[0])]


@pytest.mark.process
def test_the_demo_on_local_processes(tmp_path: Path) -> None:
    output = run_demo("process", tmp_path)

    assert max(counts(output)) > 1
    assert counts(output)[-1] == 1
    assert " 0 lost" in output
    assert not _commands_naming("worker.py", str(DEMO))


@pytest.mark.engine
def test_the_demo_on_compose(tmp_path: Path) -> None:
    output = run_demo("compose", tmp_path)

    assert max(counts(output)) > 1
    assert counts(output)[-1] == 1
    assert " 0 lost" in output
    assert left_behind("demo") == []


@pytest.mark.engine
def test_the_first_requests_after_up_are_answered(tmp_path: Path) -> None:
    profile = (DEMO / "cfscale.yaml").read_text().replace("name: demo", f"name: {FIRST}").replace(":18080", ":18081")
    with started(profile, FIRST, 18081, tmp_path) as stack:
        kinds = ("", "agent-spawn", "task-execution", "swarm-coordination")
        found = [stack.get("/work?ms=1", {"X-Request-Type": kind})[0] for kind in kinds for _ in range(3)]

    assert found == [200] * 12


def _commands_naming(word: str, directory: str) -> list[str]:
    """Command lines of processes that run this script from this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().replace("\0", " ")
            if word in command and str((process / "cwd").resolve()) == directory:
                found.append(command)
        except OSError:
            continue
    return found


def journal_of(state: Path) -> list[dict[str, object]]:
    """The journal of a state directory, oldest first; empty before its first line."""
    path = state / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
