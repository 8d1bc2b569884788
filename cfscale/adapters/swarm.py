"""The engine ``swarm``: ``docker stack`` and ``docker service`` act, the manager's API is asked what came of it.

    up     ─▶ label nodes ─▶ docker stack deploy (manifest, live counts) ─▶ settled? else ActionError
    grow   ─▶ docker service scale ─▶ as many containers run? else back to those that do, and ActionError
    shrink ─▶ docker service scale ─▶ the manager chooses who goes ─▶ gone within the grace period? else ActionError

Counts are absolute and the manager's list is their record. What cannot be placed or started is read from the tasks that
ended, not waited for.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from cfscale.adapters.command import gist, run
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.core.stack import Before, Patience, StackService, befores, has_run, problem, standing, undone
from cfscale.core.swarm import HERE, keepers, pin_label, places
from cfscale.errors import ActionError

MANIFEST = "stack.yaml"
_VARIABLES = ".env"
# what joins the members of a service, once they are there
_JOBS = {"memory": "memory-form"}
_SECRETS_VARIABLE = "CFSCALE_SECRETS"
_COMMAND_SECONDS = 120.0
_UP_SECONDS = 900.0  # images may have to be pulled, and an update goes replica by replica
_GROW_SECONDS = 300.0
_DOWN_SECONDS = 120.0
_POLL_SECONDS = 0.2
# a place may become free when another task has gone; what starts before the queue is there ends a few times
_PATIENCE = Patience(placing_seconds=10.0, most_refused=2, most_failed=5)


class Manager(Protocol):
    """What is asked of the API of a swarm's manager."""

    def cluster(self) -> str:
        """The swarm's own id; raises UnavailableError soon where the engine is no manager or does not answer."""
        ...

    def services(self, stack: str) -> dict[str, StackService]:
        """The services of a stack with their tasks."""
        ...

    def tasks(self, stack: str, ports: Mapping[str, int]) -> tuple[Replica, ...]:
        """The tasks of the services in ``ports``, as replicas."""
        ...

    def nodes(self) -> dict[str, frozenset[str]]:
        """The usable nodes, with the names of their labels."""
        ...

    def label(self, node: str, label: str, value: str | None) -> None:
        """Put a label on a node, or take it off."""
        ...

    def left(self, stack: str, *, volumes: bool) -> tuple[str, ...]:
        """What there still is of a stack, in words."""
        ...

    def remove_volumes(self, stack: str) -> None:
        """Remove its volumes on this node."""
        ...

    def drop_unused(self, stack: str) -> None:
        """Remove its configs and secrets that nothing uses any more."""
        ...


Reader = Callable[[Sequence[Replica]], tuple[Usage, ...]]


