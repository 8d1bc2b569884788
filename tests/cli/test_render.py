import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result

RENDER = ("render", "--users", "3", "--agents", "20", "--tasks", "40", "--target", "compose", "--out", "out")
Cfscale = Callable[..., Result]


@pytest.fixture
def out(cfscale: Cfscale, tmp_path: Path) -> Path:
    """A directory with rendered manifests."""
    assert cfscale(*RENDER).code == 0
    return tmp_path / "out"


def test_every_file_that_was_written_is_named_on_stderr(cfscale: Cfscale, tmp_path: Path) -> None:
    result = cfscale(*RENDER)

    assert (result.code, result.stdout) == (0, "")
    for name in ("compose.yaml", "config/cache.conf", "config/valkey.conf", "cfscale.lock.json"):
        assert f"wrote out/{name}" in result.stderr
        assert (tmp_path / "out" / name).is_file()


def test_secrets_are_made_once_and_are_no_part_of_the_lock(cfscale: Cfscale, out: Path) -> None:
    password = (out / "secrets" / "queue_password").read_bytes()

    assert cfscale(*RENDER, "--force").code == 0
    assert (out / "secrets" / "queue_password").read_bytes() == password
    assert "secrets/" not in json.dumps(json.loads((out / "cfscale.lock.json").read_text()))


def test_a_check_without_drift_is_quiet_and_exits_zero(cfscale: Cfscale, out: Path) -> None:
    for flag, message in (("--check", "no drift"), ("--diff", "no difference")):
        result = cfscale(*RENDER, flag)

        assert (result.code, result.stdout) == (0, "")
        assert f"out: {message}" in result.stderr


def test_a_check_names_each_file_that_drifted(cfscale: Cfscale, out: Path) -> None:
    with (out / "compose.yaml").open("a") as file:
        file.write("# mine\n")
    (out / "config" / "valkey.conf").unlink()
    result = cfscale(*RENDER, "--check")

    assert result.code == 1
    assert sorted(line.split()[-1] for line in result.stdout.splitlines()) == ["compose.yaml", "config/valkey.conf"]


def test_a_diff_shows_what_rendering_would_change_and_changes_nothing(cfscale: Cfscale, out: Path) -> None:
    text = (out / "compose.yaml").read_text()
    (out / "compose.yaml").write_text(text + "# mine\n")
    result = cfscale(*RENDER, "--diff")

    assert result.code == 1
    assert "-# mine" in result.stdout
    assert (out / "compose.yaml").read_text() == text + "# mine\n"


def test_an_edited_file_is_kept_unless_forced(cfscale: Cfscale, out: Path) -> None:
    text = (out / "compose.yaml").read_text()
    (out / "compose.yaml").write_text(text + "# mine\n")

    assert cfscale(*RENDER).code == 1
    assert (out / "compose.yaml").read_text().endswith("# mine\n")
    assert cfscale(*RENDER, "--force").code == 0
    assert (out / "compose.yaml").read_text() == text


SWARM = tuple("swarm" if word == "compose" else word for word in RENDER)


def test_a_stack_is_written_with_the_files_that_docker_must_find(cfscale: Cfscale, tmp_path: Path) -> None:
    result = cfscale(*SWARM)
    secrets = tmp_path / "out" / "secrets"

    assert (result.code, result.stdout) == (0, "")
    assert (tmp_path / "out" / "stack.yaml").is_file()
    assert ((secrets / "agents.env").read_bytes(), (secrets / "agents.env").stat().st_mode & 0o777) == (b"", 0o600)
    assert cfscale(*SWARM, "--check").code == 0


def test_a_variable_of_the_operator_is_kept_when_a_stack_is_rendered_again(cfscale: Cfscale, tmp_path: Path) -> None:
    assert cfscale(*SWARM).code == 0
    own = tmp_path / "out" / "secrets" / "agents.env"
    own.write_text("KEY=mine\n")

    assert cfscale(*SWARM, "--force").code == 0
    assert own.read_text() == "KEY=mine\n"


def test_what_a_swarm_cannot_carry_and_what_is_left_to_do_is_listed(cfscale: Cfscale) -> None:
    lines = cfscale(*SWARM).stderr.splitlines()

    assert any(line.startswith("not on swarm: ") and "security_opt" in line for line in lines)
    assert any(
        line.startswith("to do: docker build --tag cfscale/agents:") and "&& docker push" in line for line in lines
    )
    assert any("docker node update --label-add cfscale.cfscale.queue=here NODE" in line for line in lines)


def test_a_name_that_leaves_swarm_no_room_is_refused(cfscale: Cfscale, tmp_path: Path) -> None:
    (tmp_path / "cfscale.yaml").write_text(f"name: {'a' * 60}\nusers: 3\nagents: 20\ntasks: 40\n")
    result = cfscale("render", "--target", "swarm", "--out", "out")

    assert (result.code, result.stdout) == (2, "")
    assert "Swarm takes at most" in result.stderr
    assert not (tmp_path / "out").exists()
