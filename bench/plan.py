"""The planner: exact Erlang C against square-root staffing, and what the answers about a plan cost beside the plan.

CPU time, least of N rounds. Asserts nothing.
"""

import time
from collections.abc import Callable
from math import ceil, sqrt

from cfscale.adapters.assets import load_catalogue
from cfscale.core.queueing import minimal_servers, wait_probability
from cfscale.core.sensitivity import sensitivities
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.whatif import differences, with_changes
from cfscale.core.workload import Profile

ROUNDS = 5
# P(wait): the quantile that square-root staffing takes for it, a + q sqrt(a)
QUANTILES = {0.01: 2.375, 0.05: 1.761, 0.2: 1.16, 0.3: 1.0}
LOADS = [0.01 * (5000 / 0.01) ** (step / 399) for step in range(400)]
TOPS = {
    "single-user": (5, 50, 100),
    "team": (25, 250, 500),
    "department": (100, 1000, 2000),
    "enterprise": (1000, 10_000, 20_000),
}


def main() -> None:
    staffing()
    questions(load_catalogue())


def staffing() -> None:
    print(f"square-root staffing over {len(LOADS)} loads from 0.01 to 5000 erlangs, against the exact minimum")
    print(f"{'P(wait)':>8}{'too few':>9}{'too many':>10}{'worst P(wait)':>15}{'most servers off':>18}")
    for target, quantile in QUANTILES.items():
        exact = {load: minimal_servers(load, target) for load in LOADS}
        rule = {load: ceil(load + quantile * sqrt(load)) for load in LOADS}
        few = sum(rule[load] < exact[load] for load in LOADS) / len(LOADS)
        many = sum(rule[load] > exact[load] for load in LOADS) / len(LOADS)
        worst = max(wait_probability(rule[load], load) / target for load in LOADS)
        off = max(abs(rule[load] - exact[load]) for load in LOADS)
        print(f"{target:>8}{few:>9.0%}{many:>10.0%}{f'{worst:.1f} x target':>15}{off:>18}")
    cost = least(lambda: [minimal_servers(load, 0.05) for load in LOADS]) / len(LOADS)
    print(f"one exact answer takes {cost * 1e6:.0f} us on average")


def questions(catalogue: Catalogue) -> None:
    print(
        f"\n{'at the top of':<14}{'plan ms':>9}{'what-if ms':>12}{'sensitivities ms':>18}{'both x plan':>13}   goal: both < 50 ms"
    )
    for tier, load in TOPS.items():
        plan, what_if, moved = asked(Profile(**dict(zip(("users", "agents", "tasks"), load, strict=True))), catalogue)
        print(f"{tier:<14}{plan * 1e3:9.2f}{what_if * 1e3:12.2f}{moved * 1e3:18.1f}{(what_if + moved) / plan:13.0f}")


def asked(profile: Profile, catalogue: Catalogue) -> tuple[float, float, float]:
    """CPU seconds of the plan, of a what-if beside it, and of all sensitivities."""
    base = size(profile, catalogue)
    return (
        least(lambda: size(profile, catalogue)),
        least(lambda: differences(base, size(with_changes(profile, "agents=+50%,tasks=+50%"), catalogue))),
        least(lambda: sensitivities(profile, catalogue)),
    )


def least(work: Callable[[], object]) -> float:
    """CPU seconds of the quickest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


if __name__ == "__main__":
    main()
