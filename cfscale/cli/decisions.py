"""How decisions look: one plain line each, rows of a table, or a live table on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.decision import Action, Decision
from cfscale.core.units import percent

if TYPE_CHECKING:
    from cfscale.runtime.watch import Scaler

COLUMNS = ("service", ">current", ">desired", "action", "urgency", ">cpu", ">memory", "applied", "reason")
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
def printer(output: Output, scaler: "Scaler", *, looping: bool) -> Iterator[Printer]:
    """Show decisions as they come, in the format asked for."""
    if output is Output.JSON:
        yield console.json_line
    elif output is Output.YAML:
        yield _yaml
    elif looping and console.is_terminal():
        from cfscale.cli.live import live

        with live(scaler) as show:
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
