import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from cfscale.adapters.lock import Lock
from cfscale.adapters.process import ProcessEngine
from cfscale.adapters.state import State
from cfscale.cli import engines
from cfscale.cli.engines import open_deployment
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Environment, Profile
from cfscale.errors import RefusedError
from tests.conftest import Result
from tests.fake_service import a_replica

SIZE = ("--users", "3", "--agents", "20", "--tasks", "40")
Cfscale = Callable[..., Result]


class Typist(io.StringIO):
    """Somebody at a terminal who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """The state of a deployment on a host where no Docker engine answers."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    monkeypatch.setenv("CFSCALE_STATE_DIR", str(tmp_path / "state"))
    found = State(tmp_path / "state")
    found.create()
    return found


def planned(catalogue: Catalogue, environment: Environment = "development") -> DeploymentPlan:
    return size(Profile(users=3, agents=20, tasks=40, environment=environment), catalogue)


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_an_unknown_engine_names_those_there_are(command: str, cfscale: Cfscale, state: State) -> None:
    result = cfscale(command, *SIZE, "--engine", "vagrant")

    assert (result.code, result.stdout) == (2, "")
    assert "choose auto, process, compose, swarm, kubernetes, host" in result.stderr


def test_the_host_only_recommends_and_starts_nothing(cfscale: Cfscale, state: State) -> None:
    result = cfscale("up", *SIZE, "--engine", "host")

    assert (result.code, result.stdout) == (2, "")
    assert "--engine host only recommends" in result.stderr


def test_what_does_not_run_can_be_taken_down(cfscale: Cfscale, state: State) -> None:
    state.record_engine("process")
    result = cfscale("down", *SIZE)

    assert (result.code, result.stdout) == (0, "")
    assert "is down; its data is kept" in result.stderr
    assert state.engine() is None


def test_data_is_not_removed_where_nobody_can_be_asked(cfscale: Cfscale, state: State) -> None:
    result = cfscale("down", *SIZE, "--engine", "process", "--volumes")

    assert result.code == 2
    assert "give --yes where nobody can be asked" in result.stderr


def test_data_is_removed_when_the_operator_says_yes(cfscale: Cfscale, state: State) -> None:
    result = cfscale("down", *SIZE, "--engine", "process", "--volumes", "--yes")

    assert result.code == 0
    assert "its data is removed" in result.stderr


def test_up_and_down_wait_for_nobody_who_holds_the_lock(cfscale: Cfscale, state: State, catalogue: Catalogue) -> None:
    target = open_deployment(planned(catalogue), "process", None).engine.target
    with Lock(target, command="cfscale scale --watch", started_at="now"):
        result = cfscale("down", *SIZE, "--engine", "process")

    assert result.code == 4
    assert "cfscale scale --watch" in result.stderr


def test_without_docker_local_processes_run_it_and_say_so(
    state: State, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment = open_deployment(planned(catalogue), "auto", None)

    assert isinstance(deployment.engine, ProcessEngine)
    assert "no Docker engine answers: using local processes" in capsys.readouterr().err


def test_the_engine_that_is_recorded_is_used_again(state: State, catalogue: Catalogue) -> None:
    state.record_engine("host")

    assert open_deployment(planned(catalogue), "auto", None).engine.name == "host"


def test_the_queue_s_password_lies_where_the_engine_reads_it(
    state: State, catalogue: Catalogue, tmp_path: Path
) -> None:
    plan = planned(catalogue)
    local, composed = open_deployment(plan, "process", None), open_deployment(plan, "compose", None, tmp_path / "out")

    assert local.queue_password == state.folder / "queue_password"
    assert composed.queue_password == tmp_path / "out" / "secrets" / "queue_password"
    assert engines.manifests_of(state) == state.folder / "compose"


def test_the_endpoint_is_a_published_port_with_a_running_replica_behind_it(state: State, catalogue: Catalogue) -> None:
    deployment = open_deployment(planned(catalogue), "process", None)
    behind = replace(a_replica(1), service="coordinator")  # a single user has no balancer

    assert deployment.endpoint([behind]) == "127.0.0.1:8080"
    assert deployment.endpoint([a_replica(1)]) is None


def test_manifests_edited_by_hand_are_kept_unless_forced(state: State, catalogue: Catalogue, tmp_path: Path) -> None:
    deployment = open_deployment(planned(catalogue), "compose", None, tmp_path / "out")
    deployment.prepare(force=False)
    edited = tmp_path / "out" / "compose.yaml"
    text = edited.read_text()
    edited.write_text(text + "# mine\n")

    with pytest.raises(RefusedError):
        deployment.prepare(force=False)
    deployment.prepare(force=True)

    assert edited.read_text() == text


def test_a_deployment_that_was_never_started_has_nothing_to_stop_and_leaves_no_state(
    cfscale: Cfscale, tmp_path: Path
) -> None:
    result = cfscale("down", *SIZE, "--engine", "process")

    assert (result.code, result.stdout) == (0, "")
    assert not (tmp_path / "state" / "state.json").exists()


@pytest.mark.parametrize(("answer", "code"), [("cfscale", 0), ("something else", 2)])
def test_on_a_terminal_data_is_removed_only_by_name(
    answer: str, code: int, cfscale: Cfscale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "stdin", Typist(f"{answer}\n"))
    result = cfscale("down", *SIZE, "--engine", "process", "--volumes")

    assert result.code == code
    assert ("its data is removed" in result.stderr) == (code == 0)


def test_a_swarm_deployment_is_probed_as_it_is_carried(state: State, catalogue: Catalogue, tmp_path: Path) -> None:
    deployment = open_deployment(planned(catalogue, "production"), "swarm", None)

    assert (deployment.engine.name, deployment.rendered, deployment.balancer) == ("swarm", True, None)
    assert deployment.manifests == state.folder / "swarm"
    assert all(one.publish is None or one.publish.startswith("0.0.0.0:") for one in deployment.plan.services)


def test_what_takes_a_port_of_its_node_is_started_as_often_as_there_are_nodes(
    state: State, catalogue: Catalogue, capsys: pytest.CaptureFixture[str]
) -> None:
    team = size(Profile(users=10, agents=100, tasks=100), catalogue)
    deployment = replace(open_deployment(team, "swarm", None), nodes=lambda: 1)

    assert deployment.fitting({"loadbalancer": 2, "agents": 9}) == {"loadbalancer": 1, "agents": 9}
    assert "loadbalancer: 1 of 2 replicas: each takes the port of a node of its own" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "probe", "down"])
def test_without_an_engine_a_swarm_cannot_be_told_anything(command: str, cfscale: Cfscale, state: State) -> None:
    state.record_engine("swarm")
    result = cfscale(command, *SIZE)

    assert result.code == 3
    assert "no Docker engine there" in result.stderr
