"""Every mistake an operator can make in a profile: exit 2, one line with the place, nothing on stdout, no traceback."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result

BAD = ROOT / "tests" / "badinput"
EXPECTED = {
    "absurd-agents.yaml": "3:1: agents: expected a whole number <= 100000000",
    "absurd-replicas.yaml": "4:31: scaling.services.agents.max",
    "alias-bomb.yaml": "expands to too many values",
    "arabic-digit.yaml": "1:1: users: expected a whole number",
    "bad-duration.yaml": "scaling.interval: '10' is not a duration",
    "bad-env-name.yaml": "a variable name",
    "bad-publish.yaml": "services.loadbalancer.publish|services.agents.publish",
    "bad-size.yaml": "'2GG' is not a size",
    "boolean-word.yaml": "1:1: users: expected a whole number",
    "duplicate-key.yaml": "2:1: duplicate key 'users'",
    "empty.yaml": "1:1: the file is empty",
    "huge-exponent.yaml": "1:1: users",
    "image-newline.yaml": "6:5: services.agents.image",
    "list-root.yaml": "must be a mapping",
    "min-above-max.yaml": "scaling.services.agents: min 5 is above max 2",
    "missing-agents.yaml": "lacks agents.*--agents N",
    "name-escape.yaml": "1:1: name: expected lower-case letters",
    "name-slash.yaml": "1:1: name",
    "name-upper.yaml": "1:1: name",
    "negative.yaml": "1:1: users: expected a whole number >= 0",
    "nul.yaml": "1:8: control character",
    "octal.yaml": "1:1: users: expected a whole number",
    "python-tag.yaml": "1:8: the tag .* is not allowed",
    "secret-in-env.yaml": "services.agents.env.ZAI_API_KEY looks like a secret",
    "sexagesimal.yaml": "1:1: users: expected a whole number",
    "tab.yaml": "2:1: not valid YAML",
    "two-documents.yaml": "another document",
    "unclosed.yaml": "not valid YAML",
    "underscore.yaml": "1:1: users: expected a whole number",
    "unknown-environment.yaml": "write development or staging or production",
    "unknown-key.yaml": "3:1: unknown key 'agnets': did you mean 'agents'",
    "unknown-nested-key.yaml": "6:12: unknown key 'imag': did you mean 'image'",
    "unknown-policy.yaml": "invalid enum value 'magic': write slo or resource or target",
    "utf-16.yaml": "not UTF-8",
}


def test_every_file_has_its_expectation() -> None:
    assert {path.name for path in BAD.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_mistake_is_one_line_that_names_the_place(name: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", str(BAD / name))

    assert result.code == 2
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1
    assert re.search(EXPECTED[name], errors[0])
    assert "canary" not in result.stderr


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "- " * 100_000, "{a: " * 50_000, "x: " + "[" * 300 + "]" * 300, "? " * 100_000]
)
def test_absurd_nesting_is_refused_before_the_parser_can_crash(
    text: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "deep.yaml").write_text(text)

    result = cfscale("plan", "deep.yaml")

    assert result.code == 2
    assert "nested more than 64 levels" in result.stderr


def test_a_file_past_the_size_cap_is_refused_unread(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("# " + "x" * 2_000_000)

    result = cfscale("plan", "big.yaml")

    assert result.code == 2
    assert "at most 1048576 are read" in result.stderr


def test_a_byte_order_mark_is_not_a_mistake(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfusers: 1\nagents: 1\ntasks: 1\n")

    assert cfscale("plan", "bom.yaml").code == 0


def test_words_that_other_readers_take_for_booleans_stay_text_with_a_hint(
    cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "no.yaml").write_text("name: no\nusers: 1\nagents: 1\ntasks: 1\n")

    result = cfscale("plan", "no.yaml", "-o", "json")

    assert result.code == 0
    assert '"name": "no"' in result.stdout
    assert 'no.yaml:1:7: no is read as text; quote it ("no")' in result.stderr


@pytest.mark.parametrize("value", ["-1", "1_000", "٣", "1.5", "", "many", "0x10", "1e400", "99999999999"])
def test_flags_obey_the_same_grammar_as_the_file(value: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", f"--users={value}", "--agents=1", "--tasks=1")

    assert result.code == 2
    assert result.stdout == ""
    assert "--users" in result.stderr


@pytest.mark.parametrize("value", ["0", "-1", "1,5", "1e3", "inf", "nan", "٣", "10000"])
def test_growth_is_a_plain_decimal(value: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", "--users=1", "--agents=1", "--tasks=1", f"--growth={value}")

    assert result.code == 2
    assert "is not a factor" in result.stderr


def test_a_missing_profile_says_how_to_get_one(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan", "nowhere.yaml")

    assert result.code == 2
    assert "nowhere.yaml" in result.stderr
    assert "cfscale init" in result.stderr


def test_nothing_at_all_names_all_that_is_missing(cfscale: Callable[..., Result]) -> None:
    result = cfscale("plan")

    assert result.code == 2
    assert "users, agents, tasks" in result.stderr


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ("{min: 5, max: 2}", "min 5 is above max 2: swap or change them"),
        ("{min: 0}", "min"),
        ("{min: -1}", "min"),
        ("{max: 1000000000}", "max"),
    ],
)
def test_fault_39_bounds_that_cannot_be_are_named(
    bounds: str, message: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    profile = tmp_path / "bounds.yaml"
    profile.write_text(f"users: 3\nagents: 20\ntasks: 40\nscaling:\n  services: {{agents: {bounds}}}\n")
    result = cfscale("scale", str(profile))

    assert (result.code, result.stdout) == (2, "")
    assert message in result.stderr
