"""Quoting: the only way a value of the plan gets into a rendered file.

Every function returns ``Emitted``; the engine refuses to print anything else, so a template cannot forget one. What a
file format cannot carry is refused as InputError, never altered. ``parse(yaml(value)) == value`` holds for every text
that is accepted, and ``$`` is doubled because Compose interpolates.
"""

import re
from collections.abc import Sequence

from cfscale.errors import InputError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_PLAIN = re.compile(r"[ -~]")
_UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "$$"}


class Emitted(str):
    """Text that has been quoted for the file it goes to."""

    __slots__ = ()


def yaml(value: str | int | Sequence[str]) -> Emitted:
    """A YAML scalar, or a flow sequence of texts; texts are always double-quoted and plain ASCII."""
    if isinstance(value, str):
        return Emitted('"' + "".join(map(_escaped, value)) + '"')
    if isinstance(value, int):
        return Emitted(_number(value))
    return Emitted("[" + ", ".join(yaml(item) for item in value) + "]")


def text(value: str) -> Emitted:
    """A double-quoted YAML text for readers that do not interpolate, such as Helm: ``$`` stays as it is."""
    return Emitted('"' + "".join(character if character == "$" else _escaped(character) for character in value) + '"')


def _number(value: int) -> str:
    if isinstance(value, bool):
        raise InputError(f"{value} is neither a text nor a whole number")
    return str(value)


def _escaped(character: str) -> str:
    if _UNWRITABLE.fullmatch(character):
        raise InputError(f"{_place(character)} cannot be written to a file: remove it")
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if _PLAIN.fullmatch(character) else f"\\U{ord(character):08x}"


def cfg(value: str | int) -> Emitted:
    """One word of an HAProxy or Valkey configuration: a whole number as it is, a text in single quotes."""
    if isinstance(value, int):
        return Emitted(_number(value))
    for character in value:
        if not _PLAIN.fullmatch(character) or character in "'\"\\":
            raise InputError(f"{value!a}: {_place(character)} cannot stand in a proxy configuration: remove it")
    return Emitted(f"'{value}'")


def word(value: str) -> Emitted:
    """A bare name: ASCII letters, digits, dots, hyphens and underscores."""
    if not _WORD.fullmatch(value):
        raise InputError(f"{value!a} is not a name: use letters, digits, '.', '-' and '_'")
    return Emitted(value)


def raw(value: str) -> Emitted:
    """Text of a page that people read, as it is; no program reads that file."""
    if _UNWRITABLE.search(value):
        raise InputError(f"{value!a} cannot be written to a file")
    return Emitted(" ".join(value.split("\n")))


def _place(character: str) -> str:
    return f"the character U+{ord(character):04X}"
