"""Every pair of options by both helms and all schemas, every branch of the templates, and what checkov says."""

import json
import subprocess
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.helm import branches
from tests.helm.lab import HOME, MINORS, PLANS, TIERS, chart, helm, manifests, problems
from tests.helm.options import flags, rows

pytestmark = pytest.mark.matrix
ROWS = list(rows())
REASONS = yaml.safe_load((Path(__file__).parent / "checkov.yaml").read_text())
# branches that no option reaches: they are for a cluster that answers
ONLY_WITH_A_CLUSTER = ("--api-versions", "v1/Pod")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {tier: chart(tmp_path_factory.mktemp(tier), PLANS[tier]) for tier in TIERS}


@pytest.mark.parametrize("number", range(len(ROWS)))
def test_every_pair_of_options_gives_valid_objects_by_both_helms(number: int, folders: dict[str, Path]) -> None:
    row = ROWS[number]
    folder, options = folders[row["tier"][0]], flags(row)
    by_helm = {major: manifests(folder, *options, major=major) for major in (3, 4)}

    assert by_helm[3] == by_helm[4]
    assert helm(4, "lint", "--strict", str(folder), *options).returncode == 0
    for minor in MINORS:
        assert problems(by_helm[4], minor) == []


def test_every_branch_of_the_templates_is_reached(folders: dict[str, Path], tmp_path: Path) -> None:
    lines: dict[str, int] = {}
    found: set[str] = set()
    files: dict[str, str] = {}
    for path in sorted((folders["team"] / "templates").rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folders["team"] / "templates"))
            files[name], own = branches.marked(name, path.read_text())
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
    sets = [(row["tier"][0], flags(row)) for row in ROWS]
    sets += [(tier, []) for tier in TIERS]
    sets += [
        ("enterprise", ["--kube-version", "1.34.0"]),
        ("department", ["--kube-version", "1.34.0"]),
        ("team", ["--kube-version", "1.36.0"]),
        ("team", ["--set", "exposure.ingress.enabled=true,sso.required=true"]),
        ("team", ["--set", "exposure.ingress.enabled=true,security.requireEncryption=true"]),
        (
            "team",
            [
                "--set",
                "services.loadbalancer.enabled=false,services.pooler.enabled=false,services.database.enabled=false",
            ],
        ),
        (
            "department",
            ["--set", "services.memory.enabled=false,services.cache.enabled=false,services.queue.enabled=false"],
        ),
        ("team", ["--set", "database.maxConnections=0,database.synchronous=0,plan.cells=2"]),
        ("department", ["--set", "services.memory.replicas=1"]),
        ("single-user", list(ONLY_WITH_A_CLUSTER)),
        ("team", list(ONLY_WITH_A_CLUSTER)),
        ("team", ["--set-json", 'extraObjects=["a: {{ .Release.Name }}"]']),
    ]
    pools = '{"agents-parallel":%s,"agents-expert":%s,"agents-gpu":%s}'
    agents = json.dumps(yaml.safe_load((tmp_path / "team" / "values.yaml").read_text())["services"]["agents"])
    sets.append(("team", ["--set-json", f"services={pools % (agents, agents, agents)}"]))
    for tier, options in sets:
        branches.exhaust(partial(_error, tmp_path / tier, options), remove)

    assert branches.unreached(lines, found) == []
    assert len(found) == len(lines) > 200


def _error(folder: Path, options: list[str]) -> str:
    return helm(4, "template", "acme", str(folder), *options).stderr


def test_checkov_has_nothing_to_say_that_is_not_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    checkov = HOME / "checkov" / "bin" / "checkov"
    assert checkov.exists(), "no checkov: run tests/e2e/kubernetes.sh checkov"
    for number, row in enumerate(ROWS[:8]):
        objects = manifests(folders[row["tier"][0]], *flags(row))
        (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump_all(objects))
    for tier in TIERS:
        (tmp_path / f"{tier}.yaml").write_text(yaml.safe_dump_all(manifests(folders[tier])))
    argv = [str(checkov), "--directory", str(tmp_path), "--framework", "kubernetes"]
    done = subprocess.run(
        [*argv, "--output", "json", "--quiet"], capture_output=True, text=True, timeout=300, check=False
    )
    report = json.loads(done.stdout)
    failed = {(one["check_id"], one["resource"]) for one in report["results"]["failed_checks"]}

    assert report["summary"]["passed"] > 2000
    assert [one for one in sorted(failed) if one[0] not in REASONS] == []
