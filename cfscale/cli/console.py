"""The only module that prints: results to stdout, everything else to stderr.

Text from outside (names, answers, errors) is shown with control characters taken out, and never read as markup.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from cfscale.errors import ActionError

_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"


class ReaderGoneError(Exception):
    """Whoever read standard output has gone (``| head``): no failure, and no OSError, which typer would exit 1 for."""


class Output(StrEnum):
    """The formats every command that prints data knows."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class _Style(msgspec.Struct):
    """What the global flags say; set once by ``configure`` before a command runs."""

    quiet: bool = False
    color: bool | None = None
    sink: Callable[[str, str], None] | None = None


_style = _Style()


def configure(*, quiet: bool, color: bool | None) -> None:
    """Set what ``--quiet`` and ``--no-color`` ask for; a color of None follows the terminal and NO_COLOR."""
    _style.quiet = quiet
    _style.color = color


def divert(sink: Callable[[str, str], None] | None) -> None:
    """Hand what would go to stderr to ``sink``, as (note | warning | error, text); None ends that."""
    _style.sink = sink


def colored(stream: object = None) -> bool:
    """Whether to colour what goes to this stream (stdout unless given)."""
    if _style.color is not None:
        return _style.color
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def is_terminal(stream: object = None) -> bool:
    """Whether a person watches this stream (stdout unless given)."""
    stream = sys.stdout if stream is None else stream
    return bool(getattr(stream, "isatty", lambda: False)())


def clean(text: str) -> str:
    """The text without control characters, so that nothing from outside can steer the terminal."""
    return re.sub(_CONTROL, "", text)


def result(text: str) -> None:
    """Print result text, with a newline at its end."""
    _write(sys.stdout, text if text.endswith("\n") else text + "\n")


def note(text: str) -> None:
    """Say something on the way (progress, a hint); silent under ``--quiet``."""
    if not _style.quiet:
        _say("note", text, clean(text))


def warn(text: str) -> None:
    """Say what the operator should know, on stderr, even under ``--quiet``."""
    _say("warning", text, _painted("warning:", "33") + f" {clean(text)}")


def error(text: str) -> None:
    """Say in one line why the command failed."""
    _say("error", text, _painted("error:", "31") + f" {' '.join(clean(text).split())}")


def _say(kind: str, text: str, line: str) -> None:
    if _style.sink is not None:
        _style.sink(kind, text)
    else:
        _write(sys.stderr, line + "\n")


def _painted(word: str, code: str) -> str:
    return f"\x1b[{code}m{word}\x1b[0m" if colored(sys.stderr) else word


def _write(stream: object, text: str) -> None:
    """Write text whatever the stream's encoding: what it lacks is escaped, not an error.

    Raises ActionError where a result is lost; what was only said on the way may be.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))  # type: ignore[attr-defined]
        stream.flush()  # type: ignore[attr-defined]
    except (OSError, AttributeError) as error:  # a full disk; a stream that was closed before the start is None
        if stream is not sys.stdout:
            return
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from error
        reason = getattr(error, "strerror", None) or "it is closed"
        raise ActionError(f"the result cannot be written to standard output: {reason}") from error


def document(value: object, output: Output) -> None:
    """Print a document as indented JSON or as YAML."""
    text = msgspec.json.encode(value)
    if output is Output.JSON:
        result(msgspec.json.format(text, indent=2).decode())
        return
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    result(yaml.dump(msgspec.json.decode(text), Dumper=dumper, sort_keys=False, allow_unicode=True))


def json_line(value: object) -> None:
    """Print one JSON document on one line (a stream of documents is JSON lines)."""
    result(msgspec.json.encode(value).decode())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Mapping[int, str] | None = None) -> str:
    """Rows under a heading, aligned, untruncated; columns whose name begins with ``>`` align right."""
    names = [name.removeprefix(">") for name in columns]
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[index]) for row in cells)]) for index, name in enumerate(names)]
    right = [name.startswith(">") for name in columns]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if flag else cell.ljust(width)
            for cell, width, flag in zip(row, widths, right, strict=True)
        ]
        return "  ".join(padded).rstrip()

    heading = line([name.upper() for name in names])
    body = [line(row) for row in cells]
    if colored():
        heading = f"\x1b[1m{heading}\x1b[0m"
        body = [
            f"\x1b[{styles[index]}m{text}\x1b[0m" if styles and index in styles else text
            for index, text in enumerate(body)
        ]
    return "\n".join([heading, *body])
