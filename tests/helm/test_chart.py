"""The chart as helm sees it: linted, rendered for every tier, and valid by the schemas of four versions."""

from pathlib import Path

import pytest

import cfscale
from tests.helm.lab import MINORS, PLANS, TIERS, chart, helm, manifests, problems
from tests.render.golden import assert_golden

pytestmark = pytest.mark.helm


@pytest.fixture(scope="session", params=TIERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of a tier."""
    return chart(tmp_path_factory.mktemp(request.param), PLANS[request.param])


# of the largest tier what the smallest has not; of that everything
GOLDEN = {
    "single-user": (),
    "enterprise": ("autoscaling", "configs", "database", "disruption", "memory-cluster"),
}


@pytest.mark.parametrize("tier", GOLDEN)
def test_a_tier_gives_the_objects_that_it_gave(tier: str, tmp_path: Path) -> None:
    """As helm writes them, a file for each template."""
    options = ("--namespace", "agents", "--kube-version", "1.36.0", "--set=database.backup.destinationPath=s3://acme")
    done = helm(4, "template", "acme", str(chart(tmp_path, PLANS[tier])), *options)
    files: dict[str, str] = {}
    for document in done.stdout.replace(cfscale.__version__, "VERSION").split("---\n")[1:]:
        head, _, text = document.partition("\n")
        name = head.removeprefix("# Source: cfscale/templates/")
        files[name] = files.get(name, "") + f"---\n{text.rstrip()}\n"
    kept = {name: text for name, text in files.items() if not GOLDEN[tier] or Path(name).stem in GOLDEN[tier]}

    assert_golden(f"helm/{tier}/manifests", kept)


@pytest.mark.parametrize("major", [3, 4])
def test_helm_has_nothing_to_say_against_it(major: int, folder: Path) -> None:
    done = helm(major, "lint", "--strict", str(folder))

    assert done.returncode == 0, done.stdout
    assert "[INFO]" not in done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("minor", MINORS)
def test_every_object_is_valid_and_has_no_unknown_field(minor: str, folder: Path) -> None:
    assert problems(manifests(folder, minor=minor), minor) == []


def test_both_helms_render_the_same_objects(folder: Path) -> None:
    assert manifests(folder, major=3) == manifests(folder, major=4)


@pytest.mark.parametrize("tier", TIERS)
def test_the_values_of_a_tier_laid_over_any_chart_give_that_tier(tier: str, folder: Path, tmp_path: Path) -> None:
    own = chart(tmp_path, PLANS[tier])
    overlaid = manifests(folder, "--values", str(folder / f"values-{tier}.yaml"))
    version = {item["metadata"]["labels"]["helm.sh/chart"] for item in overlaid if "labels" in item["metadata"]}

    assert overlaid == manifests(own)
    assert len(version) == 1
