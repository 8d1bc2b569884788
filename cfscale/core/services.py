"""The services of one cell: what each is, how large one replica is, and how many may run."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil

from msgspec.structs import replace

from cfscale.core.drivers import Cell, Count, Shape, count_of, follows_load, replicas_of
from cfscale.core.ledger import entry
from cfscale.core.nodes import memory_of
from cfscale.core.overrides import drain_of, health_of, path_of, published, resources_of
from cfscale.core.plan import LedgerEntry, Service
from cfscale.core.roster import require_known, roster
from cfscale.core.tier import AGENTS, ServiceKind, pool_kind
from cfscale.core.workload import (
    HealthOverride,
    ImageOverride,
    ScalingBounds,
    ServiceOverride,
    Workload,
    checked_env,
    duration,
    parse_share,
)
from cfscale.errors import InputError, RefusedError

MOST_REPLICAS = 100_000
# counts that move while a deployment runs: all others hold a published port, a volume or a vote each
_MOVING = ("coordinator", AGENTS)
# counts that follow from something else than load: more of them would carry no more, or not be used
_GIVEN = ("memory", "cache", "sentinel", "etcd")
# those that keep a log of all that they hold in memory
_LOGGED = ("queue", "memory", "etcd")
# what every service has a rule for beside its replica count
_RULES = ("min_replicas", "max_replicas", "cpu_request", "cpu_limit", "memory_request", "memory_limit", "storage")


def cell_services(cell: Cell) -> tuple[tuple[Service, ...], tuple[LedgerEntry, ...]]:
    """All services of a cell and the ledger entries of their numbers; raises InputError for a wrong override."""
    require_known(cell.profile)
    names = roster(cell.profile, cell.tier, cell.settings)
    built = {name: _service(cell, name, names) for name in names if name != AGENTS}
    others = [(service.replicas, service) for service, _ in built.values()]
    built[AGENTS] = _service(_left_by(cell, others), AGENTS, names)
    ordered = [built[name] for name in names]
    return tuple(service for service, _ in ordered), tuple(entry for _, entries in ordered for entry in entries)


def counts_of(cell: Cell, services: Sequence[Service]) -> tuple[int, ...]:
    """The replicas of services, sized and bounded as they are, under the load of this cell; raises as ``cell_services``."""
    counts = others_of(cell, services)
    left = _left_by(cell, [(counts[service.name], service) for service in services if service.name != AGENTS])
    return tuple(_recounted(left, service) if service.name == AGENTS else counts[service.name] for service in services)


def others_of(cell: Cell, services: Sequence[Service]) -> dict[str, int]:
    """The replicas of the services beside the agents under the load of this cell, in their order; raises as ``cell_services``."""
    return {service.name: _recounted(cell, service) for service in services if service.name != AGENTS}


def _recounted(cell: Cell, service: Service) -> int:
    if not follows_load(service.name):
        return service.replicas
    cpu, memory = service.cpu_request_millicores, service.memory_request_bytes
    shape = Shape(cpu, service.cpu_limit_millicores, memory, memory_of(service))
    count = replicas_of(service.name, cell, shape)
    given = cell.profile.scaling.services.get(service.name, ScalingBounds())
    least, most = (1, service.max_replicas) if pool_kind(service.name) == AGENTS else (count, count)
    least = least if given.min is None else given.min
    _require_bounds(service.name, count, least, max(most, least) if given.max is None else given.max)
    return max(count, least)


def _left_by(cell: Cell, others: Iterable[tuple[int, Service]]) -> Cell:
    """The cell with what so many replicas of these services hold of its demand."""
    held = [(count * service.cpu_request_millicores, count * memory_of(service)) for count, service in others]
    return replace(cell, cpu_others=sum(cpu for cpu, _ in held), memory_others=sum(memory for _, memory in held))


def _service(cell: Cell, name: str, names: tuple[str, ...]) -> tuple[Service, tuple[LedgerEntry, ...]]:
    override = cell.profile.services.get(name, ServiceOverride())
    kind, shape = cell.catalogue.kind(name), _shape(cell, name, override)
    count = count_of(name, cell, shape)
    replicas, least, most = _bounds(cell, name, count, shape)
    grace = duration(override.stop_grace, kind.stop_grace.seconds, f"services.{name}.stop_grace")
    service = Service(
        name=name,
        image=override.image or image_of(cell, name),
        replicas=replicas,
        min_replicas=least,
        max_replicas=most,
        cpu_request_millicores=shape.cpu_request,
        cpu_limit_millicores=shape.cpu_limit,
        memory_request_bytes=shape.memory_request,
        memory_limit_bytes=shape.memory_limit,
        storage_bytes=_storage(cell, name, shape, replicas),
        driver=count.driver,
        rules=(f"{name}.replicas", *(item.rule for item in count.drivers), *(f"{name}.{rule}" for rule in _RULES)),
        port=override.port or int(kind.port.exact),
        health=health_of(cell.catalogue.rules, name, kind, override.health or HealthOverride()),
        command=tuple(kind.command if override.command is None else override.command),
        env=checked_env(name, override.env or {}),
        publish=published(override.publish or _publish(kind, names), replicas, name),
        routes=_routes(name, kind, override),
        sticky_header=override.sticky_header or kind.sticky_header,
        one_writer=kind.one_writer and override.image is None,
        members=kind.members,
        stop_grace_seconds=grace,
        build=kind.build and override.image is None,
        drain=drain_of(cell.catalogue.rules, name, override.drain, grace),
    )
    return service, (*count.drivers, *_entries(cell, service, count))


def image_of(cell: Cell, name: str) -> str:
    """The pinned image, with what the profile says of where it comes from; what is ours is built here."""
    kind, given = pool_kind(name), cell.profile.images.get(name, ImageOverride())
    image = replace(
        cell.catalogue.images[kind],
        **{key: value for key in ("repository", "tag", "digest") if (value := getattr(given, key)) is not None},
    )
    return image.reference(cell.profile.registry or "")


def _publish(kind: ServiceKind, names: tuple[str, ...]) -> str | None:
    return kind.publish if "loadbalancer" in names else kind.direct


def _routes(name: str, kind: ServiceKind, override: ServiceOverride) -> tuple[str, ...]:
    """Paths that lead to a service; to a further pool of agents leads what a request says of its task."""
    pool = pool_kind(name) != name
    routes = ([f"/{name}"] if pool else kind.routes) if override.routes is None else override.routes
    return tuple(path_of(route, f"services.{name}.routes") for route in routes)


def _shape(cell: Cell, name: str, override: ServiceOverride) -> Shape:
    leaves = cell.tier.services[pool_kind(name)]
    limit = leaves["cpu_limit"]
    shape = Shape(
        leaves["cpu_request"].millicores,
        None if limit.value is None else limit.millicores,
        int(leaves["memory_request"].bytes),
        int(leaves["memory_limit"].bytes),
    )
    if override.resources is None:
        return shape
    given_cpu, given_memory = resources_of(name, override.resources)
    cpu = given_cpu or shape.cpu_limit
    memory = given_memory or shape.memory_limit
    return Shape(min(shape.cpu_request, cpu or shape.cpu_request), cpu, min(shape.memory_request, memory), memory)


def _bounds(cell: Cell, name: str, count: Count, shape: Shape) -> tuple[int, int, int]:
    """(replicas, min, max); agents may move between the replication factor and what the tier's top needs."""
    given = cell.profile.scaling.services.get(name, ScalingBounds())
    if name in _GIVEN and given != ScalingBounds():
        raise InputError(f"scaling.services.{name}: its count follows from {count.driver}, not from load: leave it out")
    least, most = count.replicas, count.replicas
    if pool_kind(name) == AGENTS:
        least, most = _agents_range(cell, name, shape)
    least = least if given.min is None else given.min
    most = max(most, least) if given.max is None else given.max
    _require_bounds(name, count.replicas, least, most)
    return max(count.replicas, least), least, most


