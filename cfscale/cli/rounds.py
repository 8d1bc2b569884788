"""Rounds of probing shown and served: one and its exit code, or a watch."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from cfscale.cli import console, verdicts
from cfscale.core.health import Report, Target, exit_code, nagios_code
from cfscale.core.workload import duration
from cfscale.errors import ActionError, InputError, UnavailableError

if TYPE_CHECKING:
    from cfscale.cli.probing import Request
    from cfscale.core.samples import Usage

_LONGEST_PREDICTED = 60.0
_REFUSALS_SHOWN = 3
_TEXTFILE_MODE = 0o644


class Format(StrEnum):
    """The formats of a probe report."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    NAGIOS = "nagios"
    PROMETHEUS = "prometheus"


class Shown(Struct, frozen=True):
    """Where a round goes: to stdout in a format, and to a file, a scraper or a balancer beside."""

    output: Format
    degraded_fails: bool
    textfile: Path | None = None
    serve: str | None = None
    agent_check: str | None = None

    def code(self, report: Report) -> int:
        """The exit code, the same whatever the format, but for Nagios."""
        if self.output is Format.NAGIOS:
            return nagios_code(report)
        return exit_code(report, fail_on_degraded=self.degraded_fails)

    def keep(self, report: Report) -> None:
        """Write the text file, if one is wanted: whole or not at all."""
        if self.textfile is None:
            return
        from cfscale.adapters.files import write_atomic
        from cfscale.cli.exposition import as_prometheus

        try:
            write_atomic(self.textfile, as_prometheus(report) + "\n", _TEXTFILE_MODE)
        except OSError as error:
            raise ActionError(f"{self.textfile}: {error.strerror}: the metrics could not be written") from error


class Pace(Struct, frozen=True):
    """How often a watch asks, and for how long."""

    interval_seconds: float
    seconds: float | None

    @classmethod
    def of(cls, interval: str | None, lasting: str | None) -> "Pace":
        """From the words of the command line; raises InputError."""
        return cls(
            usual("health.interval") if interval is None else positive(interval, "--interval"),
            None if lasting is None else positive(lasting, "--for"),
        )


def positive(text: str, where: str) -> float:
    """A duration of more than nothing in seconds; raises InputError."""
    seconds = duration(text, 0.0, where)
    if seconds <= 0:
        raise InputError(f"{where} '{text}': give more than 0, such as 2s")
    return seconds


def usual(leaf: str) -> float:
    """What the catalogue says of a time where the command line says nothing, in seconds."""
    from cfscale.adapters.assets import load_catalogue

    return float(load_catalogue().rules.leaf(leaf).seconds)


def once(request: "Request", shown: Shown) -> int:
    """Ask all, print one document, say how it went."""
    import asyncio

    from cfscale.cli.probing import loop_factory, survey

    targets = request.source()
    with asyncio.Runner(loop_factory=loop_factory(len(targets))) as runner:
        report = runner.run(survey(request.policy, targets).round(targets)).report
    _print(report, shown)
    shown.keep(report)
    return shown.code(report)


def _print(report: Report, shown: Shown) -> None:
    match shown.output:
        case Format.TABLE:
            console.result(verdicts.as_table(report))
        case Format.JUNIT:
            console.result(verdicts.as_junit(report, fail_on_degraded=shown.degraded_fails))
        case Format.NAGIOS:
            console.result(verdicts.as_nagios(report))
        case Format.PROMETHEUS:
            from cfscale.cli.exposition import as_prometheus

            console.result(as_prometheus(report))
        case Format.JSON | Format.YAML:
            console.document(report, console.Output(shown.output.value))


def watched(request: "Request", pace: Pace, shown: Shown) -> int:
    """Rounds until the time is over; the exit code is that of the last. A signal breaks off: nothing is half done."""
    if shown.output not in (Format.TABLE, Format.JSON):
        raise InputError(f"--watch shows a table, or JSON lines with -o json: -o {shown.output} is for a single round")
    _require_time(request, pace)
    code, latest = 0, _Latest()
    with _endpoints(latest, shown), verdicts.printer(as_json=shown.output is Format.JSON) as show:
        for report, usages in _rounds(request, pace):
            latest.report, latest.usages = report, usages
            show(report)
            shown.keep(report)
            code = shown.code(report)
    return code


