"""The replay as one self-contained HTML page: demand, capacity and the moments of decisions drawn, no script, no asset."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from cfscale.cli.chart import CHART, points
from cfscale.core.simulate import Model, Run, Score
from cfscale.core.units import format_duration

_COLUMNS = 400  # places for marks: decisions nearer to each other share one
_BAND = 10  # height of a row of marks below the picture
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 0 0 1.5rem } th, td { padding: .2rem .9rem; text-align: right }
th { border-bottom: 2px solid #1c2733; vertical-align: bottom } td + td { white-space: nowrap }
td:first-child, th:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; min-width: 5.5em }
figure { margin: 0 0 1.5rem } figcaption { display: flex; justify-content: space-between; font-size: .85rem; color: #56646f }
svg { width: 100%; height: 13rem; background: #f6f8fa; display: block } svg * { vector-effect: non-scaling-stroke }
.demand { fill: #9db4c8; stroke: none } .ready { fill: none; stroke: #0b5cad; stroke-width: 1.5 }
.billed { fill: none; stroke: #d98b1f; stroke-width: 1; stroke-dasharray: 3 3 }
.grow { stroke: #b3261e; stroke-width: 1.2 } .shrink { stroke: #2c7a3f; stroke-width: 1.2 }
h2 { overflow-wrap: anywhere } h3 { margin: 0; font-size: 1rem } p { margin: .2rem 0 1rem }
.key { display: inline-block; margin-right: .9em } .key i { display: inline-block; width: .8em; height: .8em; margin-right: .3em }
@media (max-width: 40rem) { body { font-size: 13px } th, td { padding: .15rem .3rem } svg { height: 9rem } }
"""
_KEYS = (
    ("demand", "#9db4c8"),
    ("ready replicas", "#0b5cad"),
    ("replicas paid for", "#d98b1f"),
    ("decision to grow", "#b3261e"),
    ("decision to shrink", "#2c7a3f"),
)


def page(rows: Sequence[tuple[Score, Run]], model: Model, peak_replicas: float) -> str:
    """The page of all results; ``rows`` of a trace stand together."""
    parts = [_trace(name, list(group), model) for name, group in groupby(rows, key=lambda row: row[0].trace)]
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>cfscale simulate</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>cfscale simulate</h1>\n<p>One step is {model.step_seconds:g} s, a replica takes {model.startup_seconds:g} s to be "
        f"ready, a metric is {model.lag_seconds:g} s old; the 99.9th percentile of demand is {peak_replicas:g} replicas."
        f"</p>\n<p>{''.join(_key(*key) for key in _KEYS)}</p>\n"
        f"{''.join(parts)}</body></html>\n"
    )


def _key(name: str, colour: str) -> str:
    return f'<span class="key"><i style="background: {colour}"></i>{name}</span>'


def _trace(name: str, rows: Sequence[tuple[Score, Run]], model: Model) -> str:
    head = "".join(f"<th>{word}</th>" for word in ("policy", "short of replicas", "load lost", "cost", "actions a day"))
    body = "".join(f"<tr>{_cells(result)}</tr>" for result, _ in rows)
    most = max(max(*run.demand, *run.billed) for _, run in rows) * 1.05
    pictures = "".join(f"<h3>{escape(result.policy)}</h3>\n{_figure(run, most, model)}" for result, run in rows)
    return f"<h2>{escape(name)}</h2>\n<table><tr>{head}</tr>{body}</table>\n{pictures}"


def _cells(result: Score) -> str:
    values = (
        escape(result.policy),
        f"{100 * result.under_ratio:.3f} %",
        f"{100 * result.lost_ratio:.3f} %",
        f"{result.cost_ratio:.3f}",
        f"{result.actions_per_day:.1f}",
    )
    return "".join(f"<td>{value}</td>" for value in values)


def _figure(run: Run, most: float, model: Model) -> str:
    lasts = format_duration(len(run.demand) * model.step_seconds)
    return f"<figure>{_picture(run, most)}<figcaption><span>0 to {most:.0f} replicas</span><span>{lasts}</span></figcaption></figure>\n"


def _picture(run: Run, most: float) -> str:
    """Demand and capacity, and below them a row of marks where the policy asked for more, and one where for fewer."""
    width, height = CHART
    return (
        f'<svg viewBox="0 0 {width} {height + 2 * _BAND}" role="img" preserveAspectRatio="none">'
        f'<polygon class="demand" points="0,{height} {points(run.demand, most)} {width},{height}"/>'
        f'<polyline class="billed" points="{points(run.billed, most)}"/>'
        f'<polyline class="ready" points="{points(run.ready, most, lowest=True)}"/>'
        f'<path class="grow" d="{_marks(run, 1, height)}"/><path class="shrink" d="{_marks(run, -1, height + _BAND)}"/></svg>'
    )


def _marks(run: Run, sign: int, top: int) -> str:
    """A stroke for each column in which the wanted count moved in this direction."""
    steps = len(run.wanted)
    moved = (step for step in range(1, steps) if sign * (run.wanted[step] - run.wanted[step - 1]) > 0)
    columns = sorted({step * _COLUMNS // steps for step in moved})
    return "".join(f"M{(column + 0.5) * CHART[0] / _COLUMNS:g} {top + 1}v{_BAND - 2}" for column in columns)
