"""How decisions look: one plain line each, rows of a table, or a live table on a terminal."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.decision import Action, Decision
from cfscale.core.policy import percent

if TYPE_CHECKING:
    from rich.console import Group

COLUMNS = ("service", ">current", ">desired", "action", "urgency", ">cpu", ">memory", "applied", "reason")
_RECENT = 8
_COLORS = {Action.SCALE_UP: "yellow", Action.SCALE_DOWN: "cyan", Action.HOLD: "green"}
Printer = Callable[[Decision], None]


def row(decision: Decision) -> tuple[str, ...]:
    """A decision as the cells of a table."""
    return (
        decision.service,
        str(decision.current),
        str(decision.desired),
        decision.action,
        decision.urgency,
        usage(decision, "cpu"),
        usage(decision, "memory"),
        "yes" if decision.applied else "no",
        decision.reason,
    )


def usage(decision: Decision, resource: str) -> str:
    """A resource in percent, with its quality where that is not plain ok; a dash where nothing is known."""
    for sample in decision.samples:
        if sample.resource == resource:
            return percent(sample.value_ratio) + ("" if sample.quality == "ok" else f" ({sample.quality})")
    return "-"


def line(decision: Decision) -> str:
    """A decision as one plain line."""
    change = f"{decision.current}" if decision.action is Action.HOLD else f"{decision.current} -> {decision.desired}"
    applied = " applied" if decision.applied else ""
    return (
        f"{decision.time} {decision.service} {change} {decision.action} {decision.urgency}{applied}: {decision.reason}"
    )


@contextmanager
def printer(output: Output, *, looping: bool) -> Iterator[Printer]:
    """Show decisions as they come, in the format asked for."""
    if output is Output.JSON:
        yield console.json_line
    elif output is Output.YAML:
        yield _yaml
    elif looping and console.is_terminal():
        with _live() as show:
            yield show
    elif looping:
        yield lambda decision: console.result(console.clean(line(decision)))
    else:
        seen: list[Decision] = []
        yield seen.append
        if seen:
            console.result(console.table(COLUMNS, [row(decision) for decision in seen]))


def _yaml(decision: Decision) -> None:
    console.result("---")
    console.document(decision, Output.YAML)


@contextmanager
def _live() -> Iterator[Printer]:
    """A table of every service's latest decision, and below it the latest changes."""
    from rich.console import Console
    from rich.live import Live

    latest: dict[str, Decision] = {}
    changes: deque[Decision] = deque(maxlen=_RECENT)
    screen = Console(no_color=not console.colored(), highlight=False)
    with Live(console=screen, auto_refresh=False, redirect_stdout=False) as live:

        def show(decision: Decision) -> None:
            latest[decision.service] = decision
            if decision.action is not Action.HOLD:
                changes.append(decision)
            live.update(_picture(list(latest.values()), changes), refresh=True)

        yield show


def _picture(latest: Sequence[Decision], changes: Sequence[Decision]) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{latest[-1].engine}  {latest[-1].time}", title_justify="left", box=None, pad_edge=False)
    for name in ("service", "replicas", "cpu", "memory", "action", "urgency", "reason"):
        table.add_column(name, overflow="fold")
    for decision in latest:
        table.add_row(*(Text(console.clean(cell), style=_COLORS[decision.action]) for cell in _cells(decision)))
    return Group(table, *(Text(console.clean(line(decision)), style="dim") for decision in changes))


def _cells(decision: Decision) -> tuple[str, ...]:
    change = "" if decision.desired == decision.current else f" -> {decision.desired}"
    bar = f"{'█' * min(decision.current, 20)} {decision.current}{change}"
    cpu, memory = usage(decision, "cpu"), usage(decision, "memory")
    return (decision.service, bar, cpu, memory, decision.action, decision.urgency, decision.reason)
