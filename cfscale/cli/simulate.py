"""``cfscale simulate``: replay recorded load against scaling policies and score what each would have done."""

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from cfscale.cli import console
from cfscale.cli.chart import sparkline
from cfscale.cli.console import Output
from cfscale.cli.options import OutputOption
from cfscale.core.contenders import Contender, contender, numbers_of
from cfscale.core.settings import scaling_of
from cfscale.core.simulate import (
    OPTIMUM,
    SIMULATION_SCHEMA,
    STATIC,
    Model,
    Run,
    Score,
    Simulation,
    optimum,
    replay,
    score,
    static_peak,
)
from cfscale.core.trace import demand_of, parse_trace
from cfscale.core.workload import Profile, duration
from cfscale.errors import InputError

MAX_REPLICAS = 1e6
MAX_BYTES = 256 * 1024 * 1024
COLUMNS = ("trace", "policy", ">under %", ">lost %", ">cost", ">actions/day", "capacity")


def simulate(
    traces: Annotated[
        list[Path] | None,
        typer.Argument(metavar="TRACE...", help="CSV, Prometheus range JSON, or a journal.", show_default=False),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME", help="Whom to replay, repeatable; default and hpa unless given."),
    ] = None,
    startup: Annotated[str, typer.Option("--startup", metavar="120s", help="From order to ready.")] = "120s",
    step: Annotated[str, typer.Option("--step", metavar="60s", help="Time between two decisions.")] = "60s",
    lag: Annotated[str, typer.Option("--lag", metavar="60s", help="Age of the newest metric.")] = "60s",
    drain: Annotated[
        str, typer.Option("--drain", metavar="0s", help="What a replica that stops is still paid for.")
    ] = "0s",
    peak_replicas: Annotated[
        float, typer.Option("--peak-replicas", metavar="20", help="The 99.9th percentile of demand, in replicas.")
    ] = 20.0,
    tune: Annotated[
        bool, typer.Option("--tune", help="Search goals and windows on these traces; print those that none beats.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also draw the replay into one HTML page.")
    ] = None,
    scenarios: Annotated[
        list[Path] | None,
        typer.Option(
            "--assert", metavar="SCENARIO", help="Play a scenario (YAML) and check what it expects; repeatable."
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> int:
    """Replay recorded load against scaling policies: time and load short of replicas, cost, actions.

    Cost is in units of the optimum, which knows the future. Two rows stand beside the policies of each trace: the
    optimum, and the smallest constant count that is never short.

    Examples:   cfscale simulate week.csv

    cfscale simulate week.csv --policy default --policy hpa:80 --policy slo:1% --startup 300s -o json

    cfscale simulate week.csv --html week.html

    cfscale simulate --assert scenario.yaml
    """
    if scenarios:
        from cfscale.cli.scenarios import assert_all

        if traces:
            raise InputError(f"--assert plays scenarios, {traces[0]} is a trace: give one or the other")
        return assert_all(scenarios, output)
    if not traces:
        raise InputError("no trace is given: name a file with timestamp,value, or a scenario with --assert")
    model = _model(startup, step, lag, drain)
    if not (isfinite(peak_replicas) and 0 < peak_replicas <= MAX_REPLICAS):
        raise InputError(f"--peak-replicas {peak_replicas:g}: give a number of replicas above 0")
    if tune:
        _tune(Arena(model, peak_replicas, {}), traces, output)
        return 0
    arena = Arena(model, peak_replicas, _contenders(policy or ["default", "hpa"], model))
    rows = [row for path in traces for row in arena.rows(path)]
    if html is not None:
        _draw(html, rows, arena)
    if output is Output.TABLE:
        console.result(console.table(COLUMNS, [_cells(result, run) for result, run in rows]))
    else:
        console.document(arena.document([result for result, _ in rows]), output)
    return 0


def _draw(path: Path, rows: "Sequence[tuple[Score, Run]]", arena: "Arena") -> None:
    from cfscale.cli.page import page

    try:
        path.write_text(page(rows, arena.model, arena.peak_replicas), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give a file that can be written") from error


def _tune(arena: "Arena", paths: Sequence[Path], output: Output) -> None:
    """Print the candidates that none beats in short time, cost and actions together, and how to set them."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.core.tune import candidates, front, mean_score

    rules = load_catalogue().rules
    demands = {path.stem: arena.demand(path) for path in paths}
    best = {name: optimum(demand, arena.model) for name, demand in demands.items()}
    means, profiles = {}, {}
    for candidate in candidates(scaling_of(Profile(), rules), arena.model, numbers_of(rules)):
        console.note(f"trying {candidate.name}")
        scores = [
            score(replay(demand, candidate.make(), arena.model), best[name], arena.model, name, candidate.name)
            for name, demand in demands.items()
        ]
        means[candidate.name], profiles[candidate.name] = mean_score(scores, candidate.name), candidate.profile
    kept = front(means)
    if output is not Output.TABLE:
        console.document(arena.document([means[name] for name in kept]), output)
        return
    columns = (*COLUMNS[1:-1], "profile")
    rows = [(*_numbers(means[name]), profiles[name]) for name in kept]
    console.result(console.table(columns, rows))


def _model(startup: str, step: str, lag: str, drain: str) -> Model:
    model = Model(
        step_seconds=duration(step, 0.0, "--step"),
        startup_seconds=duration(startup, 0.0, "--startup"),
        lag_seconds=duration(lag, 0.0, "--lag"),
        drain_seconds=duration(drain, 0.0, "--drain"),
    )
    if model.step_seconds < 1:
        raise InputError(f"--step '{step}': give at least 1s")
    return model


def _contenders(names: Sequence[str], model: Model) -> "dict[str, Contender]":
    """What makes a scaler of each name; raises InputError for a name that is none."""
    from cfscale.adapters.assets import load_catalogue

    rules = load_catalogue().rules
    scaling, numbers = scaling_of(Profile(), rules), numbers_of(rules)
    return {name: contender(name, scaling, model, numbers) for name in dict.fromkeys(names)}


class Arena(Struct, frozen=True):
    """Under which conditions whom is set against each other."""

    model: Model
    peak_replicas: float
    contenders: "dict[str, Contender]"

    def document(self, results: Sequence[Score]) -> Simulation:
        """The results as they are published."""
        return Simulation(
            schema=SIMULATION_SCHEMA,
            step_seconds=self.model.step_seconds,
            startup_seconds=self.model.startup_seconds,
            lag_seconds=self.model.lag_seconds,
            peak_replicas=self.peak_replicas,
            results=tuple(results),
        )

    def demand(self, path: Path) -> list[float]:
        """The demand of a trace; raises InputError for a file that holds none."""
        return demand_of(parse_trace(_read(path), path.stem, str(path)), self.model.step_seconds, self.peak_replicas)

    def rows(self, path: Path) -> Iterator[tuple[Score, Run]]:
        """What each policy did on one trace, the two bounds first."""
        demand, name = self.demand(path), path.stem
        best = optimum(demand, self.model)
        for policy, run in ((OPTIMUM, best), (STATIC, static_peak(demand, self.model))):
            yield score(run, best, self.model, name, policy), run
        for policy, make in self.contenders.items():
            console.note(f"replaying {name} against {policy}")
            run = replay(demand, make(), self.model)
            yield score(run, best, self.model, name, policy), run


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a trace") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MiB: give a shorter trace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not text in UTF-8: give CSV, Prometheus JSON or a journal") from error


def _cells(result: Score, run: Run) -> tuple[str, ...]:
    return (result.trace, *_numbers(result), sparkline(run.ready))


def _numbers(result: Score) -> tuple[str, ...]:
    return (
        result.policy,
        f"{100 * result.under_ratio:.3f}",
        f"{100 * result.lost_ratio:.3f}",
        f"{result.cost_ratio:.3f}",
        f"{result.actions_per_day:.1f}",
    )
