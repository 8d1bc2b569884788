"""How good predictions are, on simulated days: false ones, leaks found, and how long before.

    python bench/trend.py [TARGETS] [DAYS]

A target is asked every 10 s. Its latency is lognormal around a base with a daily cycle of +-40 %, noise that lasts
(AR(1) by the minute) and 1 % spikes. Half of the last day's targets leak: the latency grows to the limit within two hours.
Every number comes from a counter that is hashed (SplitMix64), so that every run, on every machine, sees the same days.
Prints a table, asserts nothing.
"""

import sys
from math import cos, exp, log, pi, sin, sqrt
from statistics import median

from cfscale.core.trend import Outlook, Tuning

LIMIT = 1.0
INTERVAL, LEAK = 10, 7200
DAY = 86_400
_MASK = (1 << 64) - 1


def chance(*counters: int) -> float:
    """A number in (0, 1) that follows from the counters alone."""
    value = 0
    for counter in counters:
        value = (value + counter + 0x9E3779B97F4A7C15) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return (value + 0.5) / 2**64


def normal(*counters: int) -> float:
    return sqrt(-2 * log(chance(*counters, 1))) * cos(2 * pi * chance(*counters, 2))


class Target:
    """The latencies of one target, second by second in steps of the interval."""

    def __init__(self, number: int, base: float) -> None:
        self.number, self.base, self.drift = number, base, 0.0

    def latency(self, at: int, leak_from: int | None) -> float:
        """The latency at a second, with a leak from another on."""
        if at % 60 == 0:
            self.drift = 0.9 * self.drift + 0.05 * normal(self.number, at, 3)
        level = log(self.base * (1 + 0.4 * sin(2 * pi * at / DAY + self.number))) + self.drift
        if leak_from is not None and at >= leak_from:
            level += min(1.0, (at - leak_from) / LEAK) * log(LIMIT / self.base)
        spike = log(10) if chance(self.number, at, 4) < 0.01 else 0.0
        return exp(level + 0.3 * normal(self.number, at, 5) + spike)


def run(number: int, base: float, days: int, tuning: Tuning) -> tuple[int, float | None, bool]:
    """(false predictions in all days but the last, lead on the leak of the last in minutes, whether it was refused)."""
    target, outlook = Target(number, base), Outlook(LIMIT, tuning)
    leak_from = (days - 1) * DAY + int(chance(number, 6) * (DAY - LEAK - 3600))
    false, alarmed, refused = 0, False, False
    for at in range(0, leak_from + LEAK, INTERVAL):
        if not outlook.add(at, target.latency(at, leak_from)):
            continue
        found = outlook.predict()
        if found and at >= leak_from:
            return false, (leak_from + LEAK - at) / 60, refused
        if found and not alarmed:
            false += 1
        alarmed = bool(found)
        refused = refused or (bool(outlook.refusal) and at > 3600)
    return false, None, refused


def main() -> None:
    targets = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    days = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(f"{targets} targets, {days} days each, a leak within {LEAK // 60} min to {LIMIT:g} s on the last day")
    print(f"{'base':>8}{'headroom':>10}{'false/day':>11}{'found':>9}{'lead min':>10}{'refused':>9}")
    for base in (0.05, 0.2, 0.35):
        found = [run(number, base, days, Tuning()) for number in range(targets)]
        leads = [lead for _, lead, _ in found if lead is not None]
        quiet = targets * (days - 0.5)
        print(
            f"{base * 1000:>5.0f} ms{LIMIT / base:>9.1f}x{sum(one[0] for one in found) / quiet:>11.3f}"
            f"{f'{len(leads)}/{targets}':>9}{median(leads) if leads else 0:>10.0f}{sum(one[2] for one in found):>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
