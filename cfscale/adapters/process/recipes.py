"""From a plan to what is run: one recipe a service, or a plain sentence on why there is none.

Everything that can be known to fail before the first process starts is refused here: a command that is missing,
a publish address in use, a route that no HAProxy configuration can hold.
"""

import hashlib
import os
import re
import secrets
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.json import decode, encode
from msgspec.structs import replace

from cfscale.adapters.process import balancer
from cfscale.adapters.process.layout import PRIVATE_DIRECTORY, Layout, write_private
from cfscale.core.plan import DeploymentPlan, Health, HealthKind, Service
from cfscale.errors import InputError, UnavailableError

_QUEUE_SERVERS = ("valkey-server", "redis-server")
_PUBLISH = re.compile(r"(?P<host>[0-9A-Za-z.*-]+):(?P<port>[0-9]{1,5})(?:-[0-9]{1,5})?", re.ASCII)
_LAST_PORT = 65_535
# components that are configured for containers only
_CONTAINERS_ONLY = frozenset({"memory", "cache", "database", "pooler", "sentinel", "etcd"})
_QUEUE_CONFIG = """\
bind 127.0.0.1
protected-mode yes
dir {directory}
appendonly yes
maxmemory-policy noeviction
{memory}requirepass {password}
"""


class Recipe(Struct, frozen=True):
    """How replicas of one service are started. ``port`` is set where it is not free to choose."""

    service: Service
    command: tuple[str, ...]
    directory: Path
    env: Mapping[str, str]
    health: Health
    limit: int
    host: str = "127.0.0.1"
    port: int | None = None


