import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cfscale.adapters.lock import Lock
from cfscale.adapters.state import State
from cfscale.cli import engines
from cfscale.cli.engines import Deployment
from cfscale.core.plan import DeploymentPlan
from cfscale.runtime import watch
from tests.conftest import Result
from tests.fake_service import FakeService, VirtualClock

SIZE = ("--users", "3", "--agents", "20", "--tasks", "40")
KEYS = [
    "schema",
    "time",
    "service",
    "engine",
    "current",
    "desired",
    "action",
    "urgency",
    "reason",
    "applied",
    "samples",
    "basis",
]


class RealTime(VirtualClock):
    """The clock of a service that runs in real time, as the command line does."""

    @property
    def time(self) -> float:
        return time.time()

    @time.setter
    def time(self, value: float) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeService:
    """A saturated service behind every engine that the command line opens."""
    fake = FakeService(RealTime(), lambda _time: 10.0, startup_seconds=0.0).start(2)

    def open_fake(plan: DeploymentPlan, _wanted: str, _profile: str | None) -> Deployment:
        state = State(Path(os.environ["CFSCALE_STATE_DIR"]))
        return Deployment(plan, state, fake, None, state.folder, lambda: ())

    monkeypatch.setattr(engines, "open_deployment", open_fake)
    monkeypatch.setattr(watch, "FIRST_WINDOW_SECONDS", 0.0)
    return fake


def test_one_evaluation_changes_nothing_and_says_so(
    cfscale: Callable[..., Result], service: FakeService, tmp_path: Path
) -> None:
    result = cfscale("scale", *SIZE, "-o", "json")
    assert result.code == 0
    decision = json.loads(result.stdout)
    assert list(decision) == KEYS
    assert (decision["schema"], decision["action"], decision["applied"]) == ("cfscale/decision/v1", "scale_up", False)
    assert set(decision["samples"][0]) == {
        "resource",
        "value_ratio",
        "source",
        "age_seconds",
        "quality",
        "window_seconds",
    }
    assert "nothing was changed" in result.stderr
    assert (service.calls, (tmp_path / "state").exists()) == ([], False)


def test_apply_acts_journals_and_remembers(cfscale: Callable[..., Result], service: FakeService) -> None:
    result = cfscale("scale", *SIZE, "--apply", "-o", "json")
    assert (result.code, service.calls, json.loads(result.stdout)["applied"]) == (0, ["grow 3"], True)
    assert "cooling down" in cfscale("scale", *SIZE, "--apply").stdout
    entries = json.loads(cfscale("history", "-o", "json").stdout)["entries"]
    assert [entry["kind"] for entry in entries] == ["intent", "result", "decision"]
    assert "3 needed" in cfscale("history", "--service", "agents").stdout
    assert cfscale("history", "--service", "queue").stdout == ""


@pytest.mark.parametrize("output", ["table", "yaml"])
def test_the_other_formats_say_the_same(cfscale: Callable[..., Result], service: FakeService, output: str) -> None:
    result = cfscale("scale", *SIZE, "-o", output)
    assert "cpu 100% is above 80%: 3 needed" in result.stdout
    if output == "yaml":
        assert list(yaml.safe_load(result.stdout)) == KEYS


@pytest.mark.parametrize("output", ["table", "json"])
def test_watching_prints_a_line_a_tick(cfscale: Callable[..., Result], service: FakeService, output: str) -> None:
    result = cfscale("scale", *SIZE, "--for", "1500ms", "--interval", "1s", "-o", output)
    assert (result.code, len(result.stdout.splitlines())) == (0, 2)
    assert "scale_up" in result.stdout


