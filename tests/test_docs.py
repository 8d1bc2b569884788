"""Every command that the documentation and the help show is run; every key of the profile is described."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from cfscale.cli.main import COMMANDS
from tests.conftest import ROOT, Result
from tests.loads import daily
from tests.ports import free_port

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
COMMAND_LINE = re.compile(r"^ {4}((?:cfscale|make|pip) .+)$", re.MULTILINE)
EXCUSED = {"pip install .": "installs into the environment that runs the tests; .venv is set up by it"}
# watching ends by itself here, and what would stay in the foreground is left in the background
SHORTENED = {"--watch": ("--for", "1s")}
# what a line is given by another one
MADE_BY = {
    "plan.json": "cfscale plan acme.yaml --out plan.json",
    "coefficients.json": "cfscale calibrate --samples observations.csv --out coefficients.json",
    "--against deploy": "cfscale render --target compose --out deploy",
    "explain last": "cfscale scale --apply",
}
OF_THE_DEPLOYMENT = ("up", "probe", "scale", "status", "history", "pause", "resume")


def shown(page: Path) -> list[str]:
    """The command lines of a page, without their comments."""
    return [re.sub(r"\s+#.*", "", line).strip() for line in COMMAND_LINE.findall(page.read_text())]


PROFILES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if path.name != "prices.yaml")


def examples(command: str) -> list[str]:
    """The command lines of a command's help."""
    done = subprocess.run(
        [sys.executable, "-m", "cfscale", command, "--help"],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    text = done.stdout.split("Examples:")[1].split("Arguments:")[0].split("Options:")[0]
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))  # a long line is wrapped
    return [line for line in paragraphs if line.startswith("cfscale ")]


SHOWN = sorted({line for page in PAGES for line in shown(page)})
CFSCALE = sorted(
    {
        line
        for line in (*SHOWN, *(line for command in COMMANDS for line in examples(command)))
        if line.startswith("cfscale ")
    }
)
# run by the end-to-end test that has an engine in swarm mode
ON_SWARM = [line for line in CFSCALE if "--engine swarm" in line]
STOPS = [line for line in CFSCALE if line.split()[1] == "down" and line not in ON_SWARM]
RUNNING = [
    line
    for line in CFSCALE
    if (line.split()[1] in OF_THE_DEPLOYMENT or line == "cfscale explain last") and line not in ON_SWARM
]
STARTS_NOTHING = [line for line in CFSCALE if line not in (*RUNNING, *STOPS, *ON_SWARM)]


def test_nothing_is_shown_that_is_neither_run_nor_excused() -> None:
    others = {line for line in SHOWN if not line.startswith(("cfscale ", "make "))}

    assert others == set(EXCUSED)
    assert len(CFSCALE) > 2 * len(COMMANDS) - 2


def test_every_make_target_that_is_shown_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert {line.split()[1] for line in SHOWN if line.startswith("make ")} <= set(targets)


def workplace(folder: Path) -> dict[str, str]:
    """A directory with the demo under the names that the documentation uses, and the environment to run in."""
    shutil.copy(ROOT / "examples" / "demo" / "worker.py", folder)
    port = free_port()
    profile = (ROOT / "examples" / "demo" / "cfscale.yaml").read_text().replace("127.0.0.1:18080", f"127.0.0.1:{port}")
    (folder / "cfscale.yaml").write_text(profile)
    # the demo's bound would refuse every larger load that is asked about
    (folder / "acme.yaml").write_text(profile.replace("  services: {agents: {min: 1, max: 4}}\n", ""))
    for name in ("prices.yaml", "observations.csv"):
        shutil.copy(ROOT / "examples" / name, folder)
    (folder / "week.csv").write_text("\n".join(f"{value:.3f}" for value in daily(200)))
    shutil.copy(ROOT / "tests" / "scenarios" / "slow-start.yaml", folder / "scenario.yaml")
    (folder / "urls.txt").write_text(f"# the balancer\nhttp://127.0.0.1:{port}/health\n")
    return {**os.environ, "CFSCALE_STATE_DIR": str(folder / "state"), "NO_COLOR": "1", "COLUMNS": "100"}


