"""The replay as one self-contained HTML page: demand, capacity and the moments of decisions drawn, no script, no asset."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from cfscale.cli.chart import CHART, points
from cfscale.core.simulate import Model, Run, Score

_MARKS = 400  # more decisions than that in one picture are a smear
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; margin: 0 0 1.5rem } th, td { padding: .2rem .9rem; text-align: right }
th { border-bottom: 2px solid #1c2733 } td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto; background: #f6f8fa; display: block; margin: 0 0 1.5rem }
.demand { fill: #9db4c8; stroke: none } .ready { fill: none; stroke: #0b5cad; stroke-width: 1.5 }
.billed { fill: none; stroke: #d98b1f; stroke-width: 1; stroke-dasharray: 3 3 } .act { stroke: #b3261e; stroke-width: .6 }
h3 { margin: 0; font-size: 1rem } p { margin: .2rem 0 1rem }
"""


def page(rows: Sequence[tuple[Score, Run]], model: Model, peak_replicas: float) -> str:
    """The page of all results; ``rows`` of a trace stand together."""
    parts = [_trace(name, list(group)) for name, group in groupby(rows, key=lambda row: row[0].trace)]
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>cfscale simulate</title><style>{_STYLE}</style></head><body>\n'
        f"<h1>cfscale simulate</h1>\n<p>One step is {model.step_seconds:g} s, a replica takes {model.startup_seconds:g} s to be "
        f"ready, a metric is {model.lag_seconds:g} s old; the 99.9th percentile of demand is {peak_replicas:g} replicas. "
        "Grey is demand, blue the replicas that are ready, orange those paid for, red marks decisions.</p>\n"
        f"{''.join(parts)}</body></html>\n"
    )


def _trace(name: str, rows: Sequence[tuple[Score, Run]]) -> str:
    head = "".join(f"<th>{word}</th>" for word in ("policy", "short of replicas", "load lost", "cost", "actions a day"))
    body = "".join(f"<tr>{_cells(result)}</tr>" for result, _ in rows)
    most = max(max(*run.demand, *run.billed) for _, run in rows) * 1.05
    pictures = "".join(f"<h3>{escape(result.policy)}</h3>{_picture(run, most)}" for result, run in rows)
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


def _picture(run: Run, most: float) -> str:
    width, height = CHART
    changed = [step for step in range(1, len(run.wanted)) if run.wanted[step] != run.wanted[step - 1]]
    marks = "" if len(changed) > _MARKS else "".join(_mark(step / len(run.wanted) * width, height) for step in changed)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" preserveAspectRatio="none">'
        f'<polygon class="demand" points="0,{height} {points(run.demand, most)} {width},{height}"/>'
        f'<polyline class="billed" points="{points(run.billed, most)}"/>'
        f'<polyline class="ready" points="{points(run.ready, most, lowest=True)}"/>{marks}</svg>\n'
    )


def _mark(place: float, height: int) -> str:
    return f'<line class="act" x1="{place:.1f}" x2="{place:.1f}" y1="{height - 8}" y2="{height}"/>'