def test_watching_on_a_terminal_draws_a_live_table(
    cfscale: Callable[..., Result], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfscale.cli.console.is_terminal", lambda _stream=None: True)
    monkeypatch.setenv("COLUMNS", "160")
    result = cfscale("scale", *SIZE, "--for", "1s", "--interval", "1s")
    assert "2/3" in result.stdout
    assert "██████████" in result.stdout


def test_an_engine_out_of_reach_is_no_verdict(cfscale: Callable[..., Result], service: FakeService) -> None:
    service.unreachable = True
    result = cfscale("scale", *SIZE, "-o", "json")
    assert (result.code, json.loads(result.stdout)["action"]) == (3, "hold")


def test_an_action_that_fails_is_a_failure(cfscale: Callable[..., Result], service: FakeService) -> None:
    service.grows_at_most = 0
    result = cfscale("scale", *SIZE, "--apply", "-o", "json")
    assert (result.code, json.loads(result.stdout)["applied"]) == (1, False)


def test_a_journal_out_of_reach_bars_shrinking_not_growing(
    cfscale: Callable[..., Result], service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "state" / "journal.jsonl").mkdir(parents=True)
    result = cfscale("scale", *SIZE, "--apply", "-o", "json")
    assert (result.code, service.calls, json.loads(result.stdout)["applied"]) == (0, ["grow 3"], True)
    assert "nothing will shrink" in result.stderr
    assert "grows all the same" in result.stderr


def test_a_second_scaler_is_told_who_holds_the_lock(cfscale: Callable[..., Result], service: FakeService) -> None:
    with Lock(service.target, command="cfscale scale --watch", started_at="now"):
        result = cfscale("scale", *SIZE, "--apply")
        assert (result.code, cfscale("scale", *SIZE).code) == (4, 0)
        assert f"pid {os.getpid()}" in json.loads(cfscale("status", *SIZE, "-o", "json").stdout)["lock_holder"]
    assert "cfscale scale --watch" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_loop_with_its_code(
    cfscale: Callable[..., Result], service: FakeService, number: signal.Signals, code: int
) -> None:
    looked = threading.Event()

    def load(_time: float) -> float:
        looked.set()
        return 1.0

    service.load = load

    def interrupt() -> None:
        if not looked.wait(10):  # the command has failed: spare the tests that follow
            return
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert cfscale("scale", *SIZE, "--watch", "--apply", "--interval", "1h").code == code
    thread.join()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--interval", "0s"], "at least 1s"),
        (["--interval", "soon"], "--interval: 'soon' is not a duration"),
        (["--for", "1h30"], "--for: '1h30' is not a duration"),
    ],
)
def test_bad_flags_are_named(
    cfscale: Callable[..., Result], service: FakeService, flags: list[str], message: str
) -> None:
    result = cfscale("scale", *SIZE, *flags)
    assert result.code == 2
    assert message in result.stderr


def test_pauses_are_obeyed_shown_and_ended(cfscale: Callable[..., Result], service: FakeService) -> None:
    assert "scaling out of agents is paused until 20" in cfscale("pause", "agents", "--out", "--for", "2h").stderr
    assert "scaling out is paused" in cfscale("scale", *SIZE).stdout
    shown = {item["service"]: item for item in json.loads(cfscale("status", *SIZE, "-o", "json").stdout)["services"]}
    assert shown["agents"]["scale_out_paused_until"].startswith("20")
    assert shown["agents"]["scale_in_paused_until"] is None
    cfscale("pause")
    assert "9999-12-31" in cfscale("status", *SIZE).stdout
    cfscale("resume", "agents")
    assert "scaling out is paused" in cfscale("scale", *SIZE).stdout
    cfscale("resume")
    assert "scale_up" in cfscale("scale", *SIZE).stdout


def test_an_unknown_service_cannot_be_paused(cfscale: Callable[..., Result]) -> None:
    result = cfscale("pause", "agnets")
    assert (result.code, "no service is called 'agnets'" in result.stderr) == (2, True)


def test_status_shows_replicas_and_the_last_decision(cfscale: Callable[..., Result], service: FakeService) -> None:
    cfscale("scale", *SIZE, "--apply")
    result = cfscale("status", *SIZE, "-o", "json")
    agents = next(item for item in json.loads(result.stdout)["services"] if item["service"] == "agents")
    assert (agents["current"], agents["ready"], agents["last_decision"]["applied"]) == (3, 3, True)
    assert f"scale_up: {agents['last_decision']['reason']}" in cfscale("status", *SIZE).stdout


def test_status_of_an_engine_out_of_reach_shows_what_is_known(
    cfscale: Callable[..., Result], service: FakeService
) -> None:
    service.unreachable = True
    result = cfscale("status", *SIZE, "-o", "json")
    assert result.code == 3
    assert json.loads(result.stdout)["services"][0]["current"] is None


def test_an_empty_journal_is_no_error(cfscale: Callable[..., Result]) -> None:
    result = cfscale("history")
    assert (result.code, result.stdout) == (0, "")
    assert "the journal is empty" in result.stderr


def test_a_plan_whose_counts_are_fixed_cannot_scale(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    text = "users: 3\nagents: 20\ntasks: 40\nscaling: {services: {agents: {min: 2, max: 2}}}\n"
    (tmp_path / "cfscale.yaml").write_text(text)
    result = cfscale("scale")
    assert result.code == 2
    assert "no service of cfscale may scale" in result.stderr
