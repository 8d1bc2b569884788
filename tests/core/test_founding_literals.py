"""Every number of the founding scalability guidelines is in the catalogue with its line, or excused with a reason."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

FILES = ("single-user", "team", "department", "enterprise", "rules")
CATALOGUE = {name: yaml.safe_load((ROOT / "tiers" / f"{name}.yaml").read_text()) for name in FILES}
TABLE = yaml.safe_load((ROOT / "tests" / "data" / "founding-literals.yaml").read_text())
DOCUMENT = Path(os.environ.get("CFSCALE_FOUNDING", ROOT.parent / "shared" / "reference" / "founding-guidelines.txt"))
LITERAL = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
LINES = re.compile(r"founding:(\d+)")


def leaf_at(path: str) -> tuple[dict[str, object], object]:
    """The leaf that a path of the table leads to, and the value at its end."""
    *way, last = path.split(".")
    node = CATALOGUE[way[0]]
    for part in way[1:]:
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node, node[last]


def leaves(node: object, path: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """Every leaf below a node: whatever has a unit."""
    if isinstance(node, dict):
        if "unit" in node:
            yield path, node
        else:
            for key, value in node.items():
                yield from leaves(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, f"{path}.{index}")


ALL_LEAVES = [(path, leaf) for name in FILES for path, leaf in leaves(CATALOGUE[name], name)]


def test_the_table_holds_159_literals() -> None:
    assert len(TABLE) == 159


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry['line']}-{entry['literal']}")
def test_a_literal_is_in_the_catalogue_or_excused(entry: dict[str, object]) -> None:
    assert entry["meaning"]
    if "excused" in entry:
        assert entry["excused"]
        return
    leaf, value = leaf_at(str(entry["catalogue"]))

    assert value == float(str(entry["literal"])) * int(str(entry.get("scale", 1)))
    assert str(entry["line"]) in LINES.findall(str(leaf["source"]))


@pytest.mark.parametrize(("path", "leaf"), ALL_LEAVES, ids=[path for path, _ in ALL_LEAVES])
def test_a_leaf_has_a_value_a_unit_and_a_source(path: str, leaf: dict[str, object]) -> None:
    assert "value" in leaf or "min" in leaf
    assert leaf["unit"]
    assert leaf["source"]


@pytest.fixture(scope="module")
def document() -> list[str]:
    if not DOCUMENT.is_file():
        pytest.skip("the founding document is not part of this repository: point CFSCALE_FOUNDING at it")
    return DOCUMENT.read_text().splitlines()


def test_the_table_is_what_the_document_says(document: list[str]) -> None:
    found = [(number, literal) for number, line in enumerate(document, start=1) for literal in LITERAL.findall(line)]

    assert [(entry["line"], entry["literal"]) for entry in TABLE] == found


@pytest.mark.parametrize(("path", "leaf"), ALL_LEAVES, ids=[path for path, _ in ALL_LEAVES])
def test_a_cited_line_holds_the_words_and_numbers_of_its_leaf(
    path: str, leaf: dict[str, object], document: list[str]
) -> None:
    cited = LINES.findall(str(leaf["source"]))
    if not cited or leaf.get("note"):
        return
    text = " ".join(document[int(number) - 1] for number in cited)
    for value in (leaf[key] for key in ("value", "min", "max") if key in leaf):
        assert _said(value, text), f"{path}: {value!r} is not in {text!r}"


def _said(value: object, text: str) -> bool:
    if isinstance(value, str):
        return value.lower() in text.lower()
    numbers = {float(literal) for literal in LITERAL.findall(text)}
    return isinstance(value, int | float) and bool(numbers & {float(value), value / 1000})
