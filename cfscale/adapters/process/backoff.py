"""When a process that ended is started again, and when that is given up."""

FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 30.0
STABLE_SECONDS = 10.0
QUICK_EXITS = 5


class Backoff:
    """Exits in a row of a process that each time ran for less than ``STABLE_SECONDS``: a crash loop at the fifth."""

    def __init__(self) -> None:
        self._quick_exits = 0

    def after(self, lived_seconds: float) -> float | None:
        """Seconds to wait after this exit, doubled from one to the next; None when it is a crash loop."""
        self._quick_exits = 1 if lived_seconds >= STABLE_SECONDS else self._quick_exits + 1
        if self._quick_exits >= QUICK_EXITS:
            return None
        return min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (self._quick_exits - 1))
