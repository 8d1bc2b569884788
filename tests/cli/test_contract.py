"""The contract of the command line from outside: documents fit their schemas, errors are one line, streams are kept."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cfscale.adapters.decode import decode_yaml
from cfscale.adapters.state import State
from cfscale.core.workload import Profile
from tests.conftest import Result
from tests.json_schema import problems

SIZE = ("--users", "4", "--agents", "20", "--tasks", "40")
EVERY_KEY = """\
name: acme
environment: production
users: 4
agents: 20
tasks: 40
growth: 1.5
slo: {task_rate_per_second: 5, task_seconds: 3, wait_probability: 0.05}
services:
  agents:
    image: registry.example.com/worker:1.4
    command: [worker, --port, 8080]
    port: 8080
    health: {kind: http, path: /healthz, json: {ready: true}, interval: 5s, rise: 1}
    resources: {cpu: 1, memory: 2G}
    env: {LEVEL: info, RETRIES: 3, TRACE: true}
scaling:
  interval: 10s
  policies: [{kind: resource, cpu: {scale_up: 80, scale_down: 30}}]
  tolerance: 0.1
  scale_up: {stabilization_window: 0s, cooldown: 30s, max_percent: 100, max_replicas: 4}
  scale_down: {stabilization_window: 300s, cooldown: 300s, max_percent: 50}
  services: {agents: {min: 2, max: 400}}
