"""Configuration files read back and compared with the plan, each as its component would read it."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import yaml

from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.core.units import MIB

Found = Iterator[tuple[str, Mapping[str, object], Mapping[str, object]]]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def facts(plan: DeploymentPlan, files: Mapping[str, str], peers: str = "") -> Found:
    """Where, what the plan says, what the file says: for every configuration file there is.

    ``peers`` stands before a service's name where the balancer means all of its replicas.
    """
    haproxy: Reader = partial(_haproxy, peers=peers)
    readers = {**_READERS, "config/haproxy.cfg": ("loadbalancer", haproxy)}
    for path, (service, read) in readers.items():
        planned = plan.find(service) is not None
        if planned != (path in files):
            yield path, {"rendered": planned}, {"rendered": path in files}
        elif planned:
            yield from read(plan, files[path])


def _haproxy(plan: DeploymentPlan, text: str, peers: str) -> Found:
    sections = _sections(text)
    public = sections.get("frontend public", [])
    smallest = next((words[-1] for words in public if words[:2] == ["compression", "minsize-res"]), None)
    yield "haproxy.cfg", {"compress from": str(plan.settings.compress_from_bytes)}, {"compress from": smallest}
    for service in plan.services:
        where = f"haproxy.cfg: {service.name}"
        for prefix in service.routes:
            yield where, {prefix: service.name}, {prefix: _leads_to(public, prefix)}
        backends = [name for name in sections if name.split(".")[0] == f"backend {service.name}"]
        for name in backends if service.routes else ():
            yield where, _backend_facts(service, peers), _backend_rendered(sections[name])
    yield from _gates(plan, sections)


def _gates(plan: DeploymentPlan, sections: Mapping[str, list[list[str]]]) -> Found:
    """Each gate's port, and the members that it may lead to."""
    ports = plan.settings.gates
    for head, back, service, port in (
        ("listen queue", "listen queue", "queue", ports.queue),
        ("listen cache", "listen cache", "cache", ports.cache),
        ("frontend write", "backend write.primary", "database", ports.write),
        ("frontend read", "backend read.replicas", "database", ports.read),
    ):
        if (found := plan.find(service)) is not None:
            bound = [words[1] for words in sections.get(head, []) if words[0] == "bind"]
            servers = [words[2] for words in sections.get(back, []) if words[0] == "server"]
            planned = {"bind": [f":{port}"], "servers": [f"{name}:{found.port}" for name in found.names]}
            yield f"haproxy.cfg: {head}", planned, {"bind": bound, "servers": servers}


def _sections(text: str) -> dict[str, list[list[str]]]:
    """``frontend public`` -> its lines, each as a list of words."""
    found: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words and not line.startswith(" "):
            lines = found.setdefault(" ".join(words), [])
        elif words:
            lines.append(words)
    return found


def _leads_to(lines: Sequence[Sequence[str]], path: str) -> str | None:
    """The backend of the first rule that matches, as HAProxy would choose it."""
    for words in lines:
        # a rule for every kind of request: its path is in its only braces
        if words[0] == "use_backend" and words[3] == "{" and "path_beg" in words and path.startswith(words[-2]):
            return words[1]
    return next((words[1] for words in lines if words[0] == "default_backend"), None)


def _backend_facts(service: Service, peers: str) -> dict[str, object]:
    health = service.health
    web = health.kind in {HealthKind.HTTP, HealthKind.JSONRPC}
    return {
        "slots": str(service.max_replicas),
        "address": f"{peers}{service.name}:{service.port}",
        "fall": str(health.fall),
        "rise": str(health.rise),
        "uri": health.path if web else None,
        "status": str(health.status) if web else None,
    }


def _backend_rendered(lines: Sequence[Sequence[str]]) -> dict[str, object]:
    words = [word for line in lines for word in line]
    after: dict[str, object] = {
        name: words[words.index(name) + 1] for name in ("fall", "rise", "uri", "status") if name in words
    }
    template = next((line for line in lines if line[0] == "server-template"), ["", "", "", ""])
    return {**after, "slots": template[2], "address": template[3]}


def _store(service: str, planned: Callable[[DeploymentPlan, Service], Mapping[str, object]]) -> "Reader":
    """Reads a Valkey server's configuration: one directive a line."""

    def read(plan: DeploymentPlan, text: str) -> Found:
        found = plan.service(service)
        lines = (line.split() for line in text.splitlines() if line and not line.startswith("#"))
        rendered = {words[0]: " ".join(words[1:]) for words in lines}
        yield f"{service}'s configuration", {"port": str(found.port), **planned(plan, found)}, rendered

    return read


def _share(plan: DeploymentPlan, service: Service) -> str:
    memory = service.memory_limit_bytes or service.memory_request_bytes
    return str(memory * plan.settings.limits.queue_memory_percent // 100)


def _queue(plan: DeploymentPlan, service: Service) -> Mapping[str, object]:
    return {"maxmemory": _share(plan, service), "maxmemory-policy": "noeviction", "appendonly": "yes"}


def _memory(plan: DeploymentPlan, service: Service) -> Mapping[str, object]:
    return {**_queue(plan, service), "cluster-enabled": "yes"}


def _cache(plan: DeploymentPlan, _service: Service) -> Mapping[str, object]:
    return {"maxmemory": str(plan.settings.cache_bytes), "maxmemory-policy": "allkeys-lru", "appendonly": "no"}


def _patroni(plan: DeploymentPlan, text: str) -> Found:
    database, service = plan.settings.database, plan.service("database")
    document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders are the safe one
    shared, own = document["bootstrap"]["dcs"], document["postgresql"]
    memory = service.memory_limit_bytes or service.memory_request_bytes
    buffers = max(1, memory * plan.settings.limits.database_buffers_percent // 100 // MIB)
    planned = {
        "max_connections": None if database is None else database.max_connections,
        "superuser_reserved_connections": None if database is None else database.reserved,
        "shared_buffers": f"{buffers}MB",
        "synchronous_mode": service.replicas > 1,
        "listen": f"0.0.0.0:{service.port}",
    }
    rendered = {**shared["postgresql"]["parameters"], **own["parameters"], "listen": own["listen"]}
    yield "patroni.yml", planned, {**rendered, "synchronous_mode": shared.get("synchronous_mode", False)}


def _pgbouncer(plan: DeploymentPlan, text: str) -> Found:
    database, service = plan.settings.database, plan.service("pooler")
    pairs = (line.partition(" = ") for line in text.splitlines() if " = " in line and not line.startswith(";"))
    rendered = {key: value for key, _, value in pairs}
    most = {"default_pool_size", "max_db_connections", "max_user_connections"}
    planned = {
        "listen_port": str(service.port),
        "max_client_conn": str(plan.settings.limits.connections),
        "min_pool_size": None if database is None else str(database.pool_min),
        **{name: None if database is None else str(database.pool_max) for name in most},
    }
    yield "pgbouncer.ini", planned, rendered


Reader = Callable[[DeploymentPlan, str], Found]
_READERS: Mapping[str, tuple[str, Reader]] = {
    "config/valkey.conf": ("queue", _store("queue", _queue)),
    "config/memory.conf": ("memory", _store("memory", _memory)),
    "config/cache.conf": ("cache", _store("cache", _cache)),
    "config/patroni.yml": ("database", _patroni),
    "config/pgbouncer.ini": ("pooler", _pgbouncer),
}