class SwarmEngine:
    """Runs a plan as the Swarm stack of its name, from the manifest in ``folder``.

    ``readers`` measure usage on this node: what the first leaves out the next is asked for. ``progress`` is given what
    there is to tell.
    """

    def __init__(
        self,
        plan: DeploymentPlan,
        folder: Path,
        manager: Manager,
        *,
        readers: Sequence[Reader] = (),
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._manager = manager
        self._readers = tuple(readers)
        self._progress = progress
        self._target = ""

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return "swarm"

    @property
    def target(self) -> str:
        """The swarm's own id and the stack: what a lock must be keyed on."""
        self._target = self._target or f"swarm:{self._manager.cluster()}:{self._plan.name}"
        return self._target

    @property
    def nodes(self) -> int:
        """How many nodes there are to place tasks on."""
        return len(self._manager.nodes())

    def up(self, counts: Mapping[str, int]) -> None:
        """Start every service with these counts (the plan's where none is given); what runs already is left alone."""
        if not (self._folder / MANIFEST).exists():
            raise ActionError(f"{self._folder / MANIFEST} is missing: run 'cfscale up' to render it")
        wanted = self._wanted(counts)
        self._label_nodes()
        before = befores(self._manager.services(self._plan.name))
        with _file_of(wanted) as scale:
            files = ("--compose-file", str(self._folder / MANIFEST), "--compose-file", str(scale))
            options = ("--prune", "--with-registry-auth")
            self._docker("stack", "deploy", *options, *files, self._plan.name)
        try:
            self._await(wanted, before, StackService.settled, _UP_SECONDS)
            self._await(self._jobs(), before, _has_ended, _UP_SECONDS)
        except ActionError as error:
            if before or has_run(self._manager.services(self._plan.name).values()):
                raise ActionError(f"{error}: see 'docker stack ps {self._plan.name}'") from error
            self._remove()
            raise ActionError(f"{error}; nothing was left running") from error
        self._manager.drop_unused(self._plan.name)

    def _wanted(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Counts of the stack's services: each member is a service of its own."""
        return {
            name: 1 if service.members else counts.get(service.name, service.replicas)
            for name, service in self._plan.parts.items()
        }

    def _jobs(self) -> dict[str, int]:
        """What runs once and must have ended before the stack can be used."""
        return {job: 1 for name, job in _JOBS.items() if self._plan.find(name) is not None}

    def _label_nodes(self) -> None:
        """Give what keeps data a node, where it has none yet."""
        labels = [pin_label(self._plan, name) for name in keepers(self._plan)]
        for label, node in places(labels, self._manager.nodes()).items():
            self._manager.label(node, label, HERE)
            self._progress(f"node {node}: label {label}={HERE}")

    def down(self, *, volumes: bool) -> None:
        """Remove the stack, each task within its grace period; with ``volumes`` also those of this node."""
        self._remove()
        if volumes:
            self._manager.remove_volumes(self._plan.name)
            for name in keepers(self._plan):
                self._unlabel(pin_label(self._plan, name))

    def _remove(self) -> None:
        self._docker("stack", "rm", self._plan.name)
        grace = max(service.stop_grace_seconds for service in self._plan.services)
        if left := self._gone(time.monotonic() + _DOWN_SECONDS + grace):
            raise ActionError(f"docker stack rm left {', '.join(left)}: see 'docker stack ps {self._plan.name}'")

    def _gone(self, deadline: float) -> tuple[str, ...]:
        """What is left of the stack after a while, at best nothing."""
        while (left := self._manager.left(self._plan.name, volumes=False)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return left

    def _unlabel(self, label: str) -> None:
        for node, labels in self._manager.nodes().items():
            if label in labels:
                self._manager.label(node, label, None)

    def replicas(self) -> tuple[Replica, ...]:
        """Every task of the plan's services that is meant to run or is on its way out."""
        owner = self._plan.parts
        self._manager.cluster()
        found = self._manager.tasks(self._plan.name, {name: service.port for name, service in owner.items()})
        return tuple(replace(one, service=owner[one.service].name) for one in found)

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """Usage since the previous call, of the tasks of this node, which have a process; one that is paused is left out."""
        found: list[Usage] = []
        rest = [one for one in replicas if one.pid is not None and one.state is not ReplicaState.PAUSED]
        for read in self._readers:
            found += read(rest)
            known = {usage.replica for usage in found}
            rest = [one for one in rest if one.id not in known]
        return tuple(found)

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count``; where that cannot be had, back to those that run, and ActionError."""
        before = befores(self._manager.services(self._plan.name))
        self._scale(service.name, count)
        try:
            self._await({service.name: count}, before, _has_started, _GROW_SECONDS)
        except ActionError as error:
            running = self._manager.services(self._plan.name)[service.name].started
            self._scale(service.name, running)
            raise ActionError(f"{error}; {running} stay") from error

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Leave ``count`` replicas. The manager chooses who goes, whoever the victims; each gets its grace period."""
        del victims
        before = befores(self._manager.services(self._plan.name))
        self._scale(service.name, count)
        seconds = service.stop_grace_seconds + _COMMAND_SECONDS
        self._await({service.name: count}, before, _has_shrunk, seconds)

    def _scale(self, name: str, count: int) -> None:
        self._docker("service", "scale", "--detach", f"{self._plan.name}_{name}={count}")

    def _await(
        self,
        wanted: Mapping[str, int],
        before: Mapping[str, Before],
        done: Callable[[StackService, int], bool],
        seconds: float,
    ) -> None:
        """Return once all is done; raises ActionError as soon as it is clear that it will not be, or after a time."""
        started = time.monotonic()
        while True:
            services, waited = self._manager.services(self._plan.name), time.monotonic() - started
            waiting = [name for name in wanted if not _done(services.get(name), wanted[name], before.get(name), done)]
            if not waiting:
                return
            for name in waiting:
                if why := _verdict(services.get(name), before.get(name, Before()), waited, seconds):
                    raise ActionError(f"{name}: {_running(services, name)} of {wanted[name]} replicas run: {why}")
            time.sleep(_POLL_SECONDS)

    def _tell(self, line: str) -> None:
        """Pass on what the client says, but for what it says of its own coming versions."""
        if line and "--detach" not in line and "future release" not in line:
            self._progress(line)

    def _docker(self, *words: str) -> None:
        """Run one command of the client; raises UnavailableError without client or engine, else ActionError."""
        self._manager.cluster()  # an engine that hangs would hang the command too
        variables = {_SECRETS_VARIABLE: _checksum(self._folder / "secrets")}
        folder = self._folder if self._folder.is_dir() else Path("/")
        code, said = run(("docker", *words), folder, _COMMAND_SECONDS, self._tell, variables)
        if code < 0:
            raise ActionError(
                f"docker {words[0]} {words[1]} did not end within {_COMMAND_SECONDS:.0f} s and was stopped"
            )
        if code > 0:
            self._manager.cluster()
            raise ActionError(f"docker {words[0]} {words[1]} failed: {gist(said)}")


def _done(
    service: StackService | None, count: int, before: Before | None, done: Callable[[StackService, int], bool]
) -> bool:
    """Whether a service is as wanted; one whose update was taken back runs well, but not as wanted."""
    return service is not None and done(service, count) and not undone(service, before or Before())


def _running(services: Mapping[str, StackService], name: str) -> int:
    return services[name].running if name in services else 0


def _has_started(service: StackService, count: int) -> bool:
    return service.replicas == service.started == count


def _has_ended(service: StackService, _count: int) -> bool:
    return service.completed


def _has_shrunk(service: StackService, count: int) -> bool:
    return service.replicas == count and service.started + service.leaving <= count


def _verdict(service: StackService | None, before: Before, waited: float, seconds: float) -> str:
    """Why to give a service up, empty for: not yet."""
    found = undone(service, before) or problem(service, before, waited, _PATIENCE) if service else ""
    if found or waited < seconds:
        return found
    return f"{standing(service) if service else 'there is no such service'}, after {seconds:.0f} s"


@contextmanager
def _file_of(counts: Mapping[str, int]) -> Iterator[Path]:
    """A second stack file with nothing but counts: the manifest stays as it was rendered."""
    services = {name: {"deploy": {"replicas": count}} for name, count in counts.items()}
    with tempfile.NamedTemporaryFile("w", prefix="cfscale-", suffix=".yaml", encoding="utf-8") as file:
        json.dump({"version": "3.9", "services": services}, file)  # JSON is YAML
        file.flush()
        yield Path(file.name)


def _checksum(folder: Path) -> str:
    """A name for the secrets as they are now: Swarm cannot change one, so another content is another secret."""
    whole = hashlib.sha256()
    files = sorted(folder.iterdir()) if folder.is_dir() else ()
    for path in files:
        if path.is_file() and path.suffix != _VARIABLES and not path.name.startswith("."):
            whole.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()[:12]
