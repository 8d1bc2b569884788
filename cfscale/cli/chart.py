"""Numbers as pictures: a line of blocks for a terminal."""

from collections.abc import Sequence

WIDTH = 24
CHART = (1200, 220)
_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The values in so many blocks, each the highest of its part, from zero to the highest of all."""
    if not values:
        return ""
    parts = min(width, len(values))
    tops = [max(values[place * len(values) // parts : (place + 1) * len(values) // parts]) for place in range(parts)]
    most = max(tops) or 1
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(top / most * len(_BLOCKS)))] for top in tops)


def points(values: Sequence[float], most: float, *, lowest: bool = False) -> str:
    """The values as coordinates of an SVG of ``CHART``, thinned to its width by the highest (or lowest) of each part."""
    width, height = CHART
    parts = min(width, len(values))
    pick = min if lowest else max
    out = []
    for place in range(parts):
        part = values[place * len(values) // parts : (place + 1) * len(values) // parts]
        out.append(f"{place * width / parts:.1f},{height - pick(part) / most * height:.1f}")
    return " ".join(out)
