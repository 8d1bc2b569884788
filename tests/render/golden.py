"""Golden trees: what a tier renders to, file by file. ``make golden`` writes them anew."""

import os
from collections.abc import Mapping

from tests.conftest import ROOT


def assert_golden(tree: str, files: Mapping[str, str]) -> None:
    """The files are those of ``tests/golden/TREE``, no more and no fewer."""
    folder = ROOT / "tests" / "golden" / tree
    if os.environ.get("CFSCALE_UPDATE_GOLDEN"):
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    expected = {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}

    assert files == expected
