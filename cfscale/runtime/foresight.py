"""What a round says about what comes next: an answer that is fine today becomes DEGRADED where a limit is in sight.

    comprehensive   replicas that are started again and again
    predictive      and latencies, memory and disks on their way to their limits

Only what is UP is ever made DEGRADED, with the estimate and its interval in the reason; never DOWN, never UNKNOWN.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from msgspec.structs import replace

from cfscale.core.health import Report, Result, State, Target, report
from cfscale.core.samples import Usage
from cfscale.core.trend import Outlook, Prediction, exhausted, restarting

_POINTS = 120
_HORIZON_SECONDS = 24 * 3600.0
_RESTART_WINDOW_SECONDS, _RESTARTS = 600.0, 2


class Depth(IntEnum):
    """How much a tier wants to know of health: the words of its ``health_checks``."""

    ENABLED = 1
    COMPREHENSIVE = 2
    PREDICTIVE = 3


@dataclass(slots=True)
class Foresight:
    """Remembers rounds, one after the other; ``refusals`` says of which targets nothing is predicted, and why."""

    depth: Depth
    refusals: dict[str, str] = field(default_factory=dict)
    _outlooks: dict[str, Outlook] = field(default_factory=dict)
    _restarts: dict[str, deque[tuple[float, int]]] = field(default_factory=dict)
    _used: dict[tuple[str, str], deque[tuple[float, float]]] = field(default_factory=dict)
    _latest: dict[str, Prediction] = field(default_factory=dict)

    def look(self, found: Report, targets: Sequence[Target], usages: Iterable[Usage], at: float) -> Report:
        """The report in the light of what was seen before; ``at`` is in seconds since the epoch."""
        known = {target.name: target for target in targets}
        by_id = {usage.replica: usage for usage in usages}
        results = tuple(self._result(result, known.get(result.target), by_id, at) for result in found.results)
        self._forget(known.keys())
        return report(results, found.panic)

    def _result(self, result: Result, target: Target | None, usages: Mapping[str, Usage], at: float) -> Result:
        if target is None:
            return result
        warnings = [self._restarting(target, at)] if self.depth >= Depth.COMPREHENSIVE else []
        soonest: Prediction | None = None
        if self.depth >= Depth.PREDICTIVE:
            usage = usages.get(target.replica.id) if target.replica else None
            found = [self._latency(result, target, at), *self._exhaustion(target.name, usage, at)]
            predictions = sorted((one for one in found if one), key=lambda one: one.eta_seconds)
            warnings += [one.text for one in predictions]
            soonest = predictions[0] if predictions else None
        said = "; ".join(warning for warning in warnings if warning)
        if not said or result.state is not State.UP:
            return result
        eta = soonest.eta_seconds if soonest else None
        return replace(result, state=State.DEGRADED, reason=f"{result.reason}; {said}", predicted_seconds=eta)

    def _restarting(self, target: Target, at: float) -> str:
        if target.replica is None:
            return ""
        seen = self._restarts.setdefault(target.name, deque(maxlen=_POINTS))
        seen.append((at, target.replica.restarts))
        return restarting(seen, _RESTART_WINDOW_SECONDS, _RESTARTS)

    def _latency(self, result: Result, target: Target, at: float) -> Prediction | None:
        if result.latency_seconds is None or result.state not in (State.UP, State.DEGRADED):
            return self._latest.get(target.name)
        outlook = self._outlooks.get(target.name)
        if outlook is None:
            outlook = self._outlooks[target.name] = Outlook(target.health.timeout_seconds)
        if outlook.add(at, result.latency_seconds):
            self.refusals[target.name] = outlook.refusal
            found = outlook.predict()
            if found is None:
                self._latest.pop(target.name, None)
            else:
                self._latest[target.name] = found
        return self._latest.get(target.name)

    def _exhaustion(self, name: str, usage: Usage | None, at: float) -> list[Prediction | None]:
        if usage is None:
            return []
        found = []
        if usage.memory_bytes is not None and usage.memory_limit_bytes:
            used = float(usage.memory_bytes - usage.reclaimable_bytes)
            found.append(self._full(name, "memory", (at, used), float(usage.memory_limit_bytes)))
        if usage.disk_ratio is not None:
            found.append(self._full(name, "the disk", (at, usage.disk_ratio), 1.0))
        return found

    def _full(self, name: str, what: str, point: tuple[float, float], limit: float) -> Prediction | None:
        seen = self._used.setdefault((name, what), deque(maxlen=_POINTS))
        seen.append(point)
        return exhausted(what, tuple(seen), limit, _HORIZON_SECONDS)

    def _forget(self, names: Iterable[str]) -> None:
        """Drop what is known of targets that have gone."""
        there = set(names)
        for memory in (self.refusals, self._outlooks, self._restarts, self._latest):
            for name in [name for name in memory if name not in there]:
                del memory[name]
        self._used = {key: seen for key, seen in self._used.items() if key[0] in there}