class Recipes(Struct, frozen=True):
    """All that is run, in the order in which it is started, and what is not run and why."""

    items: tuple[Recipe, ...]
    notes: tuple[str, ...]
    fingerprint: str
    balanced: bool

    def get(self, service: str) -> Recipe | None:
        """The recipe of a service, None where it is not run."""
        return next((item for item in self.items if item.service.name == service), None)

    def accept(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The counts of what is run, one for what runs once; raises InputError for more than a plan allows."""
        accepted = {}
        for item in self.items:
            count = counts.get(item.service.name, 0)
            if not 0 <= count <= item.service.max_replicas:
                raise InputError(
                    f"{item.service.name}: {count} replicas are not within 0 and {item.service.max_replicas}"
                )
            accepted[item.service.name] = min(count, item.limit)
        return accepted


def plan_recipes(plan: DeploymentPlan, layout: Layout, base_dir: Path) -> Recipes:
    """The recipes of a plan; raises InputError or UnavailableError for what cannot run on this machine."""
    items, notes = [], []
    for service in sorted(plan.services, key=lambda service: -stop_rank(service.name)):
        recipe = _recipe(service, plan, layout, base_dir)
        if isinstance(recipe, str):
            notes.append(recipe)
            continue
        items.append(recipe)
        if service.replicas > recipe.limit:
            notes.append(f"{service.name}: one process stands for the {service.replicas} replicas of the plan")
    if any(item.service.cpu_limit_millicores or item.service.memory_limit_bytes for item in items):
        notes.append("CPU and memory limits are measured against, not enforced: local processes run without a cgroup")
    balanced = any(item.service.name == "loadbalancer" and not item.service.command for item in items)
    return Recipes(tuple(items), tuple(notes), _fingerprint(plan, base_dir), balanced)


def stop_rank(service: str) -> int:
    """The order of stopping: first what lets requests in, last what others depend on."""
    return {"loadbalancer": 0, "coordinator": 2, "queue": 3}.get(service, 1)


def _fingerprint(plan: DeploymentPlan, base_dir: Path) -> str:
    """Equal for two plans whose processes would be the same ones; counts and sizes may differ.

    The plan goes through JSON once, as that of a background supervisor did: there 20 and 20.0 are one number.
    """
    plan = decode(encode(plan), type=DeploymentPlan)
    services = [
        (
            item.name,
            item.command,
            sorted(item.env.items()),
            item.health,
            item.publish,
            item.routes,
            item.stop_grace_seconds,
        )
        for item in plan.services
    ]
    return hashlib.sha256(encode([str(base_dir), services])).hexdigest()


def _recipe(service: Service, plan: DeploymentPlan, layout: Layout, base_dir: Path) -> Recipe | str:
    if service.command:
        _require_command(service, base_dir)
        return Recipe(service, service.command, base_dir, service.env, service.health, service.max_replicas)
    if service.name == "queue":
        return _queue(service, layout)
    if service.name == "loadbalancer":
        return _loadbalancer(service, plan, layout)
    if service.name in _CONTAINERS_ONLY:
        return f"{service.name}: not run as local processes; --engine compose runs it"
    raise InputError(
        f"services.{service.name} has an image and no command: give services.{service.name}.command for --engine process"
    )


def _require_command(service: Service, base_dir: Path) -> None:
    name = service.command[0]
    path = service.env.get("PATH", os.environ.get("PATH", os.defpath))
    # a name with a slash is looked up from the working directory, as execvp does there
    sought = str(base_dir / name) if "/" in name else name
    if shutil.which(sought, path=path) is None:
        raise UnavailableError(
            f"services.{service.name}.command: '{name}' is not an executable on the PATH: install it or give its path"
        )


def _queue(service: Service, layout: Layout) -> Recipe | str:
    server = next((name for name in _QUEUE_SERVERS if shutil.which(name)), None)
    if server is None:
        return "no valkey-server or redis-server on the PATH: no queue is run"
    command = (server, str(layout.queue_config), "--port", "{port}")
    health = replace(service.health, kind=HealthKind.REDIS)
    return Recipe(service, command, layout.data, service.env, health, limit=1)


def _loadbalancer(service: Service, plan: DeploymentPlan, layout: Layout) -> Recipe | str:
    if shutil.which("haproxy") is None:
        return "no haproxy on the PATH: nothing balances, replicas are reached at their own addresses"
    balancer.require_plain(plan)
    host, port = publish_address(service)
    command = ("haproxy", "-db", "-f", str(layout.balancer_config))
    health = replace(service.health, kind=HealthKind.TCP)
    return Recipe(service, command, layout.data, service.env, health, limit=1, host=host, port=port)


def publish_address(service: Service) -> tuple[str, int]:
    """Host and (first) port at which a service is published; raises InputError."""
    text = service.publish or f"127.0.0.1:{service.port}"
    match = _PUBLISH.fullmatch(text)
    if match is None or not 0 < int(match["port"]) <= _LAST_PORT:
        raise InputError(f"services.{service.name}.publish: '{text}' is not host:port or host:first-last")
    return match["host"], int(match["port"])


def require_free_ports(recipes: Recipes) -> None:
    """Raise UnavailableError if a port that clients rely on cannot be had."""
    for recipe in recipes.items:
        problem = recipe.port and listen_problem(recipe.host, recipe.port)
        if problem:
            where = f"services.{recipe.service.name}.publish: cannot listen on {recipe.host}:{recipe.port}"
            raise UnavailableError(f"{where}: {problem}: free it or choose another address")


def listen_problem(host: str, port: int) -> str | None:
    """Why no server could listen there now, None if one could."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind(("" if host == "*" else host, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def write_files(plan: DeploymentPlan, recipes: Recipes, layout: Layout) -> None:
    """Write the configuration of the queue and the balancer; the queue's password is made once and kept."""
    if recipes.balanced:
        write_private(layout.balancer_config, balancer.render(plan, layout.balancer_socket))
    queue = recipes.get("queue")
    if queue is None or queue.service.command:
        return
    directory = layout.data / "queue"
    directory.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
    if not layout.queue_password.exists():
        write_private(layout.queue_password, secrets.token_urlsafe(24))
    limit = queue.service.memory_limit_bytes
    memory = f"maxmemory {limit * 3 // 4}\n" if limit else ""
    password = layout.queue_password.read_text(encoding="ascii")
    write_private(
        layout.queue_config, _QUEUE_CONFIG.format(directory=_quoted(directory), memory=memory, password=password)
    )


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