def _require_bounds(name: str, count: int, least: int, most: int) -> None:
    """Raise where a count is beyond all bounds, or the bounds of the profile do not hold it."""
    if count > MOST_REPLICAS:
        raise RefusedError(
            f"{name} would take {count} replicas, more than {MOST_REPLICAS}: give services.{name}.resources more"
        )
    if least > most:
        raise InputError(f"scaling.services.{name}: min {least} is above max {most}: swap or change them")
    if least < most and pool_kind(name) not in _MOVING:
        raise InputError(
            f"scaling.services.{name}: its count cannot move while it runs: give min and max the same value"
        )
    if count > most:
        raise InputError(
            f"scaling.services.{name}.max is {most} but the workload needs {count}: raise it or plan for less"
        )


def _agents_range(cell: Cell, name: str, shape: Shape) -> tuple[int, int]:
    """From what the sustained share of the load needs, at least the copies, to what the tier's top needs."""
    top = Workload(users=cell.workload.users, agents=cell.tier.top("agents"), tasks=cell.tier.top("tasks"))
    most = replicas_of(name, replace(cell, workload=top), shape)
    if cell.profile.sustained is None:
        return cell.settings.replication_factor, most
    share = parse_share(cell.profile.sustained)
    sustained = Workload(*(ceil(share * getattr(cell.workload, name)) for name in ("users", "agents", "tasks")))
    # the demand is that of the peak: it does not bind while less is carried
    calm = replace(cell, workload=sustained, cpu_demand=0, memory_demand=0)
    return replicas_of(name, calm, shape), most


