"""What is deployed against what is planned: every deviation, with the rule it breaks.

    deployed services ─▶ grouped under the planned service ─▶ counts, amounts, image, ports, check ─▶ totals against demand

Counts have hard bounds (min..max of the plan); amounts have a tolerance either way. What a file does not say is not
guessed: it is ``unknown``. Without a reservation a limit counts as one, as Kubernetes has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from fractions import Fraction

from msgspec import Struct, field

from cfscale.core.plan import DeploymentPlan, Service

DEVIATIONS_SCHEMA = "cfscale/deviations/v1"
TOTAL = "(total)"


class Verdict(StrEnum):
    """How something deployed stands to the plan."""

    MISSING = "missing"
    UNDER = "under"
    OVER = "over"
    UNLIMITED = "unlimited"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


DANGEROUS = frozenset({Verdict.MISSING, Verdict.UNDER, Verdict.UNLIMITED, Verdict.DIFFERS})


class Deployed(Struct, frozen=True):
    """One service of a manifest; ``part_of`` is the planned service it belongs to.

    None: not stated. ``unknown`` says, by the name of a field here, which value the manifest leaves to a variable.
    ``ports`` are ``host:published->target``, sorted.
    """

    name: str
    part_of: str
    replicas: int = 1
    image: str | None = None
    cpu_request_millicores: int | None = None
    cpu_limit_millicores: int | None = None
    memory_request_bytes: int | None = None
    memory_limit_bytes: int | None = None
    ports: tuple[str, ...] = ()
    stop_grace_milliseconds: int = 0
    checked: bool = False
    unknown: Mapping[str, str] = field(default_factory=dict)


class Tolerance(Struct, frozen=True):
    """The share by which an amount may lie below and above the planned one."""

    under: Fraction
    over: Fraction


class Deviation(Struct, frozen=True):
    """One thing that is deployed differently from the plan; amounts are in ``unit``, None is: not stated, no limit."""

    service: str
    what: str
    planned: int | str | None
    deployed: int | str | None
    unit: str
    verdict: Verdict
    rule: str


class Deviations(Struct, frozen=True):
    """All that deviates; ``unplanned`` are services that the plan does not know, which is no deviation."""

    schema: str
    manifest: str
    services: int
    deviations: tuple[Deviation, ...]
    unplanned: tuple[str, ...]
    notes: tuple[str, ...]


def compare(
    plan: DeploymentPlan, deployed: Sequence[Deployed], tolerance: Tolerance, checked: AbstractSet[str]
) -> tuple[Deviation, ...]:
    """Every deviation of one deployed cell, in the order of the plan; ``checked`` names the services that need a health check."""
    found: list[Deviation] = []
    for service in plan.services:
        parts = [part for part in deployed if part.part_of == service.name]
        found.extend(_service(service, parts, tolerance, check=service.name in checked))
    known = {service.name for service in plan.services}
    found.extend(_totals(plan, [part for part in deployed if part.part_of in known], tolerance))
    return tuple(found)


def _service(service: Service, parts: Sequence[Deployed], tolerance: Tolerance, *, check: bool) -> Iterator[Deviation]:
    if not parts:
        rule = f"{service.name}.replicas"
        yield Deviation(service.name, "service", service.replicas, None, "replicas", Verdict.MISSING, rule)
        return
    yield from _count(service, parts)
    for part in parts:
        yield from _amounts(service, part, tolerance)
        yield from _words(service, part)
        if check and not part.checked:
            rule = f"{service.name}.health.interval"
            yield Deviation(part.name, "health check", "yes", None, "", Verdict.MISSING, rule)


def _count(service: Service, parts: Sequence[Deployed]) -> Iterator[Deviation]:
    for part in parts:
        if "replicas" in part.unknown:
            value, rule = part.unknown["replicas"], f"{service.name}.replicas"
            yield Deviation(part.name, "replicas", service.replicas, value, "replicas", Verdict.UNKNOWN, rule)
            return
    count, low, high = sum(part.replicas for part in parts), service.min_replicas, service.max_replicas
    if low <= count <= high:
        return
    verdict = Verdict.UNDER if count < low else Verdict.OVER
    bound = ("min_replicas" if count < low else "max_replicas") if service.scaled else "replicas"
    wanted = f"{low}..{high}" if service.scaled else service.replicas
    yield Deviation(service.name, "replicas", wanted, count, "replicas", verdict, f"{service.name}.{bound}")


def _amounts(service: Service, part: Deployed, tolerance: Tolerance) -> Iterator[Deviation]:
    limits = (
        ("cpu limit", "cpu_limit_millicores", "millicores", "cpu_limit"),
        ("memory limit", "memory_limit_bytes", "bytes", "memory_limit"),
    )
    for what, name, unit, rule in limits:
        yield from _amount(
            (part, what, name, unit, f"{service.name}.{rule}"), getattr(service, name), getattr(part, name), tolerance
        )
    requests = (
        ("cpu request", "cpu_request_millicores", "millicores", "cpu_request"),
        ("memory request", "memory_request_bytes", "bytes", "memory_request"),
    )
    for what, name, unit, rule in requests:
        stated, origin = getattr(part, name), name
        if stated is None and name not in part.unknown:
            origin = name.replace("request", "limit")
            stated = getattr(part, origin)
        yield from _amount(
            (part, what, origin, unit, f"{service.name}.{rule}"), getattr(service, name), stated, tolerance
        )
    grace = max(1, round(service.stop_grace_seconds * 1000))
    field_ = "stop_grace_milliseconds"
    about = (part, "stop grace", field_, "milliseconds", f"{service.name}.stop_grace")
    yield from _amount(about, grace, max(1, part.stop_grace_milliseconds), tolerance)


def _amount(
    about: tuple[Deployed, str, str, str, str], planned: int | None, stated: int | None, tolerance: Tolerance
) -> Iterator[Deviation]:
    part, what, name, unit, rule = about
    if name in part.unknown:
        yield Deviation(part.name, what, planned, part.unknown[name], unit, Verdict.UNKNOWN, rule)
        return
    verdict = _verdict(planned, stated, tolerance)
    if verdict is Verdict.UNLIMITED and "limit" not in what:
        verdict = Verdict.MISSING
    if verdict is not None:
        yield Deviation(part.name, what, planned, stated, unit, verdict, rule)


def _verdict(planned: int | None, stated: int | None, tolerance: Tolerance) -> Verdict | None:
    if planned is None:
        return None if stated is None else Verdict.UNDER  # any limit is less than none
    if stated is None:
        return Verdict.UNLIMITED
    if stated < planned * (1 - tolerance.under):
        return Verdict.UNDER
    return Verdict.OVER if stated > planned * (1 + tolerance.over) else None


def _words(service: Service, part: Deployed) -> Iterator[Deviation]:
    published = () if service.publish is None else (f"{service.publish}->{service.port}",)
    for what, name, planned, stated, rule in (
        ("image", "image", service.image, part.image, "image"),
        ("ports", "ports", ", ".join(published) or None, ", ".join(part.ports) or None, "publish"),
    ):
        if name in part.unknown:
            yield Deviation(part.name, what, planned, part.unknown[name], "", Verdict.UNKNOWN, f"{service.name}.{rule}")
        elif planned != stated:
            verdict = Verdict.MISSING if stated is None else Verdict.DIFFERS
            yield Deviation(part.name, what, planned, stated, "", verdict, f"{service.name}.{rule}")


def _totals(plan: DeploymentPlan, parts: Sequence[Deployed], tolerance: Tolerance) -> Iterator[Deviation]:
    """Too little in all; what cannot be added up has been reported where it stands."""
    cpu = [part.cpu_request_millicores or part.cpu_limit_millicores for part in parts]
    memory = [part.memory_limit_bytes or part.memory_request_bytes for part in parts]
    for what, demand, amounts, unit, rule in (
        ("cpu", plan.demand.cpu_millicores, cpu, "millicores", "cpu.demand"),
        ("memory", plan.demand.memory_bytes, memory, "bytes", "memory.demand"),
    ):
        names = {"replicas", *(f"{what}_{kind}_{unit}" for kind in ("request", "limit"))}
        if any(names & part.unknown.keys() for part in parts):
            continue
        pairs = list(zip(parts, amounts, strict=True))
        if any(amount is None and part.replicas for part, amount in pairs):
            continue
        total = plan.cells * sum(part.replicas * (amount or 0) for part, amount in pairs)
        if total < demand * (1 - tolerance.under):
            yield Deviation(TOTAL, what, demand, total, unit, Verdict.UNDER, rule)
