"""Linters of others read what every tier renders; what they find is mended, or explained in ``linters.yaml``."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cfscale.adapters.assets import load_templates
from cfscale.adapters.files import write_tree
from cfscale.render import compose
from tests.helm.lab import CACHE
from tests.render.sized import TIERS, altered, sized

BIN = Path(sys.executable).parent
EXPLAINED: dict[str, dict[str, str]] = yaml.safe_load((Path(__file__).parent / "linters.yaml").read_text())


DCLINT = CACHE / "dclint" / "node_modules" / ".bin" / "dclint"


def findings(folder: Path) -> list[dict[str, Any]]:
    argv = [str(BIN / "compose-lint"), "check", "--format", "json", str(folder / "compose.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: findings of weight
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def dclint(folder: Path) -> list[dict[str, Any]]:
    """What dclint finds; skips without it, and fails in CI."""
    if not DCLINT.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no dclint: npm install --prefix ~/.cache/cfscale-ci/dclint dclint"
        )
    found = folder / "dclint.json"
    argv = [str(DCLINT), "--formatter", "json", "--output-file", str(found), str(folder / "compose.yaml")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [finding for file in json.loads(found.read_text()) for finding in file["messages"]]


def explained(finding: dict[str, Any]) -> bool:
    """Whether the reason that is given covers the service that it was found in."""
    entry = EXPLAINED.get(finding["rule_id"])
    return entry is not None and (entry["services"] == "all" or finding["service"].startswith(entry["services"]))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each tier writes, images included."""
    folders = {tier: tmp_path_factory.mktemp(tier) for tier in TIERS}
    for tier, folder in folders.items():
        write_tree(folder, compose.render(sized(tier), load_templates()), "{}\n", force=False)
    return folders


@pytest.mark.parametrize("tier", TIERS)
def test_compose_lint_finds_nothing_unexplained(tier: str, rendered: dict[str, Path]) -> None:
    found = findings(rendered[tier])

    assert [f"{one['rule_id']} {one['service']}: {one['message']}" for one in found if not explained(one)] == []


@pytest.mark.parametrize("tier", TIERS)
def test_dclint_finds_nothing_unexplained(tier: str, rendered: dict[str, Path]) -> None:
    found = dclint(rendered[tier])

    assert [
        f"{one['rule']} line {one['line']}: {one['message']}" for one in found if one["rule"] not in EXPLAINED
    ] == []


def test_every_explanation_is_needed_and_says_why(rendered: dict[str, Path]) -> None:
    folder = rendered["enterprise"]
    found = {one["rule_id"] for one in findings(folder)} | {one["rule"] for one in dclint(folder)}

    assert found == EXPLAINED.keys()
    assert all(entry["reason"].strip() for entry in EXPLAINED.values())


def test_what_is_explained_of_tags_is_gone_where_the_image_has_a_digest(tmp_path: Path) -> None:
    plan = altered(sized("team"), "loadbalancer", image="haproxy:3.2@sha256:" + "0" * 64)
    write_tree(tmp_path, compose.render(plan, load_templates()), "{}\n", force=False)

    unpinned = {one["service"] for one in findings(tmp_path) if one["rule_id"] == "CL-0019"}

    assert "loadbalancer" not in unpinned
    assert "pooler" in unpinned


@pytest.mark.parametrize("image", ["coordinator", "agents", "database"])
def test_hadolint_finds_nothing(image: str, rendered: dict[str, Path]) -> None:
    dockerfile = rendered["enterprise"] / "images" / image / "Dockerfile"
    done = subprocess.run([BIN / "hadolint", dockerfile], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_linters_see_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {web: {image: nginx, privileged: true}}\n")
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\n")
    argv = [BIN / "hadolint", tmp_path / "Dockerfile"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    assert not all(explained(one) for one in findings(tmp_path))
    assert any(one["rule"] not in EXPLAINED for one in dclint(tmp_path))
    assert "DL3006" in done.stdout
