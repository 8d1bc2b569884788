"""Each component's checker: what it takes passes, what it refuses is its words, and one that is not there is named."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cfscale.adapters.assets import load_templates
from cfscale.adapters.configcheck import Checked, run_checkers
from cfscale.adapters.files import ensure_secrets, write_tree
from cfscale.render import compose
from tests.render.sized import sized

IMAGES = {"haproxy": "haproxy:3.2", "promtool": "prom/prometheus:v2.53.3"}
Programs = Callable[..., None]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Makes these, and a shell, all the programs that there are: each a few lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(folder))

    def write(**bodies: str) -> None:
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)

    return write


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory with one file of each kind that something checks, or nothing can."""
    for name in ("compose.yaml", "config/haproxy.cfg", "config/alerts.yml", "config/valkey.conf"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "out"


def checked(out: Path, images: Mapping[str, str] | None = None) -> dict[str, Checked]:
    return {item.checker: item for item in run_checkers(out, images or {})}


def test_only_files_that_were_rendered_are_checked(out: Path, programs: Programs) -> None:
    assert list(checked(out)) == ["docker compose config", "haproxy -c", "promtool check rules", "valkey"]


def test_without_any_program_every_checker_is_named_as_missing(out: Path, programs: Programs) -> None:
    found = checked(out, IMAGES)

    assert {item.verdict for item in found.values()} == {"missing"}
    assert found["haproxy -c"].reason == "no haproxy here, and no image with it"
    assert found["valkey"].reason == "valkey has no checker: it reads config/valkey.conf when it starts"


def test_a_checker_that_is_content_has_passed(out: Path, programs: Programs) -> None:
    programs(docker="exit 0", haproxy="exit 0")
    found = checked(out)

    assert found["docker compose config"] == Checked("docker compose config", "passed")
    assert found["haproxy -c"] == Checked("haproxy -c", "passed")


def test_what_compose_refuses_is_its_first_line(out: Path, programs: Programs) -> None:
    programs(
        docker='case "$*" in *version*) exit 0;; esac\necho\necho "services.a is wrong" >&2\necho more >&2\nexit 15'
    )

    assert checked(out)["docker compose config"] == Checked("docker compose config", "refused", "services.a is wrong")


def test_a_checker_that_fails_without_a_word_is_refused_by_its_code(out: Path, programs: Programs) -> None:
    programs(docker='case "$*" in *version*) exit 0;; esac\nexit 15')

    assert checked(out)["docker compose config"].reason == "exit code 15"


def test_a_client_without_the_plugin_is_no_checker(out: Path, programs: Programs) -> None:
    programs(docker="exit 1")

    assert checked(out)["docker compose config"].verdict == "missing"


def test_a_program_of_this_machine_may_be_of_another_line_and_refuses_nothing(out: Path, programs: Programs) -> None:
    programs(haproxy="echo 'unknown keyword init-state' >&2\nexit 1", promtool="echo 'bad rule' >&2\nexit 1")
    found = checked(out)

    assert found["haproxy -c"].reason == "this haproxy does not know it: unknown keyword init-state"
    assert (found["promtool check rules"].verdict, found["haproxy -c"].verdict) == ("missing", "missing")
    assert "may be of another line" in found["promtool check rules"].reason


def test_the_image_s_own_program_comes_before_the_machine_s_and_has_no_network(
    out: Path, programs: Programs, tmp_path: Path
) -> None:
    programs(docker=f'echo "$*" >>{tmp_path}/said', haproxy="exit 1")

    assert checked(out, IMAGES)["haproxy -c"].verdict == "passed"
    (line,) = (line for line in (tmp_path / "said").read_text().splitlines() if "--entrypoint haproxy" in line)
    assert "--network none" in line
    assert f"source={out}/config,target=/etc/cfscale,readonly" in line
    assert line.endswith("haproxy:3.2 -c -f /etc/cfscale/haproxy.cfg")


def test_settings_of_other_projects_do_not_reach_compose(
    out: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_FILE", "/elsewhere.yaml")
    programs(docker='test -z "$COMPOSE_FILE"')

    assert checked(out)["docker compose config"].verdict == "passed"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is rendered for a team, with its secrets."""
    folder = tmp_path_factory.mktemp("team")
    write_tree(folder, compose.render(sized("team"), load_templates()), "{}\n", force=False)
    ensure_secrets(folder)
    return folder


@pytest.mark.engine
def test_the_components_of_the_images_take_what_is_rendered(team: Path) -> None:
    verdicts = {name: item.verdict for name, item in checked(team, IMAGES).items()}

    assert verdicts == {
        "docker compose config": "passed",
        "haproxy -c": "passed",
        "promtool check config": "passed",
        "promtool check rules": "passed",
        "valkey": "missing",
        "pgbouncer": "missing",
        "patroni": "missing",
    }


@pytest.mark.engine
@pytest.mark.parametrize(
    ("file", "checker"),
    [
        ("compose.yaml", "docker compose config"),
        ("config/haproxy.cfg", "haproxy -c"),
        ("config/prometheus.yml", "promtool check config"),
        ("config/alerts.yml", "promtool check rules"),
    ],
)
def test_the_components_of_the_images_refuse_a_line_that_is_wrong(team: Path, file: str, checker: str) -> None:
    text = (team / file).read_text()
    (team / file).write_text(text + "\nnonsense: [\n")
    try:
        found = checked(team, IMAGES)[checker]
    finally:
        (team / file).write_text(text)

    assert found.verdict == "refused"
    assert found.reason
    assert os.linesep not in found.reason
