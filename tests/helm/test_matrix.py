"""Every pair of options by both helms and all schemas, every branch of the templates, and what checkov says."""

import json
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import branches
from tests.helm.lab import HOME, MINORS, PLANS, TIERS, chart, helm, manifests, problems
from tests.helm.options import MORE, REFUSED, assigned, flags, rows

pytestmark = pytest.mark.matrix
SETS = [(row["tier"][0], flags(row)) for row in rows()] + [(tier, assigned(values)) for tier, values in MORE]
REASONS: dict[str, dict[str, str]] = yaml.safe_load((Path(__file__).parent / "checkov.yaml").read_text())
# as old a cluster as is supported, and one that answers and has no operator
CLUSTERS = [
    (tier, ["--kube-version", minor])
    for tier, minor in (("enterprise", "1.34.0"), ("department", "1.34.0"), ("team", "1.36.0"))
] + [(tier, ["--api-versions", "v1/Pod"]) for tier in ("single-user", "team")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {tier: chart(tmp_path_factory.mktemp(tier), PLANS[tier]) for tier in TIERS}


@pytest.mark.parametrize("number", range(len(SETS)))
def test_every_pair_of_options_gives_valid_objects_by_both_helms(number: int, folders: dict[str, Path]) -> None:
    tier, options = SETS[number]
    by_helm = {major: manifests(folders[tier], *options, major=major) for major in (3, 4)}

    assert by_helm[3] == by_helm[4]
    assert helm(4, "lint", "--strict", str(folders[tier]), *options).returncode == 0
    for minor in MINORS:
        assert problems(by_helm[4], minor) == []


def test_every_branch_of_the_templates_is_reached(folders: dict[str, Path], tmp_path: Path) -> None:
    lines: dict[str, int] = {}
    found: set[str] = set()
    files: dict[str, str] = {}
    for path in sorted((folders["team"] / "templates").rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folders["team"] / "templates"))
            files[name], own = branches.marked(name, path.read_text(), branches.GO)
            lines |= own

    def remove(mark: str) -> None:
        found.add(mark)
        name = mark.rpartition(":")[0]
        files[name] = branches.without(files[name], mark)
        for tier in TIERS:
            (tmp_path / tier / "templates" / name).write_text(files[name])

    for tier in TIERS:
        chart(tmp_path / tier, PLANS[tier])
        for name, text in files.items():
            (tmp_path / tier / "templates" / name).write_text(text)
    agents = yaml.safe_load((tmp_path / "team" / "values.yaml").read_text())["services"]["agents"]
    pools = {f"agents-{kind}": agents for kind in ("parallel", "expert", "gpu")}
    texts = [
        ("team", ["--set-json", f"services={json.dumps(pools)}"]),
        ("team", ["--set-json", 'extraObjects=["a: {{ .Release.Name }}"]']),
    ]
    refused = [(tier, assigned(values)) for tier, values, _ in REFUSED]
    for tier, options in [*SETS, *CLUSTERS, *texts, *refused]:
        branches.exhaust(partial(_error, tmp_path / tier, options), remove)

    assert branches.unreached(lines, found) == []
    assert len(found) == len(lines) > 200


def _error(folder: Path, options: list[str]) -> str:
    return helm(4, "template", "acme", str(folder), *options).stderr


@pytest.mark.parametrize(("tier", "values", "reason"), REFUSED)
def test_what_breaks_a_promise_is_refused(
    tier: str, values: Sequence[str], reason: str, folders: dict[str, Path]
) -> None:
    done = helm(4, "template", "acme", str(folders[tier]), *assigned(values))

    assert (done.returncode, reason in done.stderr) == (1, True)


def test_checkov_has_nothing_to_say_that_is_not_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    """Of any tier as it comes, each alone; and where options are set, nothing but what an explained option asks for."""
    found: set[str] = set()
    batches: dict[str, list[tuple[str, list[str]]]] = {tier: [(tier, [])] for tier in TIERS}
    for name, sets in {**batches, "options": SETS}.items():
        (tmp_path / name).mkdir()
        for number, (tier, options) in enumerate(sets):
            (tmp_path / name / f"{number}.yaml").write_text(yaml.safe_dump_all(manifests(folders[tier], *options)))
        report = _checkov(tmp_path / name)
        failed = [(one["check_id"], int(Path(one["file_path"]).stem)) for one in report["results"]["failed_checks"]]
        found.update(check for check, _ in failed)

        assert [check for check, number in failed if not _explained(check, sets[number][1])] == [], name
        # of the best public charts surveyed a tenth fails, unexplained
        assert len(failed) < report["summary"]["passed"] / 20 > 10 * len(sets), name
    assert REASONS.keys() == found  # a reason that nothing needs is none


def _checkov(folder: Path) -> dict[str, Any]:
    program = HOME / "checkov" / "bin" / "checkov"
    assert program.exists(), "no checkov: run tests/e2e/kubernetes.sh checkov"
    argv = [str(program), "--directory", str(folder), "--framework", "kubernetes", "--output", "json", "--quiet"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _explained(check: str, options: Sequence[str]) -> bool:
    entry = REASONS.get(check)
    return entry is not None and ("option" not in entry or entry["option"] in options)
