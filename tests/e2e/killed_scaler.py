"""The scaler on real local processes that kills itself with -9 at the n-th point: killed_scaler.py STATE POINT.

A point is just before or just after anything that leaves a trace: a line of the journal, the state file, a growth, a
shrink. POINT 0 runs to the end. What the load is and which counts it asks for is said by STATE/load.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from cfscale.adapters.journal import Journal
from cfscale.adapters.lock import Lock
from cfscale.adapters.process import ProcessEngine
from cfscale.adapters.state import State
from cfscale.cli.scale import Clock
from cfscale.core.plan import Damping
from cfscale.core.samples import Quality, Usage
from cfscale.runtime.act import Hands
from cfscale.runtime.watch import Scaler
from tests.adapters.process_lab import plan_of, service
from tests.fake_service import SCALING

AGENTS = service(stop_grace_seconds=1.0, min_replicas=1, max_replicas=4)


def main(state: State, point: int) -> None:
    """Tick until nothing changes any more."""
    plan = plan_of(AGENTS)
    scaling = replace(SCALING, interval_seconds=1.0, scale_up=Damping(0, 0, 100, 4), scale_down=Damping(0, 0, 50, None))
    plan = replace(plan, scaling=scaling)
    fuse = Fuse(point)
    engine, clock = ProcessEngine(plan, state.folder, state.folder.parent), Clock()
    load = float((state.folder / "load").read_text())
    fuse.guard(engine, "grow", "shrink")
    engine.usage = lambda replicas: tuple(used(one.id, load / len(replicas), clock.now()) for one in replicas)  # type: ignore[method-assign]
    journal = Journal(state.folder)
    fuse.guard(journal, "write")
    fuse.guard(state, "remember")
    with Lock(engine.target, command="test", started_at="now") as lock:
        scaler = Scaler(engine, plan, (AGENTS,), clock, state, print, Hands(engine, clock, journal, lock))
        scaler.begin(tuple(journal.entries()))
        quiet = 0
        while quiet < 3:
            quiet = quiet + 1 if all(decision.action == "hold" for decision in scaler.tick()) else 0


def used(replica: str, cores: float, now: float) -> Usage:
    """A measurement as it would be under that load."""
    return Usage(replica, "test", now, 1.0, Quality.OK, min(1.0, cores), 1 << 20)


class Fuse:
    """Kills this process at the n-th point."""

    def __init__(self, point: int) -> None:
        self.left = point

    def burn(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def guard(self, thing: Any, *names: str) -> None:
        """Put a point before and after each of these methods."""
        for name in names:
            setattr(thing, name, self._guarded(getattr(thing, name)))

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            self.burn()
            result = method(*arguments, **more)
            self.burn()
            return result

        return call


if __name__ == "__main__":
    main(State(Path(sys.argv[1])), int(sys.argv[2]))
