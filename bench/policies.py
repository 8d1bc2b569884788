"""Scores of each policy on every trace of a folder, mean and worst, under one setting. Asserts nothing.

    python bench/policies.py [FOLDER] [--startup 300s] [--lag 60s] [--peak-replicas 6] [--from-the-start] [--per-trace]

``--from-the-start`` scores the first steps too: a policy that begins without any history.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cfscale.adapters.assets import load_catalogue
from cfscale.core import simulate
from cfscale.core.contenders import contender, numbers_of
from cfscale.core.settings import scaling_of
from cfscale.core.simulate import Model, Score, optimum, replay, score, static_peak
from cfscale.core.trace import demand_of, parse_trace
from cfscale.core.units import parse_duration
from cfscale.core.workload import Profile

POLICIES = (
    "default", "slo:0.2%", "slo:0.5%", "slo:1%", "resource", "predictive", "pool", "target:70%", "hpa", "hpa:80", "hpa:50",
    "hpa-linear", "nomad", "swarm", "seed", "seed:wait", "seed:step",
)  # fmt: skip
Job = tuple[Path, Model, float, bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "traces")
    parser.add_argument("--startup", default="120s")
    parser.add_argument("--lag", default="60s")
    parser.add_argument("--peak-replicas", type=float, default=20.0)
    parser.add_argument("--from-the-start", action="store_true")
    parser.add_argument("--per-trace", action="store_true")
    given = parser.parse_args()
    model = Model(startup_seconds=parse_duration(given.startup), lag_seconds=parse_duration(given.lag))
    jobs = [(path, model, given.peak_replicas, given.from_the_start) for path in sorted(given.folder.glob("*.csv"))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        scores = [one for found in pool.map(scored, jobs) for one in found]
    print(f"{len(jobs)} traces, start-up {given.startup}, lag {given.lag}, peak {given.peak_replicas:g} replicas")
    print("\n".join(table(scores)))
    if given.per_trace:
        print("\n".join(f"{one.trace:<24}{line(one.policy, [one])}" for one in scores))


def scored(job: Job) -> list[Score]:
    """The scores of all policies on one trace."""
    path, model, peak, everything = job
    if everything:
        simulate.warm_up = lambda _steps, _model: 0
    rules = load_catalogue().rules
    scaling, numbers = scaling_of(Profile(), rules), numbers_of(rules)
    demand = demand_of(parse_trace(path.read_text(), path.stem, str(path)), model.step_seconds, peak)
    best = optimum(demand, model)
    runs = {"optimum": best, "static-peak": static_peak(demand, model)}
    for name in POLICIES:
        runs[name] = replay(demand, contender(name, scaling, model, numbers)(), model)
    return [score(run, best, model, path.stem, name) for name, run in runs.items()]


def table(scores: list[Score]) -> Iterator[str]:
    yield f"{'policy':<14}{'under %':>9}{'worst':>8}{'lost %':>9}{'worst':>8}{'cost':>8}{'worst':>8}{'act/day':>9}{'worst':>8}"
    for name in dict.fromkeys(one.policy for one in scores):
        yield line(name, [one for one in scores if one.policy == name])


def line(name: str, scores: list[Score]) -> str:
    """Mean and worst of one policy."""
    columns = (
        [100 * one.under_ratio for one in scores],
        [100 * one.lost_ratio for one in scores],
        [one.cost_ratio for one in scores],
        [one.actions_per_day for one in scores],
    )
    cells = [f"{sum(values) / len(values):>9.3f}{max(values):>8.2f}" for values in columns]
    return f"{name:<14}{''.join(cells)}"


if __name__ == "__main__":
    main()
