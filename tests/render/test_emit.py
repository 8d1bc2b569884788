import shlex

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cfscale.errors import InputError
from cfscale.render import emit

NASTY = (
    "no", "on", "y", "n", "Y", "off", "true", "null", "~", "012", "0o17", "1:30", "1e3", "08", ".5", "1_000", "0x1f",
    "", " ", " x ", "*a", "!x", "&a", "%TAG", "@x", "`x`", "- x", "? x", ": x", "# x", "a #b", "a: b", "{{7*7}}", "{% x %}",
    "{# x #}", "[x]", "{x: y}", "'", '"', "\\", "\\n", "\n", "a\nb", "\r\n", "\t", "pa$word", "$$", "${HOME}", "\x1b[31m",
    "\x7f", "\x85", "\u2028", "\ufeff", "\u202e", "\uffff", "é", "\U0001f600", "nginx\n    privileged: true", "---", "...",
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
READERS = [pytest.param(yaml.SafeLoader, id="python"), pytest.param(yaml.CSafeLoader, id="libyaml")]


def read_back(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> object:
    """What Compose makes of a value: YAML, then ``$$`` to ``$``."""
    value = yaml.load(f"key: {text}\n", Loader=loader)["key"]
    return value.replace("$$", "$") if isinstance(value, str) else value


@pytest.mark.parametrize("loader", READERS)
@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_a_nasty_value_stays_that_literal_text(value: str, loader: type[yaml.SafeLoader]) -> None:
    assert read_back(emit.yaml(value), loader) == value


@given(TEXTS)
def test_every_text_is_read_back_as_it_was(value: str) -> None:
    assert read_back(emit.yaml(value)) == value


@given(st.lists(TEXTS, max_size=4))
def test_a_list_of_texts_is_read_back_as_it_was(values: list[str]) -> None:
    read = yaml.safe_load(emit.yaml(values))

    assert [item.replace("$$", "$") for item in read] == values


@given(st.integers())
def test_a_whole_number_stays_a_number(value: int) -> None:
    assert yaml.safe_load(emit.yaml(value)) == value


@given(TEXTS)
def test_yaml_is_plain_ascii_on_one_line(value: str) -> None:
    text = emit.yaml(value)

    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("value", ["a\x00b", "\ud800"], ids=ascii)
def test_what_yaml_cannot_carry_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(InputError, match=r"U\+[0-9A-F]{4} cannot be written"):
        emit.yaml(value)


def test_a_boolean_is_refused() -> None:
    with pytest.raises(InputError, match="neither a text nor a whole number"):
        emit.yaml(bool(1))


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="'\"\\"), min_size=1))
def test_a_configuration_word_is_one_literal_word(value: str) -> None:
    assert shlex.split(f"keyword {emit.cfg(value)}", comments=True) == ["keyword", value]


@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "it's", 'a"b', "a\\b", "é", "\x1b[0m", "a\tb"], ids=ascii)
def test_what_a_configuration_cannot_carry_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="cannot stand in a proxy configuration"):
        emit.cfg(value)


@pytest.mark.parametrize("value", ["", "a b", "-x", "a\n", "a)b", "é", "a;b"], ids=ascii)
def test_what_is_no_name_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        emit.word(value)
