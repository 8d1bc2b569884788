"""Saved plans as an operator meets them: written whole, taken in place of a profile, refused once anything has changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cfscale.cli.options import Sizing, load_plan, load_profile
from cfscale.cli.savedplan import Origin, open_saved, save_plan
from cfscale.errors import InputError, LockedError, RefusedError
from tests.conftest import Result

PROFILE = "name: acme\nusers: 40\nagents: 400\ntasks: 800\nservices: {agents: {env: {B: b, A: a}}}\n"
FLAGS = {"growth": "1.5"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme.yaml").write_text(PROFILE)
    return tmp_path


def save(path: str = "plan.json", profile: str | None = "acme.yaml", **flags: str) -> Path:
    sizing = Sizing(**{**FLAGS, **flags})
    given = load_profile(profile, sizing)
    save_plan(Path(path), given, load_plan(profile, sizing), Origin(profile, sizing.given()))
    return Path(path)


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def staleness(path: str = "plan.json") -> str:
    with pytest.raises(LockedError) as caught:
        load_plan(path, Sizing())
    return str(caught.value)


def test_a_saved_plan_is_the_plan_that_was_saved(folder: Path) -> None:
    save()

    assert load_plan("plan.json", Sizing()) == load_plan("acme.yaml", Sizing(growth="1.5"))
    assert load_profile("plan.json", Sizing()) == load_profile("acme.yaml", Sizing(growth="1.5"))


def test_the_same_plan_is_saved_as_the_same_bytes(folder: Path) -> None:
    first = save().read_bytes()

    assert save().read_bytes() == first
    assert first.endswith(b"}\n")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_rendering_a_saved_plan_gives_the_bytes_of_rendering_the_profile(
    folder: Path, cfscale: Callable[..., Result]
) -> None:
    save()

    assert cfscale("render", "acme.yaml", "--growth", "1.5", "--target", "compose", "--out", "a").code == 0
    assert cfscale("render", "plan.json", "--target", "compose", "--out", "b").code == 0

    trees = [
        {
            path.relative_to(root): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.parent.name != "secrets"  # chosen anew in every folder
        }
        for root in (folder / "a", folder / "b")
    ]
    assert trees[0] == trees[1]


def test_it_is_recognised_whatever_its_name(folder: Path) -> None:
    save("acme.plan")

    assert load_plan("acme.plan", Sizing()).agents == 600


def test_a_plan_of_flags_alone_has_no_profile_to_change(folder: Path) -> None:
    path = save(profile=None, users="1", agents="2", tasks="3")

    assert json.loads(path.read_text())["inputs"]["profile"] is None
    assert load_plan("plan.json", Sizing()).users == 2


def test_a_changed_profile_makes_it_stale_and_the_remedy_can_be_pasted(folder: Path) -> None:
    save()
    (folder / "acme.yaml").write_text(PROFILE.replace("400", "500"))

    assert staleness() == (
        "plan.json is stale: acme.yaml has changed since: "
        "run 'cfscale plan acme.yaml --growth 1.5 --out plan.json' again"
    )


def test_a_missing_profile_makes_it_stale(folder: Path) -> None:
    save()
    (folder / "acme.yaml").rename("moved.yaml")

    assert "acme.yaml cannot be read any more (No such file or directory)" in staleness()


def test_a_changed_file_of_coefficients_makes_it_stale(folder: Path) -> None:
    (folder / "fit.yaml").write_text("one")
    sizing = Sizing(growth="1.5")
    save_plan(
        Path("plan.json"),
        load_profile("acme.yaml", sizing),
        load_plan("acme.yaml", sizing),
        Origin("acme.yaml", sizing.given(), "fit.yaml"),
    )
    (folder / "fit.yaml").write_text("two")

    assert "fit.yaml has changed since: run 'cfscale plan acme.yaml --growth 1.5 --coefficients fit.yaml" in staleness()


def test_another_catalogue_makes_it_stale(folder: Path) -> None:
    def as_of_old(document: dict[str, object]) -> None:
        document["inputs"]["catalogue_sha256"] = "0" * 64  # type: ignore[index]
        document["plan"]["nodes"]["count"] = 99  # type: ignore[index]

    edit(save(), as_of_old)

    assert "the catalogue has changed since" in staleness()


def test_another_version_that_plans_otherwise_makes_it_stale(folder: Path) -> None:
    def as_of_old(document: dict[str, object]) -> None:
        document["version"] = "0.0.1"
        document["plan"]["nodes"]["count"] = 99  # type: ignore[index]

    edit(save(), as_of_old)

    assert "cfscale has changed from 0.0.1 to " in staleness()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["plan"]["services"][1].update(replicas=2),
        lambda document: document["plan"].update(more=1),
        lambda document: document["profile"].update(agents=1),
    ],
    ids=["a-count", "a-key", "the-profile"],
)
def test_a_document_edited_by_hand_is_refused(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    edit(save(), change)

    assert "it has been edited by hand" in staleness()


def test_a_folder_may_move_as_a_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "one").mkdir()
    (folder / "acme.yaml").rename(folder / "one" / "acme.yaml")
    save("one/plan.json", "one/acme.yaml")

    (folder / "one").rename(folder / "two")

    assert load_plan("two/plan.json", Sizing()).agents == 600
    assert json.loads((folder / "two/plan.json").read_text())["inputs"]["profile"]["path"] == "acme.yaml"


def test_a_profile_elsewhere_is_found_from_the_folder_of_the_plan(folder: Path) -> None:
    (folder / "out").mkdir()
    path = save("out/plan.json")

    assert json.loads(path.read_text())["inputs"]["profile"]["path"] == "../acme.yaml"
    assert load_plan("out/plan.json", Sizing()).agents == 600


def test_flags_beside_it_are_refused(folder: Path) -> None:
    save()

    for load in (load_plan, load_profile):
        with pytest.raises(InputError, match="is a saved plan, which --tier, --growth cannot change"):
            load("plan.json", Sizing(growth="2", tier="team"))


def test_the_profile_of_a_stale_plan_still_names_the_deployment(folder: Path) -> None:
    save()
    (folder / "acme.yaml").unlink()

    assert load_profile("plan.json", Sizing()).name == "acme"


def test_a_truncated_one_exits_two_with_its_name(folder: Path, cfscale: Callable[..., Result]) -> None:
    path = save()
    path.write_bytes(path.read_bytes()[:3000])

    result = cfscale("render", "plan.json", "--target", "compose", "--out", "a")

    assert (result.code, result.stdout) == (2, "")
    assert "plan.json: not a whole saved plan" in result.stderr


def test_a_stale_one_exits_four(folder: Path, cfscale: Callable[..., Result]) -> None:
    save()
    (folder / "acme.yaml").write_text(PROFILE.replace("400", "500"))

    result = cfscale("render", "plan.json", "--target", "compose", "--out", "a")

    assert (result.code, result.stdout) == (4, "")
    assert not (folder / "a").exists()


def test_a_huge_one_is_refused(folder: Path) -> None:
    path = save()
    path.write_bytes(path.read_bytes() + b" " * 2**20)

    with pytest.raises(InputError, match="more than 1048576 bytes"):
        load_plan("plan.json", Sizing())


def test_a_profile_from_a_pipe_is_read_once_and_whole(folder: Path) -> None:
    read, write = os.pipe()
    os.write(write, PROFILE.encode())
    os.close(write)

    assert load_plan(f"/dev/fd/{read}", Sizing()).agents == 400
    os.close(read)


def test_one_that_cannot_be_read_is_an_input_error(folder: Path) -> None:
    (folder / "plan.json").mkdir()

    with pytest.raises(InputError, match="Is a directory"):
        load_plan("plan.json", Sizing())
    with pytest.raises(InputError, match="No such file or directory"):
        open_saved("gone.json", {})


@pytest.mark.parametrize("text", ["", "name: acme\n", "{}", '{"schema":"cfscale/plan/v1"}'])
def test_no_other_file_is_overwritten(folder: Path, text: str) -> None:
    (folder / "plan.json").write_text(text)

    with pytest.raises(RefusedError, match="exists and is no saved plan"):
        save()

    assert (folder / "plan.json").read_text() == text


def test_a_symlink_to_nothing_is_not_written_through(folder: Path) -> None:
    (folder / "plan.json").symlink_to("elsewhere")

    with pytest.raises(RefusedError, match="exists and is no saved plan"):
        save()


def test_a_saved_plan_is_not_saved_again(folder: Path) -> None:
    save()

    with pytest.raises(InputError, match="a saved plan already"):
        save_plan(
            Path("b.json"),
            load_profile("plan.json", Sizing()),
            load_plan("plan.json", Sizing()),
            Origin("plan.json", {}),
        )


def test_the_profile_that_nobody_named_is_held_against_too(folder: Path) -> None:
    (folder / "acme.yaml").rename("cfscale.yaml")
    save(profile=None)
    (folder / "cfscale.yaml").write_text(PROFILE.replace("400", "500"))

    assert "cfscale.yaml has changed since: run 'cfscale plan cfscale.yaml --growth 1.5" in staleness()


def test_an_absolute_path_is_kept(folder: Path) -> None:
    path = save(profile=str(folder / "acme.yaml"))

    assert json.loads(path.read_text())["inputs"]["profile"]["path"] == str(folder / "acme.yaml")
    assert load_plan("plan.json", Sizing()).agents == 600


def test_a_profile_from_a_pipe_cannot_be_held_against(folder: Path) -> None:
    with pytest.raises(InputError, match="no regular file"):
        save_plan(
            Path("plan.json"),
            load_profile("acme.yaml", Sizing()),
            load_plan("acme.yaml", Sizing()),
            Origin("/dev/null", {}),
        )


def test_flags_that_would_change_the_coefficients_are_refused_as_well(folder: Path) -> None:
    save()

    with pytest.raises(InputError, match="is a saved plan, which --coefficients cannot change"):
        open_saved("plan.json", {"coefficients": "fit.yaml"})