def run(line: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command line as it is shown, bounded in time."""
    words = shlex.split(line.partition(" > ")[0])[1:]
    words += [word for flag, more in SHORTENED.items() if flag in words and "--for" not in words for word in more]
    words += ["--detach"] if words[0] == "up" and "--detach" not in words else []
    done = subprocess.run(
        [sys.executable, "-m", "cfscale", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    sys.stdout.write(f"$ {line}\n{done.stdout}{done.stderr}")
    return done


@pytest.mark.parametrize("line", STARTS_NOTHING)
def test_a_command_that_starts_nothing_works_as_shown(line: str, tmp_path: Path) -> None:
    env = workplace(tmp_path)
    shutil.copy(tmp_path / "acme.yaml", tmp_path / "cfscale.yaml")
    if line.split()[1] == "init" or "--users" in line:  # these begin where there is no profile yet
        (tmp_path / "cfscale.yaml").unlink()

    for word, first in MADE_BY.items():
        if word in line and f"--out {word}" not in line:
            assert run(first, tmp_path, env).returncode == 0

    done = run(line, tmp_path, env)

    # --check and --diff say no before anything was rendered
    assert done.returncode == (1 if {"--check", "--diff"} & set(line.split()) else 0), done.stderr


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("docs")
    env = workplace(folder)
    try:
        assert run("cfscale up --engine process --detach", folder, env).returncode == 0
        yield folder, env
    finally:
        assert run("cfscale down --engine process", folder, env).returncode == 0


@pytest.mark.process
@pytest.mark.parametrize("line", RUNNING)
def test_a_command_on_a_deployment_works_as_shown(line: str, deployment: tuple[Path, dict[str, str]]) -> None:
    for word, first in MADE_BY.items():
        if word in line:
            assert run(first, *deployment).returncode == 0
    done = run(line, *deployment)

    # an address that is shown may have nobody behind it here: then the answer is no
    assert done.returncode in ((0, 1) if "://" in line else (0,)), done.stderr


def test_no_example_would_leave_this_machine() -> None:
    hosts = {host for line in CFSCALE for host in re.findall(r"://([^/:\s]+)", line)}

    assert hosts <= {"127.0.0.1"}


@pytest.mark.process
@pytest.mark.parametrize("line", STOPS)
def test_a_deployment_stops_as_shown(line: str, tmp_path: Path) -> None:
    env = workplace(tmp_path)
    try:
        assert run("cfscale up --engine process --detach", tmp_path, env).returncode == 0
        done = run(line, tmp_path, env)
        asks = "--volumes" in line and "--yes" not in line

        assert done.returncode == (2 if asks else 0), done.stderr
        assert ("--yes" in done.stderr) == asks
    finally:
        run("cfscale down --engine process", tmp_path, env)


def keys(schema: dict[str, object]) -> set[str]:
    """Every property that a schema names."""
    definitions = [schema, *dict(schema.get("$defs", {})).values()]  # type: ignore[call-overload]
    return {name for part in definitions for name in part.get("properties", {})}


def test_every_key_of_the_profile_is_described(cfscale: Callable[..., Result]) -> None:
    page = (ROOT / "docs" / "profile.md").read_text()
    schema = json.loads(cfscale("schema", "profile").stdout)

    assert {key for key in keys(schema) if not re.search(rf"`(?:[a-zA-Z_]+\.)*{key}`", page)} == set()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_plans_and_renders(path: Path, cfscale: Callable[..., Result], tmp_path: Path) -> None:
    result = cfscale("render", str(path), "--target", "compose", "--out", "out")

    assert result.code == 0, result.stderr
    assert (
        yaml.safe_load((tmp_path / "out" / "compose.yaml").read_text())["name"]
        == yaml.safe_load(path.read_text())["name"]
    )


@pytest.mark.engine
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_compose_accepts_an_example(path: Path, cfscale: Callable[..., Result], tmp_path: Path) -> None:
    assert cfscale("render", str(path), "--target", "compose", "--out", "out").code == 0

    done = subprocess.run(
        ["docker", "compose", "--file", str(tmp_path / "out" / "compose.yaml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
