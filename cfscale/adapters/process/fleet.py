"""The slots of a deployment by service: how many are wanted, which go, and in which order all of them stop."""

from collections.abc import Iterator, Mapping, Sequence

from cfscale.adapters.process.balancer import Rotate, Server, slot_count
from cfscale.adapters.process.launch import Surroundings
from cfscale.adapters.process.recipes import Recipes, stop_rank
from cfscale.adapters.process.slot import NEVER, Phase, Slot
from cfscale.core.samples import ReplicaState
from cfscale.errors import ActionError

# long enough for a client that lists the replicas every half second to notice
UNLISTED_SECONDS = 1.0


class Fleet:
    """All replicas. Counts are absolute; replicas that leave are not counted."""

    def __init__(self, recipes: Recipes, around: Surroundings) -> None:
        self._recipes, self._around = recipes, around
        self._slots: list[Slot] = []

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def of(self, service: str) -> list[Slot]:
        """The replicas of a service that are to stay."""
        return [slot for slot in self._slots if slot.service == service and not slot.leaving]

    def bring_up(self, counts: Mapping[str, int], now: float) -> None:
        """Set the counts of several services and give replicas in a crash loop another try."""
        for recipe in self._recipes.items:
            name = recipe.service.name
            if name in counts:
                self.set_count(name, counts[name], (), now)
            for slot in self.of(name):
                slot.retry(now)

    def set_count(self, service: str, count: int, victims: Sequence[str], now: float) -> None:
        """Start or drain replicas until ``count`` stay; raises ActionError and changes nothing if that cannot be."""
        recipe = self._recipes.get(service)
        if recipe is None:
            raise ActionError(f"{service} is not run by this supervisor")
        if not 0 <= count <= recipe.limit:
            raise ActionError(f"{service}: {count} replicas are not within 0 and {recipe.limit}")
        staying = self.of(service)
        for slot in self._leavers(staying, len(staying) - count, victims):
            slot.drain(now, self._drain_seconds(slot), watched=self._watched(slot))
        for _ in range(count - len(staying)):
            self._slots.append(Slot(recipe, self._free_number(service), self._around, now))

    def _leavers(self, staying: list[Slot], excess: int, victims: Sequence[str]) -> list[Slot]:
        if excess <= 0:
            return []
        if not victims:
            return staying[-excess:]
        by_identity = {slot.identity: slot for slot in staying}
        chosen = [by_identity[victim] for victim in victims if victim in by_identity]
        if len(chosen) < excess:
            raise ActionError(f"{excess - len(chosen)} of the replicas to be stopped are no longer there: look again")
        return chosen[:excess]

    def _free_number(self, service: str) -> int:
        taken = {slot.number for slot in self._slots if slot.service == service}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def _drain_seconds(self, slot: Slot) -> float:
        """How long a replica may stay out of rotation before SIGTERM; where nobody says when it is idle, not long."""
        told = self._watched(slot) or not slot.done
        return slot.recipe.service.drain_limit_seconds if told else UNLISTED_SECONDS

    def _watched(self, slot: Slot) -> bool:
        """Whether the balancer says when a replica holds no request any more."""
        return self._recipes.balanced and bool(slot.recipe.service.routes)

    def stop_next(self, now: float) -> None:
        """Stop the replicas that are next in the order of stopping, once those before them are gone."""
        while self._slots:
            rank = min(stop_rank(slot.service) for slot in self._slots)
            for slot in [slot for slot in self._slots if stop_rank(slot.service) == rank]:
                slot.stop(now)
            if not self._forget_gone():
                return

    def tick(self, now: float) -> None:
        """Do what is due in every slot and forget those that are gone."""
        for slot in self._slots:
            slot.tick(now)
        self._forget_gone()

    def _forget_gone(self) -> bool:
        staying = [slot for slot in self._slots if slot.phase is not Phase.GONE]
        changed = len(staying) < len(self._slots)
        self._slots = staying
        return changed

    def next_due(self) -> float:
        """When a slot has something to do next."""
        return min((slot.next_due() for slot in self._slots), default=NEVER)

    def servers(self) -> dict[str, Server]:
        """What the balancer's server slots should be, by ``backend/server``."""
        routed = [slot for slot in self._slots if slot.recipe.service.routes and slot.service != "loadbalancer"]
        return {
            f"{slot.service}/{slot.name}": _server(slot)
            for slot in routed
            if slot.number <= slot_count(slot.recipe.service)
        }


def _server(slot: Slot) -> Server:
    if slot.phase is Phase.DRAINING:
        return Server(Rotate.DRAIN, slot.port)
    ready = slot.phase is Phase.RUNNING and slot.state is ReplicaState.READY
    return Server(Rotate.READY if ready else Rotate.MAINT, slot.port)
