"""Sizes, CPU shares and durations: one strict grammar in, base units (bytes, millicores, seconds) out.

Every parser takes ASCII only and the whole string, and returns an exact value; ``parse(format(x)) == x`` holds.
"""

import re
from fractions import Fraction
from math import ceil

from cfscale.errors import InputError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4

_SIZE_FACTORS = {
    "": 1,
    "B": 1,
    **dict.fromkeys(("K", "KB", "Ki", "KiB", "k"), KIB),
    **dict.fromkeys(("M", "MB", "Mi", "MiB", "m"), MIB),
    **dict.fromkeys(("G", "GB", "Gi", "GiB", "g"), GIB),
    **dict.fromkeys(("T", "TB", "Ti", "TiB", "t"), TIB),
}
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
    "w": Fraction(604_800),
    "y": Fraction(31_536_000),
}
_WHOLE_SECONDS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_NUMBER = r"(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,9})?"
# compiled where they are first asked
_SIZE = rf"({_NUMBER})([A-Za-z]{{0,3}})"
_CPU = rf"({_NUMBER})(m?)"
_DURATION = rf"(?:{_NUMBER}(?:ms|[smhdwy]))+"
_DURATION_PART = rf"({_NUMBER})(ms|[smhdwy])"


def parse_size(text: str) -> int:
    """Bytes of a size such as ``512M``, ``4G`` or ``1.5GiB``; a G is a GiB, as Compose reads it.

    Raises InputError for anything else, and for a size below one byte.
    """
    match = re.fullmatch(_SIZE, text, re.ASCII)
    if match is None or match[2] not in _SIZE_FACTORS:
        raise InputError(f"'{text}' is not a size: write a number and a unit, such as 512M or 4G")
    size = Fraction(match[1]) * _SIZE_FACTORS[match[2]]
    if size < 1:
        raise InputError(f"'{text}' is less than one byte")
    return ceil(size)


def parse_cpu(text: str) -> int:
    """Millicores of a CPU share such as ``0.5``, ``2`` or ``500m``; raises InputError for anything else or for zero."""
    match = re.fullmatch(_CPU, text, re.ASCII)
    if match is None:
        raise InputError(f"'{text}' is not a CPU share: write cores (0.5) or millicores (500m)")
    millicores = ceil(Fraction(match[1]) * (1 if match[2] else 1000))
    if millicores < 1:
        raise InputError(f"'{text}' is no CPU at all: give at least 1m")
    return millicores


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``10s``, ``5m`` or ``1h30m``; raises InputError for anything else."""
    if re.fullmatch(_DURATION, text, re.ASCII) is None:
        raise InputError(f"'{text}' is not a duration: write a number and a unit, such as 10s, 5m or 1h30m")
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in re.findall(_DURATION_PART, text, re.ASCII)))


def format_size(size: int) -> str:
    """The shortest exact size text that ``parse_size`` reads back: 4294967296 -> ``4G``."""
    for unit, factor in (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_cpu(millicores: int) -> str:
    """The shortest exact CPU text that ``parse_cpu`` reads back: 500 -> ``0.5``, 2000 -> ``2``."""
    whole, rest = divmod(millicores, 1000)
    return str(whole) if rest == 0 else f"{whole}.{rest:03d}".rstrip("0")


def format_duration(seconds: float) -> str:
    """An exact duration text that ``parse_duration`` reads back: 90.0 -> ``1m30s``; milliseconds at the finest."""
    if seconds == 0:
        return "0s"
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    parts = []
    for unit, factor in _WHOLE_SECONDS:
        count, whole = divmod(whole, factor)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) + (f"{milliseconds}ms" if milliseconds else "")


def percent(ratio: float) -> str:
    """A ratio in words, to a tenth of a percent: 0.85 -> ``85%``."""
    return f"{100 * ratio:.1f}".removesuffix(".0") + "%"


def share_of(text: str, where: str) -> float:
    """A ratio written as ``0.5%`` or ``0.005``, between 0 and 1; raises InputError naming ``where``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"{where} '{text}' is not a share: write a percentage such as 0.5% or 70%")
    return value
