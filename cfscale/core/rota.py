"""Whose turn it is when: a target keeps its place within the interval, so that the load on it and on us is even.

The place follows from the target's name alone. It moves by a tenth of the interval at most from turn to turn, by a
rule instead of by chance, so that no two schedules march in step for ever and every test sees the same.
"""

from zlib import crc32

JITTER = 0.1
_PLACES = 2**32


def place(name: str, turn: int) -> float:
    """Where in the turn a target is asked, from 0 to below 1."""
    moved = crc32(b"%d" % turn, crc32(name.encode("utf-8", "replace"))) / _PLACES - 0.5
    return (crc32(name.encode("utf-8", "replace")) / _PLACES + moved * JITTER) % 1.0
