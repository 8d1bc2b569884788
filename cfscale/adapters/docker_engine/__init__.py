"""The Docker Engine API, as far as cfscale reads and acts through it: short deadlines, errors in cfscale's words.

The library's own deadline is a minute; here an engine that accepts and never answers is out of reach after two seconds.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from math import ceil
from socket import socket
from threading import Lock
from typing import TYPE_CHECKING

import msgspec

from cfscale.adapters.docker_engine.connection import GoneError, answering, connect
from cfscale.adapters.docker_engine.containers import PROJECT, SERVICE, Details, Listed, Register, replica
from cfscale.adapters.docker_engine.stats import Measured, Stats, StatsReader
from cfscale.adapters.docker_engine.streams import Statistics
from cfscale.core.samples import Replica
from cfscale.errors import ActionError, UnavailableError

if TYPE_CHECKING:
    from docker import APIClient

__all__ = ["DockerEngine", "Statistics", "StatsReader"]

_ONE_OFF = "com.docker.compose.oneoff"
_ONE_SHOT_SINCE = "1.41"
_EXEC_MOST_BYTES = 4 * 1024 * 1024
_FRAME_HEADER_BYTES = 8
_STDOUT = 1
_CHUNK_BYTES = 65536
_CONFLICT = 409


class DockerEngine:
    """A client of the engine that the ``docker`` command would use; connects when it is first asked."""

    def __init__(self, timeout_seconds: float = 2.0, patience_seconds: float = 5.0) -> None:
        self._timeout, self._patience = timeout_seconds, patience_seconds
        self._connected: APIClient | None = None
        self._patient: APIClient | None = None
        self._connecting = Lock()
        self._register = Register(self._inspect)
        self._disk = ""

    def close(self) -> None:
        """Close the connections; the next question opens new ones."""
        for client in (self._connected, self._patient):
            if client is not None:
                client.close()
        self._connected = self._patient = None

    def identity(self) -> str:
        """The engine's own id, which no other engine has; always asked for anew. Raises UnavailableError."""
        client = self._client()
        with answering():
            about = msgspec.convert(client.info(), type=dict[str, object])
        return str(about.get("ID") or about.get("Name") or "unknown")

    def replicas(self, project: str, ports: Mapping[str, int], networks: Sequence[str]) -> tuple[Replica, ...]:
        """The containers of a Compose project, stopped ones included, of the services that ``ports`` names.

        An address is a service's port on the first of ``networks`` (names on the engine) that the container is on.
        """
        listed = [one for one in self._list(project) if one.labels.get(SERVICE) in ports]
        details = self._register.details(listed)
        return tuple(
            replica(one, details[one.id], ports[one.labels[SERVICE]], networks) for one in listed if one.id in details
        )

    def leftovers(self, project: str, *, volumes: bool) -> tuple[str, ...]:
        """What the engine still has of a project: containers, networks and, if asked, volumes, each in words."""
        client, label = self._client(), {"label": f"{PROJECT}={project}"}
        with answering():
            containers = client.containers(all=True, filters=label)
            found = [("container", (one["Names"] or [one["Id"][:12]])[0].lstrip("/")) for one in containers]
            found += [("network", one["Name"]) for one in client.networks(filters=label)]
            if volumes:
                found += [("volume", one["Name"]) for one in client.volumes(filters=label)["Volumes"] or ()]
        return tuple(f"{kind} {name}" for kind, name in found)

    def drop_ghosts(self, project: str) -> None:
        """Detach from the project's networks the endpoints of containers that no longer exist: engines forget some.

        One without a container is listed under an id that the engine itself does not take; it goes by its name.
        """
        client, label = self._client(), {"label": f"{PROJECT}={project}"}
        with suppress(GoneError), answering(ActionError):
            there = {one["Id"] for one in client.containers(all=True)}
            for network in client.networks(filters=label):
                attached = client.inspect_network(network["Id"]).get("Containers") or {}
                for name in [endpoint["Name"] for key, endpoint in attached.items() if key not in there]:
                    with suppress(GoneError), answering(ActionError):
                        client.disconnect_container_from_network(name, network["Id"], force=True)

    def stop(self, container: str, grace_seconds: float) -> None:
        """Ask it to end, and end it after the grace period. One that is gone or stopped is fine."""
        client = self._patient_client()
        try:
            with answering(ActionError):
                client.stop(container, timeout=ceil(grace_seconds))
        except GoneError:
            return

    def remove(self, container: str) -> None:
        """Remove a stopped container with its anonymous volumes, which nothing could ever use again."""
        from docker.errors import APIError

        client = self._patient_client()
        try:
            with answering(ActionError):
                client.remove_container(container, v=True)
        except GoneError:
            return
        except ActionError as error:
            # 409: somebody else is removing it; the caller counts afterwards
            if not (isinstance(error.__cause__, APIError) and error.__cause__.status_code == _CONFLICT):
                raise

    def execute(self, container: str, argv: Sequence[str]) -> str:
        """What a command inside a container prints. Raises UnavailableError if it cannot run, fails or takes too long."""
        client = self._client()
        try:
            with answering():
                execution = client.exec_create(container, list(argv))["Id"]
                raw = _received(client, execution, time.monotonic() + self._timeout)
                code = client.exec_inspect(execution)["ExitCode"]
        except GoneError as error:
            raise UnavailableError(f"container {container[:12]} is gone") from error
        output, problem = _streams(raw)
        if code != 0:
            why = " ".join(problem.split())[:200]
            raise UnavailableError(f"container {container[:12]}: '{argv[0]}' ended with {code}: {why}")
        return output

    def measure(self, container: str) -> Measured | None:
        """The engine's statistics of one container; None if it is gone. For StatsReader, from many threads."""
        client = self._patient_client()
        try:
            with answering():
                one_shot = {"one_shot": True} if _at_least(client.api_version, _ONE_SHOT_SINCE) else {}
                stats = msgspec.convert(client.stats(container, stream=False, **one_shot), type=Stats, strict=False)
        except GoneError:
            return None
        details = self._details(container, client)
        return None if details is None else _measured(stats, details)

    def follow(self, container: str) -> Iterator[Measured]:
        """The engine's statistics of one container as they come, until it is gone. Raises UnavailableError."""
        client = self._patient_client()
        details: Details | None = None
        with suppress(GoneError), answering(), closing(client.stats(container, stream=True, decode=False)) as lines:
            for line in lines:
                stats = msgspec.json.decode(line, type=Stats, strict=False)
                if not stats.running:
                    return  # of a stopped container nothing more is told; a new start is asked for anew
                details = details or self._details(container, client)
                if details is None:
                    return
                yield _measured(stats, details)

    def disk_ratio(self) -> float | None:
        """How full the disk is on which this engine keeps its data; None where that cannot be seen from here."""
        self._disk = self._disk or self._data()
        try:
            disk = os.statvfs(self._disk)
        except (OSError, ValueError):  # a path that leads nowhere
            return None
        used = disk.f_blocks - disk.f_bfree
        return used / (used + disk.f_bavail) if used + disk.f_bavail else None

    def _data(self) -> str:
        """The engine's data directory; a path that leads nowhere for an engine on another machine."""
        client = self._client()
        if not str(client.base_url).startswith("http+docker://"):
            return "\0"
        with answering():
            return str(client.info().get("DockerRootDir") or "\0")

    def _list(self, project: str) -> list[Listed]:
        client = self._client()
        labels = [f"{PROJECT}={project}", f"{_ONE_OFF}=False"]
        with answering():
            return msgspec.convert(client.containers(all=True, filters={"label": labels}), type=list[Listed])

    def _inspect(self, listed: Listed) -> Details | None:
        """The details of a container; while the engine writes down how it is, they wait for the disk."""
        return self._details(listed.id, self._client() if listed.being_started else self._patient_client())

    def _details(self, container: str, client: "APIClient") -> Details | None:
        try:
            with answering():
                return msgspec.convert(client.inspect_container(container), type=Details)
        except GoneError:
            return None

    def _client(self) -> "APIClient":
        with self._connecting:
            self._connected = self._connected or connect(self._timeout)
            return self._connected

    def _patient_client(self) -> "APIClient":
        """A client for what takes its time: to stop, to remove, the statistics of an old engine, details on a slow disk."""
        version = self._client().api_version
        with self._connecting:
            self._patient = self._patient or connect(self._patience, version)
            return self._patient


