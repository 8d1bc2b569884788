"""One tick over many services, and a week of ticks: time, and memory that must not grow.

    python bench/tick.py [SERVICES] [DAYS]

Everything but the engine is real: decisions, the state file with its syncs, the journal, the lock. The clock of the week
is virtual. Asserts nothing.
"""

import gc
import math
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from msgspec.structs import replace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cfscale.adapters.journal import Journal  # noqa: E402
from cfscale.adapters.lock import Lock  # noqa: E402
from cfscale.adapters.state import State  # noqa: E402
from cfscale.core.plan import Policy  # noqa: E402
from cfscale.core.samples import Replica, Usage  # noqa: E402
from cfscale.runtime.act import Hands  # noqa: E402
from cfscale.runtime.watch import Scaler  # noqa: E402
from tests.fake_service import AGENTS, SCALING, FakeService, VirtualClock, a_plan, a_replica, a_usage  # noqa: E402

DAY = 86_400
WARM_UP = 400  # ticks: the journal's first lines are written, and a forecast decides


class Many:
    """An engine with two replicas of every service."""

    name = "process"
    target = "process:bench"

    def __init__(self, clock: VirtualClock, names: Sequence[str]) -> None:
        self.clock, self.turn = clock, 0
        self.members = tuple(
            replace(a_replica(number), id=f"{name}-{number}", name=f"{name}-{number}", service=name)
            for name in names
            for number in (1, 2)
        )

    def replicas(self) -> tuple[Replica, ...]:
        """All of them, ready."""
        return self.members

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """Half a core each, and now a little more, now less."""
        usage = a_usage(1, 0.5 + 0.1 * math.sin(self.clock.time / 600), 0.3, self.clock.time)
        return tuple(replace(usage, replica=one.id) for one in replicas)

    def up(self, counts: Mapping[str, int]) -> None:
        """Nothing is ever started."""
        raise NotImplementedError

    down = grow = shrink = up  # type: ignore[assignment]


def scaler_of(engine, services, folder: Path, lock: Lock, policy: str) -> Scaler:  # type: ignore[no-untyped-def]
    state, clock = State(folder), engine.clock
    state.create()
    hands = Hands(engine, clock, Journal(folder), lock)
    plan = replace(a_plan(AGENTS, replace(SCALING, policies=(Policy(policy),))), services=services)
    return Scaler(engine, plan, services, clock, state, print, hands)


def tick(count: int, folder: Path, lock: Lock, policy: str) -> None:
    """Ticks once everything is warm; in each, the forecasts of those services learn whose minute ends in it."""
    clock = VirtualClock()
    services = tuple(
        replace(AGENTS, name=f"agents-{number}", max_replicas=2, min_replicas=2) for number in range(count)
    )
    engine = Many(clock, [service.name for service in services])
    scaler = scaler_of(engine, services, folder, lock, policy)
    walls, spent = [], []
    for turn in range(WARM_UP + 60):
        wall, cpu = time.perf_counter(), time.process_time()
        decisions = sum(1 for _ in scaler.tick())
        if turn >= WARM_UP:
            walls.append(1000 * (time.perf_counter() - wall))
            spent.append(1000 * (time.process_time() - cpu))
        clock.time += 10
    print(f"one tick of {decisions} services, 2 replicas each, policy {policy}: CPU best {min(spent):.1f}, median "
          f"{median(spent):.1f}, most {max(spent):.1f} ms; wall median {median(walls):.1f} ms")  # fmt: skip


def week(days: float, folder: Path, lock: Lock) -> None:
    clock = VirtualClock()
    service = FakeService(clock, lambda now: 4 + 3.5 * math.sin(2 * math.pi * now / DAY), startup_seconds=20).start(3)
    scaler = scaler_of(service, (AGENTS,), folder, lock, "slo")
    changes = 0
    tracemalloc.start()
    print(f"{'day':>5}{'ticks':>9}{'changes':>9}{'traced KiB':>12}{'RSS MiB':>9}")
    mark = clock.time
    for ticks, decision in enumerate(scaler.watch(days * DAY), 1):
        service.calls.clear()
        changes += decision.applied
        if clock.time - mark >= DAY:
            mark = clock.time
            gc.collect()
            traced = tracemalloc.get_traced_memory()[0] / 1024
            rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{ticks * 10 // DAY:5}{ticks:9}{changes:9}{traced:12.0f}{rss:9.1f}", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    days = float(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with Lock("bench", command="bench", started_at="now", folder=folder) as lock:
            for policy in ("resource", "slo"):
                tick(count, folder / policy, lock, policy)
            week(days, folder / "week", lock)


if __name__ == "__main__":
    main()
