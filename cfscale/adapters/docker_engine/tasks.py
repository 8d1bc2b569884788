"""What a Swarm manager says of services and tasks, typed, as ``core.stack`` knows them, and as replicas."""

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cfscale.adapters.docker_engine.containers import Details, Listed, state_of
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.stack import StackService, Task, Update

STACK = "com.docker.stack.namespace"
TASK = "com.docker.swarm.task.id"
_REASON_CHARACTERS, _STEP_CHARACTERS = 120, 60


class ContainerStatus(msgspec.Struct, rename="pascal"):
    """The container of a task, once it has one."""

    container_id: str = msgspec.field(default="", name="ContainerID")


class Status(msgspec.Struct, rename="pascal"):
    """How far a task has come."""

    timestamp: str
    state: str
    err: str = ""
    container_status: ContainerStatus = msgspec.field(default_factory=ContainerStatus)


class Template(msgspec.Struct, rename="pascal"):
    """What a task runs, as far as a change of it replaces tasks."""

    container_spec: dict[str, object] = {}
    resources: dict[str, object] = {}


class ListedTask(msgspec.Struct, rename="pascal"):
    """A task as the manager lists it."""

    id: str = msgspec.field(name="ID")
    service_id: str = msgspec.field(name="ServiceID")
    status: Status
    desired_state: str
    spec: Template
    slot: int = 0


class Replicated(msgspec.Struct, rename="pascal"):
    """How many replicas are asked for."""

    replicas: int = 0


class Mode(msgspec.Struct, rename="pascal"):
    """The mode of a service; other modes than this one are none of ours."""

    replicated: Replicated = msgspec.field(default_factory=Replicated)


class Asked(msgspec.Struct, rename="pascal"):
    """A service as it was asked for."""

    name: str
    task_template: Template
    mode: Mode = msgspec.field(default_factory=Mode)


class UpdateStatus(msgspec.Struct, rename="pascal"):
    """The last update of a service, running or over."""

    state: str = ""
    started_at: str = ""
    message: str = ""


class ListedService(msgspec.Struct, rename="pascal"):
    """A service as the manager lists it."""

    id: str = msgspec.field(name="ID")
    spec: Asked
    update_status: UpdateStatus = msgspec.field(default_factory=UpdateStatus)


def stack_services(stack: str, listed: list[ListedService], tasks: list[ListedTask]) -> dict[str, StackService]:
    """Services by their names within the stack."""
    found = {}
    for one in listed:
        name, update = one.spec.name.removeprefix(f"{stack}_"), one.update_status
        own = tuple(_task(task, one.spec.task_template) for task in tasks if task.service_id == one.id)
        found[name] = StackService(
            name, one.spec.mode.replicated.replicas, own, Update(update.state, update.started_at, update.message)
        )
    return found


def _task(listed: ListedTask, template: Template) -> Task:
    status = listed.status
    return Task(
        id=listed.id,
        slot=listed.slot,
        state=status.state,
        desired=listed.desired_state,
        since=datetime.fromisoformat(status.timestamp).timestamp(),
        container=status.container_status.container_id,
        trouble=_shortened("".join(c for c in " ".join(status.err.split()) if c.isprintable())),
        current=listed.spec == template,
    )


def _shortened(text: str) -> str:
    """The beginning says at which step it failed, the end why."""
    if len(text) <= _REASON_CHARACTERS:
        return text
    return f"{text.partition(':')[0][:_STEP_CHARACTERS]}: ...{text[-_REASON_CHARACTERS:]}"


class Local(Struct, frozen=True):
    """A container of this very node: as listed, inspected, and its address on the bridge that reaches it from here."""

    listed: Listed
    details: Details
    ip: str | None


def task_replicas(stack: str, service: StackService, containers: Mapping[str, Local], port: int) -> tuple[Replica, ...]:
    """The tasks of a service that are meant to run or are on their way out, as replicas.

    Of those on other nodes the manager knows no more than their state.
    """
    return tuple(
        _replica(
            f"{stack}_{service.name}.{task.slot}.{task.id[:12]}", service, task, containers.get(task.container), port
        )
        for task in service.tasks
        if task.wanted or task.leaving
    )


def _replica(name: str, service: StackService, task: Task, local: Local | None, port: int) -> Replica:
    state = _state(task, local)
    found = Replica(
        id=task.container or task.id,
        name=name,
        service=service.name,
        state=state,
        started_at=task.since,
        restarts=sum(other.slot == task.slot and other.broken for other in service.tasks),
        reason="" if state is ReplicaState.READY else task.trouble or task.state,
        vouched=True,
    )
    if local is None:
        return found
    return replace(
        found,
        started_at=datetime.fromisoformat(local.details.state.started_at).timestamp(),
        address=f"{local.ip}:{port}" if local.ip else None,
        pid=local.details.state.pid or None,
    )


def _state(task: Task, local: Local | None) -> ReplicaState:
    if task.leaving:
        return ReplicaState.DRAINING
    if task.state != "running":
        return ReplicaState.STARTING
    seen = ReplicaState.READY if local is None else state_of(local.listed)
    return ReplicaState.READY if seen is ReplicaState.STOPPED else seen  # the manager's word is the newer one