"""


@pytest.fixture
def schema(cfscale: Callable[..., Result]) -> Callable[[str], dict[str, object]]:
    def load(name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(cfscale("schema", name).stdout)
        return found

    return load


@pytest.mark.parametrize(
    "sizing",
    [
        SIZE,
        ("--users", "0", "--agents", "0", "--tasks", "0"),
        ("--users", "40", "--agents", "400", "--tasks", "800", "--environment", "staging"),
        ("--users", "100000000", "--agents", "100000000", "--tasks", "100000000"),
    ],
    ids=["small", "nothing", "staging", "most"],
)
def test_a_plan_fits_its_schema(
    sizing: tuple[str, ...], cfscale: Callable[..., Result], schema: Callable[[str], dict[str, object]]
) -> None:
    assert problems(schema("plan"), json.loads(cfscale("plan", *sizing, "-o", "json").stdout)) == []


def test_a_document_astray_is_found(cfscale: Callable[..., Result], schema: Callable[[str], dict[str, object]]) -> None:
    document = json.loads(cfscale("plan", *SIZE, "-o", "json").stdout)
    document["cells"] = "one"
    del document["nodes"]["count"]

    assert problems(schema("plan"), document) == ["$.cells: 'one' is no integer", "$.nodes: count is missing"]


def test_a_probe_a_decision_and_a_lock_fit_their_schemas(
    cfscale: Callable[..., Result], schema: Callable[[str], dict[str, object]], tmp_path: Path
) -> None:
    probed = json.loads(cfscale("probe", "http://127.0.0.1:9/", "-o", "json").stdout)
    decided = json.loads(cfscale("scale", *SIZE, "--engine", "process", "-o", "json").stdout)
    assert cfscale("render", *SIZE, "--target", "compose", "--out", "out").code == 0

    assert problems(schema("probe"), probed) == []
    assert problems(schema("decision"), decided) == []
    assert problems(schema("lock"), json.loads((tmp_path / "out" / "cfscale.lock.json").read_text())) == []


def test_what_a_profile_may_say_is_what_its_schema_allows(schema: Callable[[str], dict[str, object]]) -> None:
    decode_yaml(EVERY_KEY.encode(), Profile, "acme.yaml")

    assert problems(schema("profile"), yaml.safe_load(EVERY_KEY)) == []


@pytest.mark.parametrize("name", ["no", "null", "true", "on", "012", "1e3", "1", "0x1f"])
def test_init_writes_a_profile_that_reads_back(
    name: str, cfscale: Callable[..., Result], schema: Callable[[str], dict[str, object]], tmp_path: Path
) -> None:
    assert cfscale("init", "--name", name, *SIZE).code == 0
    planned = cfscale("plan", "-o", "json")

    assert (planned.code, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["name"] == name
    assert problems(schema("profile"), yaml.safe_load((tmp_path / "cfscale.yaml").read_text())) == []


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--tier", "huge"), 2, "no tier is called 'huge'"),
        (("--tier", "single-user", "--agents", "400"), 1, "cannot hold 400 agents"),
        (("--name", "Not A Name"), 2, "write lower-case letters, digits"),
    ],
)
def test_init_writes_nothing_that_cannot_be_planned(
    flags: tuple[str, ...], code: int, message: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    result = cfscale("init", *SIZE, *flags)

    assert (result.code, result.stdout, message in result.stderr) == (code, "", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--users", "--agents", "--tasks"])
def test_the_word_null_is_no_number(flag: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", *SIZE, flag, "null")

    assert (result.code, result.stdout, f"{flag} 'null'" in result.stderr) == (2, "", True)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = script.replace("cfscale", f"'{sys.executable}' -m cfscale").replace("SIZE", " ".join(SIZE))
    return subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_a_result_that_cannot_be_written_is_a_failure_in_one_line(target: str, tmp_path: Path) -> None:
    done = shell(f"cfscale plan SIZE -o json >{target}", tmp_path)

    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "standard output" in done.stderr


@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_what_is_said_on_the_way_may_be_lost(target: str, tmp_path: Path) -> None:
    assert "agents" in shell(f"cfscale plan SIZE 2>{target}", tmp_path).stdout
    assert shell(f"cfscale plan SIZE 2>{target}", tmp_path).returncode == 0
    assert shell(f"cfscale plan 2>{target}", tmp_path).returncode == 2


def test_a_version_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    done = shell("cfscale --version >/dev/full", tmp_path)

    assert (done.returncode, done.stderr) == (1, "")


def test_a_reader_that_is_gone_before_the_result_is_no_failure(tmp_path: Path) -> None:
    code = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); "
        f"from cfscale.cli.main import run; sys.exit(run(['plan', *{SIZE!r}, '-o', 'json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", [("up",), ("down",), ("scale", "--apply")], ids=lambda value: value[0])
def test_another_engine_than_the_recorded_one_is_refused(
    command: tuple[str, ...], cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    State(tmp_path / "state").record_engine("compose")
    result = cfscale(*command, *SIZE, "--engine", "process")

    assert (result.code, result.stdout) == (1, "")
    assert "runs on engine compose" in result.stderr
    assert State(tmp_path / "state").engine() == "compose"


def test_an_engine_recorded_by_another_version_is_no_verdict(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    State(tmp_path / "state").record_engine("nomad")
    result = cfscale("status", *SIZE)

    assert (result.code, "'nomad' is not one of this version" in result.stderr) == (3, True)


def test_nothing_is_recorded_for_an_engine_that_only_recommends(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    assert cfscale("up", *SIZE, "--engine", "host").code == 2
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["up", "down", "status", "scale", "probe"])
def test_production_without_docker_does_not_fall_back(
    command: str, cfscale: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    result = cfscale(command, *SIZE)

    assert (result.code, result.stdout, len(result.stderr.splitlines())) == (3, "", 1)
    assert "--engine process" in result.stderr


def test_a_state_directory_that_is_a_file_is_no_defect(
    cfscale: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CFSCALE_STATE_DIR", str(tmp_path / "file"))

    for command in ("up", "down", "status", "scale", "probe"):
        result = cfscale(command, *SIZE, "--engine", "process")
        assert (result.code, result.stdout, "not a directory" in result.stderr) == (2, "", True)
    assert cfscale("pause").code == 1


def test_a_journal_that_cannot_be_read_hides_nothing_else(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "state" / "journal.jsonl").mkdir(parents=True)
    result = cfscale("status", *SIZE, "--engine", "process", "-o", "json")

    assert result.code == 3
    assert len(json.loads(result.stdout)["services"]) == 4


def test_a_pause_that_is_over_at_once_is_refused(cfscale: Callable[..., Result]) -> None:
    result = cfscale("pause", "--for", "0s")

    assert (result.code, "give more than 0" in result.stderr) == (2, True)


def test_resuming_one_service_says_that_all_are_still_paused(cfscale: Callable[..., Result]) -> None:
    cfscale("pause")

    assert "every service is still paused" in cfscale("resume", "agents").stderr
    assert "still paused" not in cfscale("resume").stderr


@pytest.mark.parametrize("flag", ["--for", "--interval"])
def test_a_duration_beyond_every_timer_is_refused(flag: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("scale", *SIZE, "--engine", "process", "--watch", flag, "99999999y")

    assert (result.code, "longer than ten years" in result.stderr) == (2, True)


@pytest.mark.parametrize("command", ["status", "probe", "up"])
def test_the_host_engine_is_not_asked_for_replicas_it_does_not_run(
    command: str, cfscale: Callable[..., Result]
) -> None:
    Path("cfscale.yaml").write_text("users: 1\nagents: 1\ntasks: 1\n")
    result = cfscale(command, "--engine", "host")

    assert (result.code, result.stdout) == (2, "")
    assert "only recommends" in result.stderr
