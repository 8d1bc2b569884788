"""Targets that nobody wrote down: what an engine runs, and what a name stands for, looked up anew for every round.

    compose:NAME     the containers of a Compose project, stopped ones included
    stack:NAME       the tasks of a Swarm stack (asked of a manager)
    label:KEY[=V]    every container with this label
    dns:URL          every address that the URL's name has now
    ./FOLDER         the project that was rendered there

A container is asked of its engine (state and HEALTHCHECK). One with a label ``cfscale.probe`` is asked itself as well:
its value is a URL without a host, such as ``http://:8080/health``.
"""

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from cfscale.adapters.probes.resolver import lookup_addresses
from cfscale.adapters.probes.url import parse_target
from cfscale.core.health import Kind, Target, shown
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import InputError, UnavailableError

WORDS = ("compose:NAME", "stack:NAME", "label:KEY=VALUE", "dns:URL", "./FOLDER")
LABEL = "cfscale.probe"
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_STACK = "com.docker.stack.namespace"
_ONE_OFF = "com.docker.compose.oneoff=False"
_SOCKET = "/var/run/docker.sock"
_TIMEOUT_SECONDS = 3.0
_ANSWER_BYTES = 32 * 1024 * 1024
_MANIFESTS = ("compose.yaml", "stack.yaml")
_NAME = re.compile(r'^name:\s*["\']?([a-z0-9][a-z0-9_-]*)["\']?\s*$', re.MULTILINE)
_TASKS = {
    "running": ReplicaState.READY,
    "complete": ReplicaState.STOPPED,
    "shutdown": ReplicaState.STOPPED,
    "failed": ReplicaState.STOPPED,
    "rejected": ReplicaState.STOPPED,
    "orphaned": ReplicaState.STOPPED,
    "remove": ReplicaState.DRAINING,
}


def discover(what: str, timeout_seconds: float) -> tuple[Target, ...]:
    """The targets of one source (see above) now. Raises InputError, and UnavailableError where nobody can be asked."""
    kind, _, rest = what.partition(":")
    if kind == "dns" and rest:
        return _addresses(rest, timeout_seconds)
    if kind == "label" and rest:
        return _containers([rest], timeout_seconds)
    if kind in ("compose", "stack") and rest:
        return _found(kind, rest, timeout_seconds)
    folder = Path(what)
    for name in _MANIFESTS:
        if (folder / name).is_file():
            return _found("stack" if name.startswith("stack") else "compose", _rendered(folder / name), timeout_seconds)
    raise InputError(f"--discover '{what}': nothing of this kind: write {', '.join(WORDS)}")


def _found(kind: str, name: str, timeout_seconds: float) -> tuple[Target, ...]:
    found = _stack(name) if kind == "stack" else _containers([f"{_PROJECT}={name}", _ONE_OFF], timeout_seconds)
    if not found:
        raise UnavailableError(f"nothing of the {'stack' if kind == 'stack' else 'project'} {name} is there")
    return found


def _rendered(manifest: Path) -> str:
    """The name of the project in a manifest; a stack is deployed under a name that is not in it: the folder's."""
    try:
        match = _NAME.search(manifest.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest}: it cannot be read: render it again") from error
    return match[1] if match else manifest.resolve().parent.name


def _addresses(url: str, timeout_seconds: float) -> tuple[Target, ...]:
    target = parse_target(url, timeout_seconds=timeout_seconds)
    try:
        found = lookup_addresses(target.host, target.port)
    except OSError as error:
        raise UnavailableError(f"{shown(target.host)} cannot be looked up: {error.strerror}") from error
    return tuple(
        replace(target, name=f"{target.name} {address}", host=address, group=target.name) for address in sorted(found)
    )


def _containers(labels: Sequence[str], timeout_seconds: float) -> tuple[Target, ...]:
    filters = quote(json.dumps({"label": list(labels)}))
    listed = _objects(_get(f"/containers/json?all=1&filters={filters}"))
    return tuple(target for container in listed for target in _targets(container, timeout_seconds))


