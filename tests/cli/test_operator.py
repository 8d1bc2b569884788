"""What an operator, a collector and a service manager see of the scaler."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from cfscale.cli.live import Screen, bar, sparkline
from cfscale.cli.logs import LogFormat, logging_as
from cfscale.cli.metrics import Meter, address_of, serving
from cfscale.cli.notify import notify
from cfscale.core.autoscale import decide
from cfscale.core.decision import Action, Decision, identity
from cfscale.core.history import History
from cfscale.core.policy import Observation
from cfscale.core.samples import ReplicaState
from cfscale.errors import InputError
from cfscale.runtime.watch import correlation
from tests.cli.test_scale import SIZE, service
from tests.conftest import Result
from tests.fake_service import AGENTS, UNDAMPED, FakeService, a_replica, a_usage
from tests.ports import free_port

__all__ = ["service"]
NOW = 1_000_000.0


def observed(cpu: float) -> Observation:
    replicas = (a_replica(1), a_replica(2), a_replica(3, ReplicaState.STARTING))
    return Observation(AGENTS, "process", NOW, replicas, tuple(a_usage(n, cpu, 0.2, NOW) for n in (1, 2)))


def decided(observation: Observation) -> Decision:
    return decide(observation, UNDAMPED, History(replicas=3))[0]


# --- the live table


def test_the_live_table_shows_use_replicas_decision_and_countdown() -> None:
    from rich.console import Console

    seen = observed(1.6)
    screen = Screen({"agents": seen}, due=lambda: 107.4, clock=lambda: 100.0)
    for cpu in (0.0, 0.3, 0.6, 1.6):
        screen.add(decided(observed(cpu)))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        terminal = Console(width=200, record=True, file=nowhere)
        terminal.print(screen)
        text = terminal.export_text()

    assert "next in 7 s" in text
    assert "2/4" in text
    assert "▁▃▅█" in text
    assert "██████████" in text
    assert "scale_up, critical: cpu 160% is above 80%: 4 needed" in text


def test_while_a_tick_is_under_way_there_is_no_countdown() -> None:
    assert Screen({}, due=lambda: 0.0, clock=lambda: 50.0).countdown() == "looking"


def test_what_is_not_known_is_a_gap_and_what_is_too_much_is_full() -> None:
    assert sparkline(deque([0.0, None, 0.5, 1.0, 7.0])) == "▁ ▅██"
    assert (bar(None), bar(0.5), bar(3.0)) == ("··········", "█████·····", "██████████")


# --- history and explain


def test_a_decision_is_explained_by_its_id_or_as_the_last(cfscale: Callable[..., Result], service: FakeService) -> None:
    cfscale("scale", *SIZE, "--apply")
    service.load = lambda _time: 1.5
    cfscale("scale", *SIZE, "--apply")
    entries = json.loads(cfscale("history", "-o", "json").stdout)["entries"]
    first, last = entries[0]["id"], entries[-1]["id"]
    table = cfscale("history").stdout

    assert first != last
    assert table.splitlines()[1].startswith(first)
    told = cfscale("explain", first).stdout
    assert f"{first}  agents on process" in told
    assert "scale_up: 2 -> 3 replicas, urgency critical" in told
    assert f"1. {entries[0]['reason'].split('; ')[0]}" in told
    assert "  before   " not in told
    assert "cpu        100%  ok, now, by fake" in told
    assert "outcome  done" in told
    assert cfscale("explain", first[:6]).stdout == told
    after = cfscale("explain", "last").stdout
    assert "3 replicas stay" in after
    assert f"before   {first}" in after
    document = json.loads(cfscale("explain", first, "-o", "json").stdout)
    assert [entry["kind"] for entry in document["entries"]] == ["intent", "result"]


def test_an_action_that_failed_is_explained_with_its_end(cfscale: Callable[..., Result], service: FakeService) -> None:
    service.grows_at_most = 0
    cfscale("scale", *SIZE, "--apply")
    assert "outcome  did not take effect: no room for more; 0 of 1 started" in cfscale("explain", "last").stdout


def test_a_decision_that_is_not_there_says_where_to_look(cfscale: Callable[..., Result], service: FakeService) -> None:
    empty = cfscale("explain", "last")
    assert (empty.code, "the journal is empty" in empty.stderr) == (2, True)
    cfscale("scale", *SIZE, "--apply")
    unknown = cfscale("explain", "0000000000")
    assert (unknown.code, "see the ids of 'cfscale history'" in unknown.stderr) == (2, True)


# --- metrics


def gathered(port: int) -> dict[tuple[str, str], float]:
    """Every sample by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_say_what_was_seen_decided_and_done() -> None:
    meter, seen = Meter("acme", "process", 10.0), observed(1.6)
    decision = decided(seen)
    meter.decided(decision, seen, 0)
    meter.acted(replace(decision, applied=True))
    meter.acted(decision)
    meter.ticked(0.02, {"agents": History(failures=2)})
    warned: list[str] = []
    meter.counting(warned.append)("look")
    with serving(meter, ":0") as port:
        found = gathered(port)

    assert found[("cfscale_replicas", "service=agents,state=ready")] == 2
    assert found[("cfscale_replicas", "service=agents,state=starting")] == 1
    assert found[("cfscale_desired_replicas", "service=agents")] == 4
    assert found[("cfscale_utilisation_ratio", "resource=cpu,service=agents")] == pytest.approx(1.6)
    assert found[("cfscale_replica_bound", "bound=max,service=agents")] == 10
    assert found[("cfscale_decisions_total", "action=scale_up,service=agents,urgency=critical")] == 1
    assert found[("cfscale_actions_total", "action=scale_up,outcome=done,service=agents")] == 1
    assert found[("cfscale_actions_total", "action=scale_up,outcome=failed,service=agents")] == 1
    assert found[("cfscale_failed_actions", "service=agents")] == 2
    assert found[("cfscale_tick_seconds_count", "")] == 1
    assert found[("cfscale_warnings_total", "")] == 1
    assert found[("cfscale_info", "deployment=acme,engine=process")] == 1
    assert warned == ["look"]


