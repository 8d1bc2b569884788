"""Which machines carry the replicas of a cell: first-fit decreasing over whole replicas, with a spare machine."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from cfscale.core.plan import Nodes, Service
from cfscale.core.tier import Rules
from cfscale.errors import RefusedError

# memory, CPU, name, the CPU of a burst, replicas
_Group = tuple[int, int, str, int, int]


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
    needed, groups = needed_by(services), _decreasing(services)
    for shape in shapes:
        bound = lower_bound(shape, needed)
        if bound + spare > least:
            continue
        used = _fill(shape, groups)
        if used is not None and used + spare <= least:
            return _packing(shape, used, bound, least)
    largest = shapes[-1]
    used = _fill(largest, groups)
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
    return _fill(shape, _decreasing(services))


def holds(shape: Shape, service: Service) -> bool:
    """Whether an empty machine holds one replica: its memory, and the CPU that it may burst to."""
    return _burst(service) <= shape.cpu_millicores and memory_of(service) <= shape.memory_bytes


def _burst(service: Service) -> int:
    """The CPU that a replica may come to use."""
    return max(service.cpu_request_millicores, service.cpu_limit_millicores or 0)


def memory_of(service: Service) -> int:
    """The memory a machine must hold for one replica: its limit, else its request."""
    return service.memory_limit_bytes or service.memory_request_bytes


def _decreasing(services: Iterable[Service]) -> list[_Group]:
    """The replicas in the order of first-fit decreasing: by memory, then CPU, then name."""
    groups = [
        (memory_of(service), service.cpu_request_millicores, service.name, _burst(service), service.replicas)
        for service in services
    ]
    return sorted(groups, reverse=True)


def _fill(shape: Shape, groups: Iterable[_Group]) -> int | None:
    whole_cpu, whole_memory = shape.cpu_millicores, shape.memory_bytes
    cpus: list[int] = []  # what is free on each machine; plain numbers, since a search packs by the hundred
    memories: list[int] = []
    for memory, cpu, _, burst, replicas in groups:
        left = replicas
        if burst > whole_cpu or memory > whole_memory:
            return None
        for index, room in enumerate(memories):
            if room >= memory and cpus[index] >= cpu:
                count = min(left, room // memory, cpus[index] // cpu)
                cpus[index] -= count * cpu
                memories[index] -= count * memory
                left -= count
                if not left:
                    break
        each = min(whole_cpu // cpu, whole_memory // memory)
        while left > 0:
            count = min(left, each)
            cpus.append(whole_cpu - count * cpu)
            memories.append(whole_memory - count * memory)
            left -= count
    return len(memories)