def _require_time(request: "Request", pace: Pace) -> None:
    from cfscale.runtime.foresight import Depth

    slowest = max((target.health.timeout_seconds for target in request.source()), default=0.0)
    if slowest >= pace.interval_seconds:
        raise InputError(f"one answer may take {slowest:g} s: give an --interval above that, or a shorter --timeout")
    if request.depth >= Depth.PREDICTIVE and pace.interval_seconds > _LONGEST_PREDICTED:
        raise InputError("predictions need an answer a minute: give an --interval of 1m or less, or --no-predict")


def _rounds(request: "Request", pace: Pace) -> "Iterator[tuple[Report, dict[str, Usage]]]":
    """The rounds of a watch as they are published, with the usage of replicas by the names of their targets."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.cli.probing import loop_factory, survey
    from cfscale.core.trend import Tuning
    from cfscale.runtime.foresight import Depth, Foresight
    from cfscale.runtime.probing import watch

    first = tuple(request.source())
    asking, told = survey(request.policy, first), set[str]()
    foresight = Foresight(request.depth, Tuning.of(load_catalogue().rules))
    current: list[tuple[Target, ...]] = []

    def look() -> tuple[Target, ...]:
        current[:] = [tuple(request.source())]
        return current[0]

    factory = loop_factory(len(first))
    for found in watch(
        asking, look, interval_seconds=pace.interval_seconds, seconds=pace.seconds, loop_factory=factory
    ):
        usages = _usages(request, current[0])
        report = foresight.look(found.report, current[0], usages.values(), asking.clock.now())
        if request.depth >= Depth.PREDICTIVE:
            _tell_refusals(foresight.refusals, told)
        yield report, usages


def _usages(request: "Request", targets: tuple[Target, ...]) -> "dict[str, Usage]":
    replicas = [target.replica for target in targets if target.replica is not None]
    if request.usage is None or not replicas:
        return {}
    try:
        usages = {usage.replica: usage for usage in request.usage(replicas)}
    except (UnavailableError, ActionError):
        return {}  # health is told without it
    return {replica.name: usages[replica.id] for replica in replicas if replica.id in usages}


def _tell_refusals(refusals: dict[str, str], told: set[str]) -> None:
    """Say once of which targets nothing is predicted for good; that too little was seen yet passes by itself."""
    lasting = {name: why for name, why in refusals.items() if why and not why.endswith("seen") and name not in told}
    for name, why in list(lasting.items())[:_REFUSALS_SHOWN]:
        console.note(f"no predictions for {name}: {why}")
    if len(lasting) > _REFUSALS_SHOWN:
        console.note(f"no predictions for {len(lasting) - _REFUSALS_SHOWN} more targets, for the same reason")
    told |= lasting.keys()


class _Latest:
    """What the endpoints tell of: the latest round, and what each balancer was told of a server before."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.usages: dict[str, Usage] = {}
        self._told: dict[str, str] = {}

    def metrics(self) -> str:
        """The metrics of the latest round; none before the first."""
        from cfscale.cli.exposition import as_prometheus

        return "" if self.report is None else as_prometheus(self.report) + "\n"

    def agent_line(self, name: str) -> str:
        """The line for one server; without a name, for the only one there is. Empty where that says nothing."""
        from cfscale.core.agent import agent_line, free_percent

        results = self.report.results if self.report else ()
        mine = [result for result in results if name in (result.target, "")]
        if len(mine) != 1:
            return ""
        line = agent_line(mine[0], free_percent(self.usages.get(mine[0].target)), self._told.get(mine[0].target, ""))
        self._told[mine[0].target] = line.partition(" ")[0]
        return line


@contextmanager
def _endpoints(latest: _Latest, shown: Shown) -> Iterator[None]:
    from cfscale.cli.endpoints import address_of, agent, metrics

    with ExitStack() as stack:
        if shown.serve is not None:
            host, asked = address_of(shown.serve, "--serve")
            port = stack.enter_context(metrics((host, asked), latest.metrics))
            console.note(f"metrics: http://{host}:{port}/metrics")
        if shown.agent_check is not None:
            host, asked = address_of(shown.agent_check, "--agent-check")
            port = stack.enter_context(agent((host, asked), latest.agent_line))
            console.note(f"agent checks: {host}:{port}; agent-send names the replica")
        yield
