"""An engine whose replicas are ready when the prober says so, for scaling: its own word is only that they run.

    engine's replicas ─▶ asked, at most once a second ─▶ READY that is down: unhealthy    STARTING that is up: ready

What the prober cannot tell, and a group of which most went down at once, leave the engine's word as it is: a fault of
this host, or of the network, must not make a fleet look unhealthy.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from cfscale.core.health import ALIVE, State, Target
from cfscale.core.plan import Service
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.runtime.ports import Engine
from cfscale.runtime.probing import Round, Survey

FRESH_SECONDS = 1.0


@dataclass(slots=True)
class ProbedEngine:
    """Satisfies ``Engine``: everything is the engine's, but for the states of its replicas.

    ``survey`` gives what asks, good for one event loop; ``targets`` turns replicas into what there is to ask of them.
    """

    engine: Engine
    survey: Callable[[], Survey]
    targets: Callable[[Sequence[Replica]], Sequence[Target]]
    monotonic: Callable[[], float]
    _last: Round | None = None
    _asked: float | None = field(default=None)

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return self.engine.name

    @property
    def target(self) -> str:
        """What a lock must be keyed on."""
        return self.engine.target

    def up(self, counts: Mapping[str, int]) -> None:
        """Start every service."""
        self.engine.up(counts)

    def down(self, *, volumes: bool) -> None:
        """Stop and remove everything."""
        self.engine.down(volumes=volumes)

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica, in the state that the prober found it in."""
        found = self.engine.replicas()
        now = self.monotonic()
        if self._last is None or self._asked is None or now - self._asked >= FRESH_SECONDS:
            survey = replace(self.survey(), confirm_seconds=None)  # the next evaluation confirms
            self._last = asyncio.run(survey.round(self.targets(found), self._last))
            self._asked = self.monotonic()
        return judged(found, self._last)

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The usage of these replicas."""
        return self.engine.usage(replicas)

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count`` replicas."""
        self.engine.grow(service, count)

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Stop exactly these replicas."""
        self.engine.shrink(service, count, victims)


def judged(replicas: Sequence[Replica], found: Round) -> tuple[Replica, ...]:
    """The replicas in the states that a round gives them."""
    results = {result.target: result for result in found.report.results}

    def one(replica: Replica) -> Replica:
        result = results.get(replica.name)
        if result is None or replica.service in found.report.panic:
            return replica
        if replica.state is ReplicaState.READY and result.state is State.DOWN:
            return replace(replica, state=ReplicaState.UNHEALTHY, reason=f"probe: {result.reason}")
        if replica.state is ReplicaState.STARTING and result.state in ALIVE:
            return replace(replica, state=ReplicaState.READY, reason="")
        return replica

    return tuple(one(replica) for replica in replicas)