def _storage(cell: Cell, name: str, shape: Shape, replicas: int) -> int:
    """Bytes of one replica's share: logs follow the memory; of the rest the database takes a part, the coordinators the other."""
    rules = cell.catalogue.rules
    factor = int(rules.leaf("sizing.queue_log").exact)
    if name in _LOGGED:
        return factor * shape.memory_limit
    if name not in ("coordinator", "database"):
        return 0
    queue = _shape(cell, "queue", cell.profile.services.get("queue", ServiceOverride()))
    rest = max(0, int(cell.tier.resources["storage"].bytes) - factor * queue.memory_limit)
    database = ceil(rest * rules.leaf("sizing.database_storage").exact) if "database" in cell.tier.services else 0
    return database if name == "database" else ceil(Fraction(rest - database, replicas))


def _entries(cell: Cell, service: Service, count: Count) -> tuple[LedgerEntry, ...]:
    name, replicas = service.name, service.replicas
    formula = count.formula if replicas == count.replicas else f"{count.formula}; raised to the minimum of the profile"
    bounds = cell.profile.scaling.services.get(name, ScalingBounds())
    least, most = ("as it stands", "as it stands") if pool_kind(name) != AGENTS else _range_words(cell)
    source, catalogue = cell.tier.source, cell.catalogue
    return (
        entry(catalogue, f"{name}.replicas", replicas, formula, count.source),
        entry(catalogue, f"{name}.min_replicas", service.min_replicas, *_given(bounds.min, least, source)),
        entry(catalogue, f"{name}.max_replicas", service.max_replicas, *_given(bounds.max, most, source)),
        entry(catalogue, f"{name}.storage", service.storage_bytes, *_storage_words(cell, name, replicas)),
    )


def _given(bound: int | None, words: str, source: str) -> tuple[str, str]:
    return (words, source) if bound is None else ("as the profile states it", "profile")


def _range_words(cell: Cell) -> tuple[str, str]:
    copies = f"the replication factor, {cell.settings.replication_factor}"
    least = copies if cell.profile.sustained is None else f"{cell.profile.sustained} of the load, at least {copies}"
    return least, f"{cell.tier.top('agents')} agents and {cell.tier.top('tasks')} tasks, the top of {cell.tier.name}"


def _storage_words(cell: Cell, name: str, replicas: int) -> tuple[str, str]:
    log, storage = cell.catalogue.rules.leaf("sizing.queue_log"), cell.tier.resources["storage"]
    if name in _LOGGED:
        return f"{log.value} x its memory limit", log.source
    rest, part = (
        f"({storage.value} {storage.unit} of the tier - one queue's log)",
        cell.catalogue.rules.leaf("sizing.database_storage"),
    )
    if name == "database":
        return f"{part.value} x {rest}", f"{storage.source}, {part.source}"
    if name == "coordinator":
        left = f" - the database's {part.value}" if "database" in cell.tier.services else ""
        return f"({rest}{left}) / {replicas}", storage.source
    return "it stores nothing", "design"
