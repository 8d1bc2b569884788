"""Which machines carry the replicas of a cell: first-fit decreasing over whole replicas, with a spare machine."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from cfscale.core.plan import Nodes, Service
from cfscale.core.tier import Rules
from cfscale.errors import RefusedError


class Shape(Struct, frozen=True, order=True):
    """A machine of the catalogue."""

    cpu_millicores: int
    memory_bytes: int


class Packing(Struct, frozen=True):
    """The machines chosen, how many of them the replicas fill, and how few could hold them if replicas were divisible."""

    nodes: Nodes
    used: int
    bound: int


def shapes_of(rules: Rules) -> tuple[Shape, ...]:
    """The machines of the catalogue, the smallest first."""
    return tuple(Shape(leaf["cpu"].millicores, int(leaf["memory"].bytes)) for leaf in rules.node_shapes)


def choose_nodes(shapes: Sequence[Shape], services: Sequence[Service], *, least: int, spare: int) -> Packing:
    """The smallest shape on whose ``least`` machines all replicas pack even without ``spare`` of them.

    Where none is large enough, the largest shape in the number needed. Raises RefusedError where a single replica
    fits no machine of the catalogue.
    """
    needed = needed_by(services)
    for shape in shapes:
        bound = lower_bound(shape, needed)
        if bound + spare > least:
            continue
        used = pack(shape, services)
        if used is not None and used + spare <= least:
            return _packing(shape, used, bound, least)
    largest = shapes[-1]
    used = pack(largest, services)
    if used is None:
        big = next(service for service in services if not holds(largest, service))
        raise RefusedError(
            f"one replica of {big.name} fits no machine of the catalogue: lower services.{big.name}.resources"
        )
    return _packing(largest, used, lower_bound(largest, needed), max(used + spare, least))


def _packing(shape: Shape, used: int, bound: int, count: int) -> Packing:
    return Packing(Nodes(count, shape.cpu_millicores, shape.memory_bytes), used, bound)


def needed_by(services: Iterable[Service]) -> Shape:
    """What all replicas need together, as if one machine held them."""
    cpu = memory = 0
    for service in services:
        cpu += service.replicas * service.cpu_request_millicores
        memory += service.replicas * memory_of(service)
    return Shape(cpu, memory)


def lower_bound(shape: Shape, needed: Shape) -> int:
    """No packing takes fewer machines of this shape: the larger of CPU and memory needed, in machines."""
    return max(-(-needed.cpu_millicores // shape.cpu_millicores), -(-needed.memory_bytes // shape.memory_bytes))


def pack(shape: Shape, services: Iterable[Service]) -> int | None:
    """How many machines first-fit decreasing fills, or None where a replica fits no empty one.

    Equal replicas are placed in groups, so the cost grows with services times machines, not with replicas.
    """
    free: list[Shape] = []
    for service in sorted(
        services, key=lambda item: (memory_of(item), item.cpu_request_millicores, item.name), reverse=True
    ):
        placed = _place(shape, free, service)
        if placed is None:
            return None
        free = placed
    return len(free)


def holds(shape: Shape, service: Service) -> bool:
    """Whether an empty machine holds one replica: its memory, and the CPU that it may burst to."""
    cpu = max(service.cpu_request_millicores, service.cpu_limit_millicores or 0)
    return cpu <= shape.cpu_millicores and memory_of(service) <= shape.memory_bytes


def memory_of(service: Service) -> int:
    """The memory a machine must hold for one replica: its limit, else its request."""
    return service.memory_limit_bytes or service.memory_request_bytes


def _place(shape: Shape, free: Sequence[Shape], service: Service) -> list[Shape] | None:
    cpu, memory = service.cpu_request_millicores, memory_of(service)
    if not holds(shape, service):
        return None
    per_machine = min(shape.cpu_millicores // cpu, shape.memory_bytes // memory)
    left, after = service.replicas, []
    for machine in free:
        count = min(left, machine.cpu_millicores // cpu, machine.memory_bytes // memory)
        after.append(Shape(machine.cpu_millicores - count * cpu, machine.memory_bytes - count * memory))
        left -= count
    while left:
        count = min(left, per_machine)
        after.append(Shape(shape.cpu_millicores - count * cpu, shape.memory_bytes - count * memory))
        left -= count
    return after
