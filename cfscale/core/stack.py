"""A stack as its Swarm manager shows it, and what follows: whether a service has settled, and if not, whether it will.

A task is one try to run one replica. Those that have ended are kept for a while: they say why a replica is not there.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

_ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "remove", "orphaned"})
_BROKEN = frozenset({"failed", "rejected"})
_STARTED = frozenset({"starting", "running"})
_NOT_BEGUN = "starting container failed"
_MEANT = frozenset({"running", "ready"})
_UPDATING = "updating"
_TAKEN_BACK = frozenset({"rollback_started", "rollback_paused", "rollback_completed", "paused"})


class Task(Struct, frozen=True):
    """One try to run one replica. ``current``: it runs what its service says now, not what it said before.

    ``state`` and ``desired`` are Swarm's words; ``trouble`` says why it does not run, ``container`` is empty before
    there is one.
    """

    id: str
    slot: int
    state: str
    desired: str
    since: float
    container: str = ""
    trouble: str = ""
    current: bool = True

    @property
    def wanted(self) -> bool:
        """Whether it is meant to run: nobody has asked it to go, and it has not ended."""
        return self.desired in _MEANT and self.state not in _ENDED

    @property
    def leaving(self) -> bool:
        """Whether it has been asked to go and has not gone yet."""
        return self.desired not in _MEANT and self.state in _STARTED

    @property
    def started(self) -> bool:
        """Whether its container runs, healthy or not yet."""
        return self.state in _STARTED

    @property
    def broken(self) -> bool:
        """Whether it ended by itself, or could not begin."""
        return self.state in _BROKEN

    @property
    def refused(self) -> bool:
        """Whether it could not begin: no image, a port that is taken. Nothing of it has run."""
        return self.state == "rejected" or (self.broken and self.trouble.startswith(_NOT_BEGUN))


class Update(Struct, frozen=True):
    """The last update of a service; ``started`` tells it from an earlier one."""

    state: str = ""
    started: str = ""
    message: str = ""


class StackService(Struct, frozen=True):
    """One service of a stack: how many replicas are asked for, its tasks, and its last update."""

    name: str
    replicas: int
    tasks: tuple[Task, ...]
    update: Update = Update()

    @property
    def running(self) -> int:
        """How many replicas run and are healthy, as far as the engine asks."""
        return sum(task.wanted and task.state == "running" for task in self.tasks)

    @property
    def started(self) -> int:
        """How many replicas have a container that runs, healthy or not yet."""
        return sum(task.wanted and task.started for task in self.tasks)

    @property
    def leaving(self) -> int:
        """How many tasks have been asked to go and have not gone."""
        return sum(task.leaving for task in self.tasks)

    @property
    def outdated(self) -> int:
        """How many replicas still run what the service said before."""
        return sum(task.wanted and not task.current for task in self.tasks)

    @property
    def completed(self) -> bool:
        """Whether a job, which runs once, has ended well as it is defined now."""
        return any(task.state == "complete" and task.current for task in self.tasks)

    def settled(self, count: int) -> bool:
        """Whether exactly so many replicas run, all of them as the service says now."""
        wanted = sum(task.wanted for task in self.tasks)
        return self.running == wanted == count and not self.outdated and self.update.state != _UPDATING


class Patience(Struct, frozen=True):
    """How long a task may be without a place, and how many tries of one replica may fail, before that is the answer."""

    placing_seconds: float
    most_refused: int
    most_failed: int


class Before(Struct, frozen=True):
    """What there was when an action began: what is older is not its doing."""

    ended: frozenset[str] = frozenset()
    update: str = ""

    @classmethod
    def of(cls, service: StackService | None) -> "Before":
        """What there is of a service now; nothing where it does not exist yet."""
        if service is None:
            return cls()
        return cls(frozenset(task.id for task in service.tasks if task.broken), service.update.started)


def befores(services: Mapping[str, StackService]) -> dict[str, Before]:
    """What there is of every service now."""
    return {name: Before.of(service) for name, service in services.items()}


def undone(service: StackService, before: Before) -> str:
    """That an update was taken back or stopped, and why, however well the service runs now; else empty."""
    update = service.update
    if update.started == before.update or update.state not in _TAKEN_BACK:
        return ""
    verb = "stopped" if update.state == "paused" else "taken back"
    return f"the update was {verb}: {_last_trouble(service, before) or update.message}"


def problem(service: StackService, before: Before, waited: float, patience: Patience) -> str:
    """What keeps a service from settling and will not mend itself, in words; empty while there is hope."""
    homeless = [task.trouble for task in service.tasks if task.wanted and not task.container and task.trouble]
    if homeless and waited >= patience.placing_seconds:
        return homeless[0]
    fresh = [task for task in service.tasks if task.broken and task.id not in before.ended]
    for refused, most in ((True, patience.most_refused), (False, patience.most_failed)):
        if refused and service.update.state == _UPDATING:
            continue  # the manager is about to take the update back: its verdict is the answer
        tries = Counter(task.slot for task in fresh if task.refused is refused)
        if tries and max(tries.values()) >= most:
            return _last_trouble(service, before)
    return ""


def has_run(services: Iterable[StackService]) -> bool:
    """Whether anything began and then failed: there are logs that say why."""
    return any(task.broken and not task.refused for service in services for task in service.tasks)


def _last_trouble(service: StackService, before: Before) -> str:
    fresh = [task for task in service.tasks if task.broken and task.id not in before.ended]
    return max(fresh, key=lambda task: task.since).trouble if fresh else ""


def standing(service: StackService) -> str:
    """Why it has not settled, for whoever gave up waiting: the newest trouble of a task, else how far it has come."""
    troubled = [task for task in service.tasks if task.trouble]
    if troubled:
        return max(troubled, key=lambda task: task.since).trouble
    return f"{service.started} started, {service.running} healthy" + (
        f", {service.leaving} leaving" if service.leaving else ""
    )
