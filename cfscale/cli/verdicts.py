"""A round of probing as text for people, CI (JUnit) and Nagios."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cfscale.cli import console
from cfscale.core.health import Report, Result, State, nagios_code

_MARKS = {
    State.UP: ("✓", "32"),
    State.DEGRADED: ("!", "33"),
    State.DOWN: ("✗", "31"),
    State.UNKNOWN: ("?", "35"),
    State.STARTING: ("…", "36"),
    State.DRAINING: ("↓", "36"),
    State.MAINTENANCE: ("‖", "36"),
}
_COLORS = {"32": "green", "33": "yellow", "31": "red", "35": "magenta", "36": "cyan"}
_COLUMNS = ("", "target", "kind", "state", ">latency", "reason")
_NAGIOS_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_NAGIOS_NAMED = 5


def as_table(report: Report) -> str:
    """Rows under a heading and the counts below: what a person reads."""
    rows = [_row(result) for result in report.results]
    styles = {index: _MARKS[result.state][1] for index, result in enumerate(report.results)}
    return f"{console.table(_COLUMNS, rows, styles)}\n\n{summary(report)}"


def summary(report: Report) -> str:
    """The states that occur, counted: ``3 up, 1 down``."""
    return ", ".join(f"{count} {state}" for state, count in _counted(report) if count) or "nothing to probe"


@contextmanager
def printer(*, as_json: bool) -> Iterator[Callable[[Report], None]]:
    """Show the rounds of a watch: JSON lines, a live table on a terminal, else one line per change."""
    if as_json:
        yield console.json_line
    elif console.is_terminal():
        with _live() as show:
            yield show
    else:
        known: dict[str, State] = {}
        yield lambda report: _changes(report, known)


def _changes(report: Report, known: dict[str, State]) -> None:
    for result in report.results:
        before = known.get(result.target)
        if before is not result.state:
            was = "" if before is None else f" (was {before.value})"
            mark = _MARKS[result.state][0]
            console.result(console.clean(f"{mark} {result.target} {result.state.value}{was}: {result.reason}"))
    gone = known.keys() - {result.target for result in report.results}
    for name in sorted(gone):
        console.result(console.clean(f"- {name} is gone (was {known[name].value})"))
    known.clear()
    known.update({result.target: result.state for result in report.results})
    _alarm(report)


def _alarm(report: Report) -> None:
    for group in report.panic:
        console.warn(f"more than half of {group} went down at once: suspect the network or this host; do not act on it")


@contextmanager
def _live() -> Iterator[Callable[[Report], None]]:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    past: dict[str, deque[float | None]] = {}
    with Live(console=Console(no_color=not console.colored(), highlight=False), auto_refresh=False) as live:

        def show(report: Report) -> None:
            panic = f"  PANIC: {', '.join(report.panic)}" if report.panic else ""
            grid = Table(caption=summary(report) + panic, caption_justify="left", box=None, pad_edge=False)
            for name in (*_COLUMNS[:-1], "history", _COLUMNS[-1]):
                grid.add_column(name.removeprefix(">"), overflow="fold")
            for result in report.results:
                seen = past.setdefault(result.target, deque(maxlen=_HISTORY))
                seen.append(None if result.state in (State.DOWN, State.UNKNOWN) else result.latency_seconds)
                *cells, reason = (console.clean(cell) for cell in _row(result))
                style = _COLORS[_MARKS[result.state][1]]
                grid.add_row(*(Text(cell, style=style) for cell in (*cells, sparkline(seen), reason)))
            live.update(grid, refresh=True)

        yield show


_HISTORY = 20
_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: "deque[float | None]") -> str:
    """Latencies as bars between their least and their most; a gap is an answer that did not come."""
    told = [value for value in values if value is not None]
    low, width = min(told, default=0.0), max(told, default=0.0) - min(told, default=0.0)
    top = len(_BARS) - 1
    return "".join(" " if one is None else _BARS[round((one - low) / width * top) if width else 0] for one in values)


def _row(result: Result) -> tuple[str, ...]:
    mark = _MARKS[result.state][0]
    return (mark, result.target, result.kind, result.state.value, _latency(result), result.reason)


def _latency(result: Result) -> str:
    return "-" if result.latency_seconds is None else f"{result.latency_seconds * 1000:.1f} ms"


def _counted(report: Report) -> list[tuple[str, int]]:
    return [(state.value, getattr(report.summary, state.value)) for state in State]


def as_junit(report: Report, *, fail_on_degraded: bool) -> str:
    """A JUnit suite: down is a failure, unknown an error, what is on its way or out of service is skipped."""
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    kinds = [_junit_kind(result, fail_on_degraded=fail_on_degraded) for result in report.results]
    numbers = {f"{name}s" if name != "skipped" else name: kinds.count(name) for name in ("failure", "error", "skipped")}
    seconds = sum(result.latency_seconds or 0.0 for result in report.results)
    attributes = {"name": "cfscale probe", "tests": len(kinds), **numbers, "time": f"{seconds:.6f}"}
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", {name: str(value) for name, value in attributes.items()})
    for result, kind in zip(report.results, kinds, strict=True):
        took = f"{result.latency_seconds or 0.0:.6f}"
        case = SubElement(suite, "testcase", {"name": result.target, "classname": result.kind, "time": took})
        if kind is not None:
            SubElement(case, kind, {"message": f"{result.state.value}: {result.reason}"})
        elif result.state is not State.UP:
            SubElement(case, "system-out").text = f"{result.state.value}: {result.reason}"
    indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(suites, encoding="unicode")}'


def _junit_kind(result: Result, *, fail_on_degraded: bool) -> str | None:
    match result.state:
        case State.UP:
            return None
        case State.DEGRADED:
            return "failure" if fail_on_degraded else None
        case State.DOWN:
            return "failure"
        case State.UNKNOWN:
            return "error"
        case _:
            return "skipped"


def as_nagios(report: Report) -> str:
    """One line and its performance data, as monitoring plugins print them."""
    word = _NAGIOS_WORDS[nagios_code(report)]
    wrong = [result for result in report.results if result.state is not State.UP]
    wrong.sort(key=lambda result: list(_SEVERITY).index(result.state))
    named = "; ".join(f"{result.target} {result.state.value}: {result.reason}" for result in wrong[:_NAGIOS_NAMED])
    more = f"; and {len(wrong) - _NAGIOS_NAMED} more" if len(wrong) > _NAGIOS_NAMED else ""
    text = f"PROBE {word} - {summary(report)}" + (f" - {named}{more}" if named else "")
    data = " ".join(f"{state}={count};;;0;{len(report.results)}" for state, count in _counted(report))
    # the bar begins the performance data: none may stand in the text
    return f"{console.clean(text).replace('|', '/')} | {data}"


_SEVERITY = (
    State.DOWN,
    State.UNKNOWN,
    State.DEGRADED,
    State.STARTING,
    State.DRAINING,
    State.MAINTENANCE,
    State.UP,
)