def test_health_turns_when_ticks_stop_coming() -> None:
    prompt, late = Meter("acme", "process", 60.0), Meter("acme", "process", 0.0)
    with serving(prompt, ":0") as port, urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        assert json.load(answer)["status"] == "ok"
    with serving(late, ":0") as port:
        with pytest.raises(urllib.error.HTTPError, match="503") as problem:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
        problem.value.close()
        with pytest.raises(urllib.error.HTTPError, match="404") as problem:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
        problem.value.close()


def test_metrics_are_served_while_the_command_watches(cfscale: Callable[..., Result], service: FakeService) -> None:
    port, found = free_port(), {}

    def load(_time: float) -> float:
        found.update(gathered(port))
        return 10.0

    service.load = load
    result = cfscale("scale", *SIZE, "--apply", "--for", "2s", "--interval", "1s", "--metrics", f":{port}")
    assert result.code == 0
    assert f"http://127.0.0.1:{port}/metrics" in result.stderr
    assert found[("cfscale_actions_total", "action=scale_up,outcome=done,service=agents")] == 1
    assert found[("cfscale_tick_seconds_count", "")] >= 1


@pytest.mark.parametrize("text", ["9464x", ":", ":70000", "here"])
def test_a_metrics_address_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"--metrics '.*': write \[ADDRESS\]:PORT"):
        address_of(text)


def test_a_port_that_is_taken_is_said(cfscale: Callable[..., Result], service: FakeService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        result = cfscale("scale", *SIZE, "--for", "1s", "--metrics", f":{taken}")
    assert (result.code, "choose another address" in result.stderr) == (2, True)
    assert cfscale("scale", *SIZE, "--metrics", ":0").code == 2


# --- logs


def logged(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stderr.splitlines()]


def test_logs_carry_correlation_service_and_instance(
    cfscale: Callable[..., Result], service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTANCE_ID", "scaler-1")
    service.grows_at_most = 0
    lines = logged(cfscale("scale", *SIZE, "--apply", "--log", "json", "-o", "json"))
    (entry,) = {entry["id"] for entry in json.loads(cfscale("history", "-o", "json").stdout)["entries"]}
    decision = next(line for line in lines if "action" in line)

    assert all({"time", "level", "service", "instance", "correlation_id", "message"} <= line.keys() for line in lines)
    assert (decision["correlation_id"], decision["service"], decision["instance"]) == (
        entry,
        "cfscale-scale",
        "scaler-1",
    )
    assert (decision["scaled_service"], decision["action"], decision["applied"]) == ("agents", "scale_up", False)


def test_a_warning_within_an_action_is_logged_under_its_decision(
    cfscale: Callable[..., Result], service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "state" / "journal.jsonl").mkdir(parents=True)
    lines = logged(cfscale("scale", *SIZE, "--apply", "--log", "json"))
    warning = next(line for line in lines if "grows all the same" in str(line["message"]))
    decision = next(line for line in lines if "action" in line)

    assert (warning["level"], warning["correlation_id"]) == ("warning", decision["correlation_id"])


def test_the_error_that_ends_the_command_is_a_line_of_the_log_too(
    cfscale: Callable[..., Result], service: FakeService, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "scaling.json").write_text("{")
    damaged = logged(cfscale("scale", *SIZE, "--apply", "--log", "json"))[-1]
    (incomplete,) = logged(cfscale("scale", "--users", "1", "--agents", "1", "--log", "json"))
    plain = cfscale("scale", "--metrics", ":0", *SIZE)

    assert (damaged["level"], damaged["deployment"]) == ("error", "cfscale")
    assert "move it away to start afresh" in str(damaged["message"])
    assert (incomplete["level"], "tasks" in str(incomplete["message"])) == ("error", True)
    assert plain.stderr.startswith("error: --metrics serves while it watches")


def test_after_the_block_messages_are_text_again(capsys: pytest.CaptureFixture[str]) -> None:
    from cfscale.cli import console

    with logging_as(LogFormat.JSON):
        console.warn("in\x1bside")
    console.warn("outside")
    inside, outside = capsys.readouterr().err.splitlines()

    assert json.loads(inside)["message"] == "inside"
    assert outside == "warning: outside"


def test_an_id_follows_from_time_and_service_alone() -> None:
    decision = decided(observed(1.6))
    assert identity(decision) == identity(replace(decision, applied=True, reason="x", action=Action.HOLD))
    assert identity(decision) != identity(replace(decision, service="other"))
    assert correlation.get() is None


# --- the daemon


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    name = f"@cfscale-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    notify("STOPPING=1")  # a manager that is gone is no problem


def test_watching_loads_neither_metrics_nor_rich_unless_asked(tmp_path: Path) -> None:
    code = "import sys; from cfscale.cli import scale; print([name for name in ('prometheus_client', 'rich', 'docker') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
