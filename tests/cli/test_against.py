"""``plan --against`` as an operator sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cfscale.adapters.assets import load_catalogue
from cfscale.cli.against import against
from cfscale.cli.console import Output
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import size
from cfscale.core.workload import Profile
from cfscale.errors import InputError
from tests.conftest import Result

SIZING = ("--users", "40", "--agents", "400", "--tasks", "800")


@pytest.fixture
def plan() -> DeploymentPlan:
    return size(Profile(users=40, agents=400, tasks=800), load_catalogue())


@pytest.fixture
def manifest(cfscale: Callable[..., Result], tmp_path: Path) -> Path:
    assert cfscale("render", *SIZING, "--target", "compose", "--out", "deploy").code == 0
    return tmp_path / "deploy" / "compose.yaml"


def edited(manifest: Path, old: str, new: str) -> str:
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    return str(manifest)


def test_a_rendered_folder_is_as_planned(
    plan: DeploymentPlan, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(plan, str(manifest.parent), Output.TABLE) == 0
    shown, note = capsys.readouterr().out.splitlines()
    assert shown.endswith("compose.yaml: as planned (department, 28 services)")
    assert note == "prometheus starts only with a profile of Compose and is not counted"


def test_a_smaller_limit_is_named_with_its_rule(
    plan: DeploymentPlan, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(plan, edited(manifest, 'memory: "4G"', 'memory: "3G"'), Output.TABLE) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        "coordinator",
        "memory",
        "limit",
        "4",
        "GiB",
        "3",
        "GiB",
        "under",
        "coordinator.memory_limit",
    ]
    assert any(line.endswith(": 1 deviation from the plan") for line in lines)


def test_only_larger_costs_money_and_no_exit_code(
    plan: DeploymentPlan, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(plan, edited(manifest, 'memory: "4G"', 'memory: "8G"'), Output.TABLE) == 0
    assert "larger than planned: that costs money, nothing else" in capsys.readouterr().out


def test_what_a_variable_hides_is_no_verdict(
    plan: DeploymentPlan, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(plan, edited(manifest, "replicas: 19", "replicas: ${N}"), Output.TABLE) == 3
    assert "${N}" in capsys.readouterr().out


def test_the_document_is_versioned_and_in_base_units(
    plan: DeploymentPlan, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert against(plan, edited(manifest, 'memory: "4G"', 'memory: "3G"'), Output.JSON) == 1

    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "cfscale/deviations/v1"
    assert document["deviations"] == [
        {
            "service": "coordinator",
            "what": "memory limit",
            "planned": 4 * 2**30,
            "deployed": 3 * 2**30,
            "unit": "bytes",
            "verdict": "under",
            "rule": "coordinator.memory_limit",
        }
    ]


def test_a_file_of_another_hand_is_compared_service_by_service(
    plan: DeploymentPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text("services: {coordinator: {image: x, scale: 3}, grafana: {image: g}}")

    assert against(plan, str(path), Output.TABLE) == 1

    out = capsys.readouterr().out
    assert "unlimited" in out
    assert "agents.replicas" in out
    assert "not planned, not compared: grafana" in out


def test_a_file_that_is_not_yaml_is_an_input_error_with_its_place(plan: DeploymentPlan, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("services:\n  a: [1\n")

    with pytest.raises(InputError, match=r"bad\.yaml:3:1: not valid YAML"):
        against(plan, str(tmp_path / "bad.yaml"), Output.TABLE)


def test_plan_takes_it_as_a_flag(cfscale: Callable[..., Result], manifest: Path) -> None:
    result = cfscale("plan", *SIZING, "--against", "deploy")

    assert (result.code, result.stderr) == (0, "")


def test_a_rendered_stack_is_as_planned_but_for_what_swarm_cannot_carry(
    cfscale: Callable[..., Result], plan: DeploymentPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cfscale("render", *SIZING, "--target", "swarm", "--out", "stack").code == 0

    assert against(plan, str(tmp_path / "stack"), Output.TABLE) == 0
    assert "stack.yaml: as planned (department, " in capsys.readouterr().out
    assert (
        against(plan, edited(tmp_path / "stack" / "stack.yaml", "published: 8080", "published: 80"), Output.TABLE) == 1
    )
