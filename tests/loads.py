"""Loads for the replay: made up, the same every time, of the kinds that services see."""

from math import pi, sin
from random import Random


def daily(count: int, peak: float = 10.0, seed: int = 1) -> list[float]:
    """A day's rise and fall with some noise, a step a minute."""
    noise = Random(seed)
    return [peak * (0.6 + 0.4 * sin(2 * pi * step / 1440)) * (1 + noise.gauss(0, 0.03)) for step in range(count)]


def bursts(count: int, seed: int = 2) -> list[float]:
    """A quiet level with jumps of irregular height and length."""
    noise, out, left, height = Random(seed), [], 0, 1.0
    for _ in range(count):
        if left == 0:
            left, height = noise.randrange(5, 90), noise.choice((1.0, 1.0, 1.0, 4.0, 9.0))
        left -= 1
        out.append(height * (1 + 0.1 * noise.random()))
    return out


def steps(height: float, count: int) -> list[float]:
    """One replica's load, then a step up."""
    return [0.5] * (count // 4) + [height] * (count - count // 4)


def noisy(count: int, level: float = 6.0, seed: int = 3) -> list[float]:
    """Independent noise around a level: nothing of it can be foreseen."""
    noise = Random(seed)
    return [max(0.0, noise.gauss(level, level / 3)) for _ in range(count)]


def hourly(count: int, seed: int = 4) -> list[float]:
    """A job on the hour, every hour, over a steady level."""
    noise = Random(seed)
    return [(12.0 if step % 60 < 8 else 5.0) * (1 + noise.gauss(0, 0.02)) for step in range(count)]
