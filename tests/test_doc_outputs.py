"""What the documentation shows as a command's output is its output. CFSCALE_UPDATE_GOLDEN=1 writes it anew."""

import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result

# a command line, a blank line, and a block with what it prints
SHOWN = re.compile(r"^ {4}cfscale (?P<command>.+)\n\n```text\n(?P<output>(?:.*\n)*?)```$", re.MULTILINE)
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if SHOWN.search(page.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_what_its_commands_print(page: Path, cfscale: Callable[..., Result]) -> None:
    for name in ("prices.yaml", "observations.csv"):
        shutil.copy(ROOT / "examples" / name, name)

    def printed(match: re.Match[str]) -> str:
        result = cfscale(*shlex.split(match["command"]))
        assert result.code == 0, result.stderr
        return f"    cfscale {match['command']}\n\n```text\n{result.stdout}```"

    text = page.read_text()
    actual = SHOWN.sub(printed, text)
    if os.environ.get("CFSCALE_UPDATE_GOLDEN"):
        page.write_text(actual)

    assert page.read_text() == actual


def test_the_pages_with_outputs_are_found() -> None:
    assert {"planning.md", "scale.md"} <= {page.name for page in PAGES}
