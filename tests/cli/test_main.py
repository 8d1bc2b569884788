"""The command line as a whole: exit codes, streams, global flags, closed pipes, defects."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer

from cfscale import __version__
from cfscale.adapters.assets import compile_catalogue
from cfscale.cli import console
from tests.conftest import Result

SIZING = ("--users", "40", "--agents", "400", "--tasks", "800")


def spawn(*argv: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cfscale", *argv],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_answered_before_typer_is_imported(flag: str, tmp_path: Path) -> None:
    code = f"import sys; sys.argv[1:] = ['{flag}']; from cfscale.__main__ import main; main(); sys.stderr.write(str('typer' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == f"cfscale {__version__}\n"
    assert done.stderr == "False"


LISTING = """
import pathlib, sys
from cfscale.adapters import assets
from cfscale.cli.main import run
assets._COMPILED = pathlib.Path(sys.argv[1])
code = run(sys.argv[2:])
sys.stderr.write("\\n" + " ".join(sys.modules))
sys.exit(code)
"""
HEAVY = {"docker", "httpx", "rich", "jinja2", "yaml", "psutil", "asyncio", "requests"}


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (("plan", *SIZING, "-o", "json"), set()),
        (("plan", *SIZING), set()),
        (("tiers",), set()),
        (("render", *SIZING, "--target", "compose", "--out", "out"), {"jinja2", "yaml", "asyncio"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_loads_only_what_it_needs(argv: tuple[str, ...], allowed: set[str], tmp_path: Path) -> None:
    # the catalogue as a wheel carries it: a checkout whose sources were edited would have to parse them
    catalogue = tmp_path / "catalogue.json"
    catalogue.write_bytes(compile_catalogue())
    done = subprocess.run(
        [sys.executable, "-c", LISTING, str(catalogue), *argv],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(done.stderr.splitlines()[-1].split())

    assert loaded & HEAVY <= allowed


def test_an_unknown_command_names_the_nearest(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plam")

    assert (result.code, result.stdout) == (2, "")
    assert "plan" in result.stderr


@pytest.mark.parametrize(
    "argv",
    [("plan", "--usres", "3"), ("plan", "a.yaml", "b.yaml"), ("render", *SIZING), ("plan", *SIZING, "-o", "xml")],
)
def test_a_wrong_call_is_one_line_and_exit_two(argv: tuple[str, ...], cfscale: Callable[..., Result]) -> None:
    result = cfscale(*argv)

    assert (result.code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "--help" in result.stderr


@pytest.mark.parametrize("target", ["nomad", "terraform"])
def test_a_target_that_is_not_built_is_a_usage_error(target: str, cfscale: Callable[..., Result]) -> None:
    assert cfscale("render", *SIZING, "--target", target, "--out", "x").code == 2


@pytest.mark.parametrize("name", ["lint", "verify"])
def test_a_command_that_is_not_built_is_not_registered(name: str, cfscale: Callable[..., Result]) -> None:
    assert cfscale(name).code == 2


@pytest.mark.parametrize(
    "argv",
    [("--help",), ("plan", "--help"), ("render", "-h"), ("scale", "--help"), ("probe", "--help"), ("up", "--help")],
)
def test_help_has_examples_and_goes_to_stdout(argv: tuple[str, ...], cfscale: Callable[..., Result]) -> None:
    result = cfscale(*argv)

    assert result.code == 0
    assert "cfscale" in result.stdout
    assert "Examples:" in result.stdout or "A first look:" in result.stdout


def test_global_flags_are_taken_wherever_they_stand(cfscale: Callable[..., Result]) -> None:
    assert cfscale("plan", *SIZING, "--quiet").stderr == cfscale("-q", "plan", *SIZING).stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m cfscale plan {' '.join(SIZING)} --explain | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"COLUMNS": "20"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
        {"COLUMNS": "0", "LINES": "0"},
    ],
)
def test_output_is_whole_whatever_the_terminal(env: dict[str, str], tmp_path: Path) -> None:
    done = spawn("plan", *SIZING, "--explain", cwd=tmp_path, **env)

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "..." not in done.stdout
    assert "ceil(2 + 0.05 x 400 agents" in done.stdout


def test_no_home_directory_is_needed_to_plan(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cfscale", "plan", *SIZING],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_a_defect_exits_seventy_with_a_private_report(
    monkeypatch: pytest.MonkeyPatch, cfscale: Callable[..., Result]
) -> None:
    import cfscale.cli.tiers as module

    def broken(name: Annotated[str, typer.Argument()]) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(module, "tiers", broken)
    result = cfscale("tiers", "http://user:hunter2@host/")
    report = Path(result.stderr.split("the report is in ")[1].split(",")[0])

    assert (result.code, result.stdout) == (70, "")
    assert len(result.stderr.splitlines()) == 1
    assert report.stat().st_mode & 0o777 == 0o600
    assert "boom" in report.read_text()
    assert "hunter2" not in report.read_text()
    report.unlink()


def test_text_from_outside_cannot_steer_the_terminal_and_is_no_markup() -> None:
    table = console.table(("name",), [("[red]x[/red]",), ("err [/]",), ("\x1b]0;owned\x07\x1b[31mred",)])

    assert "[red]x[/red]" in table
    assert "err [/]" in table
    assert "\x1b]" not in table
    assert "\x07" not in table


def test_without_a_command_the_help_is_shown_as_a_mistake(cfscale: Callable[..., Result]) -> None:
    result = cfscale()

    assert (result.code, result.stdout) == (2, "")
    assert "A first look:" in result.stderr


def test_debug_shows_where_an_error_comes_from_before_it_says_so(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", "absent.yaml", "--debug")

    assert result.code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in cfscale("plan", "absent.yaml").stderr