def _measured(stats: Stats, details: Details) -> Measured:
    return Measured(stats, details.state.started_at, details.cpu_limit_cores, details.host_config.memory or None)


def _at_least(version: str, wanted: str) -> bool:
    from docker.utils import version_gte

    return bool(version_gte(version, wanted))


def _received(client: "APIClient", execution: str, deadline: float) -> bytes:
    """All that a command prints, in frames; no single read takes longer than the connection's own deadline."""
    stream = client.exec_start(execution, socket=True)
    read = "recv" if isinstance(stream, socket) else "read"  # docker-py calls either a socket
    received = b""
    try:
        while chunk := bytes(getattr(stream, read)(_CHUNK_BYTES) or b""):
            received += chunk
            if time.monotonic() > deadline or len(received) > _EXEC_MOST_BYTES:
                raise TimeoutError("timed out: the command goes on and on")
    finally:
        if (response := getattr(stream, "_response", None)) is not None:
            response.close()  # closing what it returned would leave the connection open
        stream.close()
    return received


def _streams(raw: bytes) -> tuple[str, str]:
    """Standard output and standard error from the engine's frames: stream, three zeros, length, content."""
    texts = {True: b"", False: b""}
    while len(raw) >= _FRAME_HEADER_BYTES:
        end = _FRAME_HEADER_BYTES + int.from_bytes(raw[4:8], "big")
        texts[raw[0] == _STDOUT] += raw[_FRAME_HEADER_BYTES:end]
        raw = raw[end:]
    return texts[True].decode("utf-8", "replace"), texts[False].decode("utf-8", "replace")
