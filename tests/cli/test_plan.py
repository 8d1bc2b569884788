"""``plan``, ``tiers``, ``schema`` and ``init`` as an operator sees them."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cfscale.cli.schema import NAMES
from tests.conftest import ROOT, Result

SIZING = ("--users", "40", "--agents", "400", "--tasks", "800")


def test_the_json_document_is_versioned_and_whole(cfscale: Callable[..., Result]) -> None:
    plan = json.loads(cfscale("plan", *SIZING, "-o", "json").stdout)

    assert plan["schema"] == "cfscale/plan/v1"
    assert plan["tier"] == "department"
    assert plan["demand"]["memory_bytes"] == 30 * 2**30
    names = "coordinator agents loadbalancer queue memory cache database pooler sentinel etcd"
    assert [service["name"] for service in plan["services"]] == names.split()


def test_yaml_and_json_say_the_same(cfscale: Callable[..., Result]) -> None:
    as_json = json.loads(cfscale("plan", *SIZING, "-o", "json").stdout)

    assert yaml.safe_load(cfscale("plan", *SIZING, "-o", "yaml").stdout) == as_json


def test_the_table_names_tier_services_and_what_drove_them(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", *SIZING)

    assert result.code == 0
    assert "department" in result.stdout
    assert "30 GiB memory" in result.stdout
    assert "agents" in result.stdout
    assert "--explain" in result.stderr


def test_explain_prints_rule_formula_and_source(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", *SIZING, "--explain")

    assert "memory.demand" in result.stdout
    assert "ceil(2 + 0.05 x 400 agents + 0.01 x 800 tasks) GiB = 30 GiB" in result.stdout
    assert "founding:96" in result.stdout


def test_flags_override_the_profile(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "cfscale.yaml").write_text("name: acme\nusers: 40\nagents: 400\ntasks: 800\n")

    plan = json.loads(cfscale("plan", "--agents", "90", "-o", "json").stdout)

    assert (plan["name"], plan["users"], plan["agents"]) == ("acme", 40, 90)


def test_plans_are_equal_whatever_the_process_and_its_locale(tmp_path: Path) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "cfscale", "plan", *SIZING, "-o", "json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale},
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout
        for seed, zone, locale in [
            ("0", "UTC", "C"),
            ("1", "Asia/Tokyo", "C.UTF-8"),
            ("7", "America/Lima", "tr_TR.UTF-8"),
        ]
    }

    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--agents -1", "--agents '-1': write a whole number from 0"),
        ("--agents nan", "--agents 'nan': write a whole number"),
        ("--agents 1000000000", "--agents '1000000000': write a whole number from 0 to 100000000"),
        (
            "--growth-rate -100%/month",
            "--growth-rate '-100%/month' is not a rate of growth: write a percentage above 0",
        ),
        ("--tier huge", "no tier is called 'huge': choose auto, single-user"),
        ("--what-if agnts=3", "nothing is called 'agnts': did you mean agents"),
        ("--coefficients unknown.json", "unknown.json: no coefficients: .*: write it with 'cfscale calibrate --out'"),
        ("--coefficients none.json", "none.json: .*: write it with 'cfscale calibrate --out'"),
        ("--prices prices.yaml --region nowhere", "prices.yaml: no region is called 'nowhere': it has example-east"),
    ],
)
def test_what_cannot_be_planned_is_one_line_with_place_and_remedy(
    words: str, said: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "unknown.json").write_text('{"coefficients": {"sizing.luck": 1}}')
    shutil.copy(ROOT / "examples" / "prices.yaml", tmp_path)

    result = cfscale("plan", *SIZING, *words.split())

    assert (result.code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert re.search(said, line)


def test_tiers_lists_four_and_details_one_with_sources(cfscale: Callable[..., Result]) -> None:
    overview, detail = cfscale("tiers"), cfscale("tiers", "enterprise")

    assert [line.split()[0] for line in overview.stdout.splitlines()[1:]] == [
        "single-user",
        "team",
        "department",
        "enterprise",
    ]
    assert "founding:" in detail.stdout
    assert json.loads(cfscale("tiers", "team", "-o", "json").stdout)["schema"] == "cfscale/tier/v1"


@pytest.mark.parametrize("name", ["profile", "plan", "decision", "probe", "lock"])
def test_schemas_are_json_schema(name: str, cfscale: Callable[..., Result]) -> None:
    schema = json.loads(cfscale("schema", name).stdout)

    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["$defs"]


def test_an_unknown_schema_names_those_there_are(cfscale: Callable[..., Result]) -> None:
    result = cfscale("schema", "plans")

    assert result.code == 2
    assert ", ".join(NAMES) in result.stderr


def test_init_writes_a_profile_that_plans(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    assert cfscale("init", *SIZING, "--name", "acme").code == 0
    assert "#" in (tmp_path / "cfscale.yaml").read_text()

    plan = json.loads(cfscale("plan", "-o", "json").stdout)

    assert (plan["name"], plan["agents"]) == ("acme", 400)


def test_init_never_overwrites_without_force(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "cfscale.yaml").write_text("mine")

    assert cfscale("init", *SIZING).code == 1
    assert (tmp_path / "cfscale.yaml").read_text() == "mine"
    assert cfscale("init", *SIZING, "--force").code == 0


def test_init_without_a_terminal_asks_nothing_and_names_what_is_missing(
    cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    result = cfscale("init", "--users", "3")

    assert result.code == 2
    assert "agents, tasks" in result.stderr
    assert not (tmp_path / "cfscale.yaml").exists()
