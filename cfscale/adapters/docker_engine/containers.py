"""What the engine says of containers, typed, and as replicas.

The list is asked for every time; the details of a container (process, start, limits) only when it is new or has been
started again, which its network endpoints tell: each start gives it other ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cfscale.adapters.docker_engine.connection import LateError
from cfscale.core.samples import Replica, ReplicaState

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
# what ends by itself under such a policy is started again: what stays stopped was stopped, or could not be started
_STARTED_AGAIN = ("always", "unless-stopped")
_STATES = {
    "running": ReplicaState.READY,
    "paused": ReplicaState.PAUSED,
    # what a start that failed leaves behind; nothing starts it but the next attempt
    "created": ReplicaState.STOPPED,
    "restarting": ReplicaState.STARTING,
}
_NEVER = "0001-01-01T00:00:00Z"
_REASON_CHARACTERS = 120


class Endpoint(msgspec.Struct, rename="pascal"):
    """A container's place on one network."""

    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    ip_address: str = msgspec.field(default="", name="IPAddress")


class Networking(msgspec.Struct, rename="pascal"):
    """The networks of a container by their names on the engine."""

    networks: dict[str, Endpoint] | None = None


class Listed(msgspec.Struct, rename="pascal"):
    """A container as the list shows it."""

    id: str
    names: list[str] | None
    created: int
    state: str
    status: str
    labels: dict[str, str]
    network_settings: Networking | None = None

    @property
    def being_started(self) -> bool:
        """Whether the engine may be starting it: it tells nothing of a container until it has started it."""
        return self.state in ("created", "restarting")

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """Networks by name, without those that it is not attached to now."""
        networks = (self.network_settings and self.network_settings.networks) or {}
        return {name: endpoint for name, endpoint in networks.items() if endpoint.ip_address}


class HealthLog(msgspec.Struct, rename="pascal"):
    """What one health check printed."""

    output: str = ""


class HealthState(msgspec.Struct, rename="pascal"):
    """The last health checks, the newest last."""

    log: list[HealthLog] | None = None


class State(msgspec.Struct, rename="pascal"):
    """The process of a container; ``error`` is why the engine could not start it."""

    pid: int
    started_at: str
    health: HealthState | None = None
    finished_at: str = ""
    error: str = ""
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")


class RestartPolicy(msgspec.Struct, rename="pascal"):
    """What the engine does with a container that ended."""

    name: str = ""


class HostConfig(msgspec.Struct, rename="pascal"):
    """Limits; 0 and an empty text mean none."""

    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory: int = 0
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)


class Details(msgspec.Struct, rename="pascal"):
    """A container as its inspection shows it."""

    state: State
    host_config: HostConfig
    restart_count: int = 0

    @property
    def cpu_limit_cores(self) -> float | None:
        """The CPU limit; None where there is none."""
        host = self.host_config
        if host.nano_cpus:
            return host.nano_cpus / 1e9
        return host.cpu_quota / (host.cpu_period or 100_000) if host.cpu_quota > 0 else None


class Known(Struct, frozen=True):
    """Details and what was listed when they were asked for: as long as that stays the same, so do they; () stays never."""

    key: tuple[object, ...]
    details: Details


class Register:
    """Listed containers with their details, asked for through ``inspect`` (None: gone) no oftener than needed."""

    def __init__(self, inspect: Callable[[Listed], Details | None]) -> None:
        self._inspect = inspect
        self._known: dict[str, Known] = {}

    def details(self, listed: Iterable[Listed]) -> dict[str, Details]:
        """Details by id; a container that is gone meanwhile is left out.

        A start can last: its log's or its volume's server does not answer. One such container must not hide the others: it
        keeps the details of before, without a process, and no second one is waited for. Raises UnavailableError.
        """
        found: dict[str, Known] = {}
        late = False
        for one in sorted(listed, key=lambda one: one.being_started):
            try:
                known = self._one(one, late=late)
            except LateError:
                if not one.being_started:
                    raise
                late, known = True, self._one(one, late=True)
            if known is not None:
                found[one.id] = known
        self._known = found
        return {container: known.details for container, known in found.items()}

    def _one(self, listed: Listed, *, late: bool) -> Known | None:
        key = (state_of(listed), *sorted(endpoint.endpoint_id for endpoint in listed.endpoints.values()))
        known = self._known.get(listed.id)
        if known is not None and known.key == key and listed.endpoints:
            return known
        if late:
            return Known((), _unknown(known))
        details = self._inspect(listed)
        return None if details is None else Known(key, details)


def _unknown(before: Known | None) -> Details:
    """What is said of a container that the engine is busy with."""
    if before is None:
        return Details(State(pid=0, started_at=_NEVER), HostConfig())
    return replace(before.details, state=replace(before.details.state, pid=0))


def state_of(listed: Listed) -> ReplicaState:
    """The state from the words of the list, the result of a health check included."""
    state = _STATES.get(listed.state, ReplicaState.STOPPED)
    if state is not ReplicaState.READY:
        return state
    if "(unhealthy)" in listed.status:
        return ReplicaState.UNHEALTHY
    return ReplicaState.STARTING if "(health: starting)" in listed.status else state


def replica(listed: Listed, details: Details, port: int | None, networks: Sequence[str]) -> Replica:
    """A container as a replica; its address is on the first of the networks that it is on."""
    state = state_of(listed)
    ip = _address(listed.endpoints, networks)
    return Replica(
        id=listed.id,
        name=listed.names[0].lstrip("/") if listed.names else listed.id[:12],
        service=listed.labels[SERVICE],
        state=state,
        started_at=max(float(listed.created), datetime.fromisoformat(details.state.started_at).timestamp()),
        address=f"{ip}:{port}" if ip and port else None,
        pid=details.state.pid or None,
        restarts=details.restart_count,
        reason=_reason(listed, details, state),
        oom_killed_at=_oom_killed_at(details),
        by_hand=listed.state == "exited" and _started_again(details),
    )


def _started_again(details: Details) -> bool:
    return details.host_config.restart_policy.name in _STARTED_AGAIN and not details.state.error


def _oom_killed_at(details: Details) -> float | None:
    """When it was last killed for lack of memory: the engine remembers that over the restart which follows."""
    if not details.state.oom_killed:
        return None
    return datetime.fromisoformat(details.state.finished_at or details.state.started_at).timestamp()


def _address(endpoints: Mapping[str, Endpoint], networks: Sequence[str]) -> str | None:
    wanted = [name for name in networks if name in endpoints] or sorted(endpoints)
    return endpoints[wanted[0]].ip_address if wanted else None


def _reason(listed: Listed, details: Details, state: ReplicaState) -> str:
    """Why it is not ready, in the engine's words: the last health check's output, else a failed start, else the status."""
    if state is ReplicaState.READY:
        return ""
    log = (details.state.health and details.state.health.log) or []
    output = log[-1].output if log and state is ReplicaState.UNHEALTHY else details.state.error or listed.status
    return "".join(character for character in " ".join(output.split()) if character.isprintable())[:_REASON_CHARACTERS]
