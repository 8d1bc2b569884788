"""Which branches of Go templates are reached: every branch of a copy fails with its number, and each failure ends one mark.

A branch is what stands behind ``if``, ``else``, ``with`` and ``range``, and the empty one of an ``if`` or ``with`` that has
no ``else``. One run of helm finds one mark; a run that finds none has reached nothing new.
"""

import re
from collections.abc import Callable, Mapping

_ACTION = re.compile(r"\{\{-?\s*(if|with|range|else|end|define)\b((?:\"[^\"]*\"|[^\"}]|\}(?!\}))*?)-?\}\}")
_MARK = re.compile(r"cfscale-mark:([^:]+):(\d+)")


def marked(name: str, text: str) -> tuple[str, dict[str, int]]:
    """The template with a mark in each branch, and the line of each mark."""
    parts: list[str] = []
    lines: dict[str, int] = {}
    opened: list[list[object]] = []
    position = 0

    def mark(at: int) -> str:
        number = f"{name}:{len(lines)}"
        lines[number] = text.count("\n", 0, at) + 1
        return f'{{{{ fail "cfscale-mark:{number}" }}}}'

    for found in _ACTION.finditer(text):
        word, rest = found.group(1), found.group(2).strip()
        parts.append(text[position : found.start()])
        position = found.end()
        if word == "end":
            kind, has_else = opened.pop()
            if kind in ("if", "with") and not has_else:
                parts.append("{{ else }}" + mark(found.start()))
            parts.append(found.group(0))
            continue
        parts.append(found.group(0))
        if word == "else":
            # `else if` opens no block of its own
            opened[-1][1] = opened[-1][1] or not rest.startswith(("if", "with"))
            parts.append(mark(found.start()))
            continue
        opened.append([word, False])
        if word != "define":
            parts.append(mark(found.start()))
    parts.append(text[position:])
    return "".join(parts), lines


def without(text: str, mark: str) -> str:
    """The template with one mark less."""
    return text.replace(f'{{{{ fail "cfscale-mark:{mark}" }}}}', "")


def reached(error: str) -> str | None:
    """The mark that a run of helm failed with."""
    found = _MARK.search(error)
    return f"{found.group(1)}:{found.group(2)}" if found else None


def exhaust(run: Callable[[], str], remove: Callable[[str], None]) -> None:
    """Run until nothing new is reached, taking away each mark that was."""
    while (mark := reached(run())) is not None:
        remove(mark)


def unreached(lines: Mapping[str, int], found: set[str]) -> list[str]:
    """``file:line`` of each mark that nobody reached."""
    return [f"{mark.rpartition(':')[0]}:{line}" for mark, line in lines.items() if mark not in found]
