"""HAProxy for local processes: its configuration, and its runtime API as the supervisor drives it.

Every routed service has a backend with server slots that start disabled. The supervisor knows the replicas and
their health, so HAProxy checks nothing itself: ``Rotation`` brings its slots to what the supervisor wants, and
says how many requests a slot still holds. Understood by HAProxy 2.6 and later.
"""

import csv
import re
import socket
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.errors import InputError, UnavailableError

_ROUTE = re.compile(r"/[A-Za-z0-9._~/%:@!&+,;=-]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_BATCH = 50
_TIMEOUT_SECONDS = 1.0

_GLOBAL = """\
global
    stats socket {socket} mode 600 level admin
    fd-hard-limit 20000
    log stdout format raw daemon notice

defaults
    mode http
    timeout connect 2s
    timeout client 5m
    timeout server 5m
    timeout queue 30s
    timeout http-request 15s
    timeout http-keep-alive 15s
    timeout tunnel 1h
    retries 3
    option redispatch
    retry-on conn-failure empty-response

frontend front
    bind {bind}
    maxconn 9000
    monitor-uri {health}
    # a request that may have been worked on is not sent twice unless that is harmless
    http-request disable-l7-retry unless METH_GET
"""
_BACKEND = """
backend {name}
    balance {algorithm}
{sticky}    server-template {name}- 1-{slots} 127.0.0.1:1 disabled
"""
_STICKY = """\
    stick-table type string len 128 size 100k expire {expire}s
    stick match req.hdr({header})
    stick store-response res.hdr({header})
"""


class Rotate(StrEnum):
    """HAProxy's words for the state of a server slot."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


class Server(Struct, frozen=True):
    """What one slot should be: where it points and whether it takes requests."""

    state: Rotate
    port: int | None = None


def routed(plan: DeploymentPlan) -> tuple[Service, ...]:
    """The services that the balancer sends requests to."""
    return tuple(service for service in plan.services if service.routes and service.name != "loadbalancer")


def slot_count(service: Service) -> int:
    """Server slots of a backend: replicas that drain keep theirs while new ones start."""
    return 2 * service.max_replicas


def require_plain(plan: DeploymentPlan) -> None:
    """Raise InputError for a route or header that is not a plain word: it would be read as configuration."""
    _require_path(plan.service("loadbalancer").health.path, "services.loadbalancer.health.path")
    for service in routed(plan):
        for route in service.routes:
            _require_path(route, f"services.{service.name}.routes")
        if service.sticky_header is not None and _WORD.fullmatch(service.sticky_header) is None:
            raise InputError(f"services.{service.name}.sticky_header: {service.sticky_header!r} is not a header's name")


def _algorithm(service: Service) -> str:
    """Least connections; where only one replica may write, always the same one that is ready."""
    return "hash str(one)\n    hash-type consistent" if service.one_writer else "leastconn"


def _require_path(path: str, where: str) -> None:
    if _ROUTE.fullmatch(path) is None:
        raise InputError(f"{where}: {path!r} is not a plain path such as /api")


def render(plan: DeploymentPlan, socket_path: Path) -> str:
    """HAProxy's configuration for this plan; ``require_plain`` has been asked before."""
    loadbalancer = plan.service("loadbalancer")
    bind = re.sub(r"-[0-9]+$", "", loadbalancer.publish or f"127.0.0.1:{loadbalancer.port}")
    lines = _GLOBAL.format(socket=_escaped(socket_path), bind=bind, health=loadbalancer.health.path)
    for route, name in _rules(routed(plan)):
        lines += f"    use_backend {name} if {{ path_beg {route} }}\n"
    for service in routed(plan):
        expire, header = plan.settings.session_timeout_seconds, service.sticky_header
        sticky = _STICKY.format(expire=expire, header=header) if header else ""
        lines += _BACKEND.format(
            name=service.name, sticky=sticky, slots=slot_count(service), algorithm=_algorithm(service)
        )
    return lines


def _rules(services: Iterable[Service]) -> list[tuple[str, str]]:
    """Path prefixes and their services, the longest prefix first."""
    pairs = [(route, service.name) for service in services for route in service.routes]
    return sorted(pairs, key=lambda pair: (-len(pair[0]), pair))


def _escaped(path: Path) -> str:
    return re.sub(r"([\\\s#\"'$])", r"\\\1", str(path))


class Rotation:
    """The server slots of a running HAProxy, as they were last set."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._applied: dict[str, Server] = {}

    def forget(self) -> None:
        """HAProxy was started anew: every slot is disabled again."""
        self._applied = {}

    def apply(self, wanted: Mapping[str, Server]) -> None:
        """Bring the slots (``backend/server``) to what is wanted; raises UnavailableError, and is then tried again."""
        idle = {name: Server(Rotate.MAINT) for name in self._applied if name not in wanted}
        changed = [(name, server) for name, server in {**idle, **wanted}.items() if self._applied.get(name) != server]
        for start in range(0, len(changed), _BATCH):
            batch = changed[start : start + _BATCH]
            answer = self._run([command for name, server in batch for command in _commands(name, server)])
            if "No such" in answer or "nvalid" in answer:
                raise UnavailableError(f"haproxy refused a command: {' '.join(answer.split())}")
            self._applied.update(batch)

    def sessions(self) -> dict[str, int]:
        """Requests that each slot holds now."""
        rows = csv.reader(self._run(["show stat -1 4 -1"]).splitlines())
        return {f"{row[0]}/{row[1]}": int(row[4]) for row in rows if row[4:] and row[4].isdigit()}

    def _run(self, commands: list[str]) -> str:
        answer = bytearray()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_TIMEOUT_SECONDS)
                connection.connect(str(self._path))
                connection.sendall((";".join(commands) + "\n").encode())
                while chunk := connection.recv(65536):
                    answer += chunk
        except OSError as error:
            raise UnavailableError(f"haproxy does not answer on {self._path}: {error}") from error
        return answer.decode(errors="replace")


def _commands(name: str, server: Server) -> list[str]:
    commands = [f"set server {name} state {server.state}"]
    if server.port is not None:
        commands.insert(0, f"set server {name} addr 127.0.0.1 port {server.port}")
    return commands
