"""The live table of ``scale --watch``: every service's utilisation, replicas and last decision, and when the next is due."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cfscale.cli import console
from cfscale.cli.decisions import Printer, line, usage
from cfscale.core.decision import Action, Decision
from cfscale.core.policy import Observation
from cfscale.core.samples import ReplicaState

if TYPE_CHECKING:
    from rich.console import Group

    from cfscale.runtime.watch import Scaler

SPARKS = "▁▂▃▄▅▆▇█"
_RECENT, _POINTS, _BAR = 8, 30, 10
_REFRESH_PER_SECOND = 2
_COLORS = {Action.SCALE_UP: "yellow", Action.SCALE_DOWN: "cyan", Action.HOLD: "green"}
_COLUMNS = ("service", "ready/desired", "cpu", "", "memory", "last minutes", "decision")


@dataclass(slots=True)
class Screen:
    """What is shown: each service's latest decision and CPU before it, the latest changes, and when the next tick is."""

    observed: Mapping[str, Observation]
    due: Callable[[], float]
    clock: Callable[[], float] = time.monotonic
    latest: dict[str, Decision] = field(default_factory=dict)
    past: dict[str, deque[float | None]] = field(default_factory=dict)
    changes: deque[Decision] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, decision: Decision) -> None:
        """Take a decision up."""
        self.latest[decision.service] = decision
        self.past.setdefault(decision.service, deque(maxlen=_POINTS)).append(ratio(decision, "cpu"))
        if decision.action is not Action.HOLD:
            self.changes.append(decision)

    def countdown(self) -> str:
        """How long until the next tick, in words; while one is under way there is no telling."""
        left = self.due() - self.clock()
        return f"next in {left:.0f} s" if left >= 0.5 else "looking"  # noqa: PLR2004 - rounds to a whole second

    def __rich__(self) -> "Group":
        """The picture of this moment."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        newest = next(reversed(self.latest.values()), None)
        title = f"{newest.engine}  {newest.time}  {self.countdown()}" if newest else self.countdown()
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for name in _COLUMNS:
            table.add_column(name, overflow="fold")
        for decision in self.latest.values():
            cells = self.cells(decision)
            table.add_row(*(Text(console.clean(cell), style=_COLORS[decision.action]) for cell in cells))
        return Group(table, *(Text(console.clean(line(decision)), style="dim") for decision in self.changes))

    def cells(self, decision: Decision) -> tuple[str, ...]:
        """One service as a row."""
        seen = self.observed.get(decision.service)
        ready = "-" if seen is None else str(seen.count(ReplicaState.READY))
        done = " done" if decision.applied else ""
        said = f"{decision.action}{done}, {decision.urgency}: {decision.reason}"
        return (
            decision.service,
            f"{ready}/{decision.desired}",
            usage(decision, "cpu"),
            bar(ratio(decision, "cpu")),
            usage(decision, "memory"),
            sparkline(self.past[decision.service]),
            said,
        )


def ratio(decision: Decision, resource: str) -> float | None:
    """The value of one resource; None where nothing is known."""
    return next((sample.value_ratio for sample in decision.samples if sample.resource == resource), None)


def bar(value: float | None) -> str:
    """A ratio as a bar that is full at 1."""
    filled = 0 if value is None else round(min(max(value, 0.0), 1.0) * _BAR)
    return "█" * filled + "·" * (_BAR - filled)


def sparkline(values: "deque[float | None]") -> str:
    """Ratios as blocks, the newest at the right; a gap where nothing was known. Above 1 the block is full."""
    top = len(SPARKS) - 1
    return "".join(" " if value is None else SPARKS[round(min(max(value, 0.0), 1.0) * top)] for value in values)


@contextmanager
def live(scaler: "Scaler") -> Iterator[Printer]:
    """Show decisions on the terminal as they come; the countdown goes on between them."""
    from rich.console import Console
    from rich.live import Live

    screen = Screen(scaler.seen, lambda: scaler.due)
    terminal = Console(no_color=not console.colored(), highlight=False)
    with Live(screen, console=terminal, refresh_per_second=_REFRESH_PER_SECOND, redirect_stdout=False) as picture:

        def show(decision: Decision) -> None:
            screen.add(decision)
            picture.refresh()

        yield show
