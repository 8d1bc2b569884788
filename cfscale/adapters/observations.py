"""Files of calibration: CSV samples of a live deployment, and the coefficients that were made of some."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cfscale.core.calibrate import Observation
from cfscale.core.coefficients import Cited, parse_coefficients
from cfscale.errors import InputError

MAX_ROWS = 1_000_000
MAX_BYTES = 1024 * 1024
COLUMNS = ("agents", "tasks", "memory_bytes", "cpu_millicores")
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)


def read_samples(path: str) -> list[Observation]:
    """One observation a line, in whole numbers, under a heading with the names of COLUMNS; other columns are left alone.

    Raises InputError as ``path:line: problem``.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(file, path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _rows(file: TextIO, path: str) -> Iterator[Observation]:
    lines = csv.reader(file)
    heading = [name.strip() for name in next(lines, [])]
    wrong = [name for name in COLUMNS if heading.count(name) != 1]
    if wrong:
        raise InputError(
            f"{path}:1: the heading has column '{wrong[0]}' {heading.count(wrong[0])} times: it needs {', '.join(COLUMNS)}"
        )
    places = [heading.index(name) for name in COLUMNS]
    for count, line in enumerate(lines, 1):
        if count > MAX_ROWS:
            raise InputError(f"{path}:{lines.line_num}: more than {MAX_ROWS} samples: take every tenth")
        if line:
            agents, tasks, memory, cpu = _numbers(line, places, f"{path}:{lines.line_num}")
            yield Observation(agents, tasks, memory, cpu)


def _numbers(line: list[str], places: list[int], where: str) -> Iterator[int]:
    for name, place in zip(COLUMNS, places, strict=True):
        text = line[place].strip() if place < len(line) else ""
        if not _WHOLE.fullmatch(text):
            raise InputError(f"{where}: {name} is '{text}': write a whole number from 0 up")
        yield int(text)


def read_coefficients(path: Path) -> Cited:
    """The coefficients of a file, with the name to cite it by; raises InputError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: write it with 'cfscale calibrate --out'") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: more than {MAX_BYTES} bytes: these are no coefficients")
    return Cited(path.name, parse_coefficients(raw, str(path)))