def _targets(container: Mapping[str, object], timeout_seconds: float) -> Iterator[Target]:
    names = container.get("Names")
    name = str(names[0]).lstrip("/") if isinstance(names, list) and names else str(container.get("Id"))[:12]
    labels = _members(container, "Labels")
    group = str(labels.get(_SERVICE) or container.get("Image") or name)
    health = Health(HealthKind.NONE, timeout_seconds=timeout_seconds)
    yield Target(name, "", 0, health, group, asked_in=Kind.DOCKER, about=(name,))
    url, address = labels.get(LABEL), _address(container)
    if isinstance(url, str) and address and container.get("State") == "running":
        if "://:" not in url:
            raise InputError(
                f"{name}: label {LABEL} is '{shown(url)}': write a URL without a host, such as http://:80/"
            )
        asked = parse_target(url.replace("://:", f"://{address}:", 1), timeout_seconds=timeout_seconds)
        yield replace(asked, name=f"{name} {asked.name}", group=f"{group} itself")


def _address(container: Mapping[str, object]) -> str | None:
    networks = _members(_members(container, "NetworkSettings"), "Networks")
    found = [str(one.get("IPAddress")) for one in networks.values() if isinstance(one, dict) and one.get("IPAddress")]
    return found[0] if found else None


def _stack(name: str) -> tuple[Target, ...]:
    filters = quote(json.dumps({"label": [f"{_STACK}={name}"]}))
    services = {
        str(one.get("ID")): str(_members(one, "Spec").get("Name"))
        for one in _objects(_get(f"/services?filters={filters}"))
    }
    tasks = _objects(_get(f"/tasks?filters={filters}"))
    wanted = [task for task in tasks if task.get("DesiredState") == "running"]
    found = [_task(task, services.get(str(task.get("ServiceID")), "?")) for task in wanted]
    served = {target.group for target in found}
    missing = [
        _replica(f"{service}", service, ReplicaState.STOPPED, "no task of it runs") for service in services.values()
    ]
    return tuple(sorted([*found, *(one for one in missing if one.group not in served)], key=lambda target: target.name))


def _task(task: Mapping[str, object], service: str) -> Target:
    status = _members(task, "Status")
    said = str(status.get("State"))
    state = _TASKS.get(said, ReplicaState.STARTING)
    reason = "" if state is ReplicaState.READY else str(status.get("Err") or status.get("Message") or said)
    return _replica(f"{service}.{task.get('Slot') or str(task.get('NodeID'))[:12]}", service, state, reason)


def _replica(name: str, service: str, state: ReplicaState, reason: str) -> Target:
    replica = Replica(name, name, service, state, 0.0, reason=reason)
    return Target(name, "", 0, Health(HealthKind.NONE), service, replica=replica)


def _objects(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _members(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


class _Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def _get(path: str) -> object:
    """One GET of the engine's API, which is all that discovery needs; raises UnavailableError."""
    connection = _connection()
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"the Docker engine does not answer: {error}") from error
    finally:
        connection.close()
    try:
        value: object = json.loads(body)
    except ValueError as error:
        raise UnavailableError("the Docker engine gives no answer that can be read") from error
    if response.status != http.client.OK:
        message = value.get("message") if isinstance(value, dict) else None
        raise UnavailableError(f"the Docker engine answers HTTP {response.status}: {shown(str(message))}")
    return value


def _connection() -> http.client.HTTPConnection:
    url = os.environ.get("DOCKER_HOST", "")
    if not url or url.startswith("unix://"):
        return _Local(url.removeprefix("unix://") or _SOCKET)
    parts = urlsplit(url)
    if parts.scheme != "tcp" or not parts.hostname:
        raise UnavailableError("DOCKER_HOST is neither unix:// nor tcp://: discovery asks the engine's API itself")
    return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=_TIMEOUT_SECONDS)
