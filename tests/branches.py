"""Which branches of templates are reached: a copy of the templates has a mark in each, and what renders says which it met.

A branch is what stands behind ``if``, ``else``, ``with`` and a loop, and the empty one of an ``if`` or ``with`` that has no
``else``. A mark of Jinja reports itself and goes on. One of Go's templates can only fail: a run of helm finds one, which is
then taken away, until a run finds none.
"""

import re
from collections.abc import Callable, Mapping

from msgspec import Struct

_WORDS = {"elif": ("else", "if"), "endif": ("end", ""), "endfor": ("end", "")}
_REACHED = re.compile(r"cfscale-mark:([^:]+:\d+)")


class Language(Struct, frozen=True):
    """How a language of templates writes an action, an ``else``, and what marks a branch."""

    action: re.Pattern[str]
    otherwise: str
    mark: str


GO = Language(
    re.compile(r"\{\{-?\s*(if|with|range|else|end|define)\b((?:\"[^\"]*\"|[^\"}]|\}(?!\}))*?)-?\}\}"),
    "{{ else }}",
    '{{ fail "cfscale-mark:NUMBER" }}',
)
JINJA = Language(
    re.compile(r"\{%-?\s*(if|for|elif|else|endif|endfor)\b(.*?)-?%\}"),
    "{% else %}",
    '{% set _ = reached("NUMBER") %}',
)


def marked(name: str, text: str, language: Language) -> tuple[str, dict[str, int]]:
    """The template with a mark in each branch, and the line of each mark."""
    parts: list[str] = []
    lines: dict[str, int] = {}
    opened: list[tuple[str, bool]] = []  # what stands open, and whether it has an else
    position = 0

    def mark(at: int) -> str:
        number = f"{name}:{len(lines)}"
        lines[number] = text.count("\n", 0, at) + 1
        return language.mark.replace("NUMBER", number)

    for found in language.action.finditer(text):
        word, rest = _WORDS.get(found[1], (found[1], found[2].strip()))
        parts.append(text[position : found.start()])
        position = found.end()
        if word == "end":
            kind, complete = opened.pop()
            empty = kind in ("if", "with") and not complete
            parts.append((language.otherwise + mark(found.start()) if empty else "") + found[0])
        elif word == "else":
            # `else if` opens no block of its own
            kind, complete = opened.pop()
            opened.append((kind, complete or not rest.startswith(("if", "with"))))
            parts.append(found[0] + mark(found.start()))
        else:
            opened.append((word, False))
            parts.append(found[0] + ("" if word == "define" else mark(found.start())))
    return "".join([*parts, text[position:]]), lines


def failed(error: str) -> str | None:
    """The mark of Go's that a run of helm failed with."""
    found = _REACHED.search(error)
    return found[1] if found else None


def without(text: str, mark: str) -> str:
    """The template of Go's with one mark less."""
    return text.replace(GO.mark.replace("NUMBER", mark), "")


def exhaust(run: Callable[[], str], remove: Callable[[str], None]) -> None:
    """Run until nothing new is reached, taking away each mark that was."""
    while (mark := failed(run())) is not None:
        remove(mark)


def unreached(lines: Mapping[str, int], found: set[str]) -> list[str]:
    """``file:line`` of each mark that nobody reached."""
    return [f"{mark.rpartition(':')[0]}:{line}" for mark, line in lines.items() if mark not in found]
