"""``explain`` as an operator sees it."""

import json
from collections.abc import Callable

import pytest

from cfscale.adapters.assets import load_catalogue
from tests.conftest import Result

SIZING = ("--users", "40", "--agents", "400", "--tasks", "800")


def test_without_a_name_every_rule_is_listed(cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain")
    ledger = load_catalogue().ledger

    assert result.code == 0
    assert {line.split()[0] for line in result.stdout.splitlines()[1:]} == {*ledger.computed, *ledger.stated}


def test_without_a_workload_a_rule_is_explained_in_general(cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain", "memory.demand")

    assert "sizing.base_memory + sizing.agent_memory * agents.admitted" in result.stdout
    assert "founding:97" in result.stdout
    assert "--users" in result.stderr


def test_a_field_is_worked_out_down_to_the_profile(cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain", "demand.memory_bytes", *SIZING)

    assert result.stdout.startswith("memory.demand = 30 GiB\n")
    assert "ceil(2 + 0.05 x 400 agents + 0.01 x 800 tasks) GiB = 30 GiB" in result.stdout
    assert "profile.agents = 400" in result.stdout
    assert result.stderr == ""


def test_what_was_derived_once_is_not_derived_again(cfscale: Callable[..., Result]) -> None:
    lines = cfscale("explain", "nodes.count", *SIZING).stdout.splitlines()

    assert sum("agents.admitted = 400 agents: " in line for line in lines) == 1
    assert any("agents.admitted = 400 agents (see above)" in line for line in lines)


@pytest.mark.parametrize("name", ["agents.replicas", "services.agents.health.rise", "sizing.task_memory", "totals.cpu"])
@pytest.mark.parametrize("sizing", [(), SIZING])
def test_json_is_a_versioned_tree(name: str, sizing: tuple[str, ...], cfscale: Callable[..., Result]) -> None:
    document = json.loads(cfscale("explain", name, *sizing, "-o", "json").stdout)

    assert document["schema"] == "cfscale/explanation/v1"
    assert document["name"]
    assert (document["value"] is not None) == (bool(sizing) or name.startswith("sizing"))


def test_a_conflict_says_both_values_and_why(cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain", "doubling-scale-law")

    assert "chosen  proportional" in result.stdout
    assert "founding:662" in result.stdout


def test_a_setting_of_the_profile_is_the_profiles(cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain", "workload.users", *SIZING, "--growth", "1.5")

    assert "workload.users = 60 users" in result.stdout
    assert "profile.growth = 1.5  [profile]" in result.stdout


@pytest.mark.parametrize("sizing", [(), SIZING])
def test_an_unknown_name_exits_2_and_names_the_nearest(sizing: tuple[str, ...], cfscale: Callable[..., Result]) -> None:
    result = cfscale("explain", "memory.demnd", *sizing)

    assert (result.code, result.stdout) == (2, "")
    assert "did you mean 'memory.demand'?" in result.stderr
