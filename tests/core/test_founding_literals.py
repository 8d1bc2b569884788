"""Every number of the founding scalability guidelines is in the catalogue with its line, or excused with a reason."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

FILES = ("single-user", "team", "department", "enterprise", "rules", "services")
TIERS = FILES[:4]
CATALOGUE = {name: yaml.safe_load((ROOT / "tiers" / f"{name}.yaml").read_text()) for name in FILES}
TABLE = yaml.safe_load((ROOT / "tests" / "data" / "founding-literals.yaml").read_text())
DOCUMENT = Path(os.environ.get("CFSCALE_FOUNDING", ROOT.parent / "shared" / "reference" / "founding-guidelines.txt"))
LITERAL = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
CITED = re.compile(r"founding:(\d+(?:,\d+)*)")
AMOUNTS = {"value", "min", "max"}
LEAF_KEYS = {*AMOUNTS, "unit", "source", "note"}


def leaf_at(path: str) -> tuple[dict[str, object], object]:
    """The leaf that a path of the table leads to, and the value at its end."""
    *way, last = path.split(".")
    node = CATALOGUE[way[0]]
    for part in way[1:]:
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node, node[last]


def nodes(node: object, path: str) -> Iterator[tuple[str, object]]:
    """Every leaf and every bare value below a node, with its path: a leaf has an amount or a unit."""
    if isinstance(node, dict) and not node.keys() & {*AMOUNTS, "unit"}:
        for key, value in node.items():
            yield from nodes(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from nodes(value, f"{path}.{index}")
    else:
        yield path, node


def cited_lines(source: object) -> list[int]:
    """The lines in ``founding:96`` or ``founding:24,25``; none where the source is another."""
    return [int(line) for lines in CITED.findall(str(source)) for line in lines.split(",")]


ALL_NODES = [found for name in FILES for found in nodes(CATALOGUE[name], name)]
ALL_LEAVES = [(path, leaf) for path, leaf in ALL_NODES if isinstance(leaf, dict)]
each_leaf = pytest.mark.parametrize(("path", "leaf"), ALL_LEAVES, ids=[path for path, _ in ALL_LEAVES])


def test_the_table_holds_159_literals() -> None:
    assert len(TABLE) == 159


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry['line']}-{entry['literal']}")
def test_a_literal_is_in_the_catalogue_or_excused(entry: dict[str, object]) -> None:
    assert entry["meaning"]
    assert ("excused" in entry) != ("catalogue" in entry)
    if "excused" in entry:
        assert entry["excused"]
        return
    leaf, value = leaf_at(str(entry["catalogue"]))

    assert value == float(str(entry["literal"])) * int(str(entry.get("scale", 1)))
    assert entry["line"] in cited_lines(leaf["source"])


def test_no_value_of_the_catalogue_stands_for_two_literals() -> None:
    paths = Counter(entry["catalogue"] for entry in TABLE if "catalogue" in entry)

    assert [path for path, count in paths.items() if count > 1] == []


@each_leaf
def test_a_leaf_has_a_value_or_a_range_a_unit_and_a_source(path: str, leaf: dict[str, object]) -> None:
    assert leaf.keys() <= LEAF_KEYS
    assert ("value" in leaf) != ("min" in leaf)
    assert "max" not in leaf or "min" in leaf
    assert leaf["unit"]
    assert leaf["source"]


@each_leaf
def test_a_leaf_of_our_own_choice_says_why(path: str, leaf: dict[str, object]) -> None:
    assert leaf["source"] not in {"design", "assumption"} or leaf.get("note")


def test_no_number_stands_outside_a_leaf() -> None:
    numbers = [path for path, node in ALL_NODES if isinstance(node, int | float) and not isinstance(node, bool)]

    assert [path for path in numbers if not re.search(r"\.line$|\.lines\.\d+$", path)] == []


@pytest.mark.parametrize("name", TIERS)
def test_a_memory_conflict_states_what_rule_and_tier_say(name: str) -> None:
    tier, sizing = CATALOGUE[name], CATALOGUE["rules"]["sizing"]
    agents, tasks = tier["limits"]["agents"]["max"], tier["configuration"]["max_concurrent_tasks"]["value"]
    base, agent, task = (Fraction(str(sizing[f"{part}_memory"]["value"])) for part in ("base", "agent", "task"))
    asked, memory = ceil(base + agent * agents + task * tasks), tier["resources"]["memory"]
    (conflict,) = [known for known in CATALOGUE["rules"]["conflicts"] if known["id"] == f"memory-rule-vs-{name}"]

    assert conflict["values"] == [
        f"memory rule at {agents} agents and {tasks} tasks: {asked} GiB",
        f"tier: {memory['min']}-{memory['max']} GiB",
    ]


@pytest.fixture(scope="module")
def document() -> list[str]:
    if not DOCUMENT.is_file():
        pytest.skip("the founding document is not part of this repository: point CFSCALE_FOUNDING at it")
    return DOCUMENT.read_text().splitlines()


def test_the_table_is_what_the_document_says(document: list[str]) -> None:
    found = [(number, literal) for number, line in enumerate(document, start=1) for literal in LITERAL.findall(line)]

    assert [(entry["line"], entry["literal"]) for entry in TABLE] == found


@each_leaf
def test_a_cited_line_holds_the_words_and_numbers_of_its_leaf(
    path: str, leaf: dict[str, object], document: list[str]
) -> None:
    cited = cited_lines(leaf["source"])
    if not cited:
        return
    text = " ".join(document[line - 1] for line in cited)
    for key in sorted(AMOUNTS & leaf.keys()):
        assert _said(leaf[key], text, leaf["unit"]), f"{path}: {leaf[key]!r} is not in {text!r}"
    if "min" in leaf and "max" not in leaf:
        assert _said(True, text, leaf["unit"]), f"{path}: {text!r} is not open-ended"  # noqa: FBT003


@pytest.mark.parametrize("name", TIERS)
def test_a_tier_cites_the_line_of_its_title(name: str, document: list[str]) -> None:
    (line,) = cited_lines(CATALOGUE[name]["source"])

    assert CATALOGUE[name]["title"] in document[line - 1]


def _said(value: object, text: str, unit: object) -> bool:
    """Whether a line says a value: words as they are, a flag by its plus, K as thousand, percent as a ratio too."""
    if isinstance(value, bool):
        return "+" in text
    if isinstance(value, str):
        return all(word.lower() in text.lower() for word in value.split(", "))
    numbers = {float(found[0]) * (1000 if text[found.end() :][:1] == "K" else 1) for found in LITERAL.finditer(text)}
    return value in numbers | ({number * 100 for number in numbers} if unit == "percent" else set())
