"""The last gate before anything is written: what was rendered is parsed back and compared with the plan.

The comparison starts from the plan, not from the values that the templates were given, so that a wrong decision in
between shows as well as a wrong template. A key that no template prints is refused, whoever smuggled it in.
"""

from collections.abc import Callable, Iterator, Mapping

import yaml

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.units import parse_cpu, parse_duration, parse_size
from cfscale.errors import ActionError, InputError
from cfscale.render import components
from cfscale.render.dialect import COMPOSE, Dialect
from cfscale.render.families import START_ALLOWANCE_SECONDS, health_command

_SHOWN = 3
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# components that find their configuration, or their own name, by their command
_COMMANDED = frozenset({"queue", "memory", "cache", "sentinel", "etcd"})
_UNITS: Mapping[str, Callable[[str], float]] = {
    "cpus": parse_cpu,
    "memory": parse_size,
    "interval": parse_duration,
    "timeout": parse_duration,
    "start_period": parse_duration,
    "stop_grace_period": parse_duration,
}
_MILLISECOND = 0.001


def compare(plan: DeploymentPlan, files: Mapping[str, str], dialect: Dialect = COMPOSE) -> None:
    """Raise ActionError where the rendered text says anything else than the plan; it names the first differences."""
    found = [*_manifest(plan, files[dialect.manifest], dialect)]
    for where, planned, rendered in components.facts(plan, files, dialect.peers):
        found += _differences(where, planned, rendered)
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ActionError(
            f"nothing was written, the templates do not say what the plan says: {'; '.join(found[:_SHOWN])}{more}"
        )


def _differences(where: str, planned: Mapping[str, object], rendered: Mapping[str, object]) -> Iterator[str]:
    for name, value in planned.items():
        other = rendered.get(name)
        if _same(value, other):
            continue
        # an environment or a command may hold what must not be shown
        hidden = name.startswith(("environment", "command"))
        yield f"{where}: {name} differs" if hidden else f"{where}: {name} is {other!r}, planned {value!r}"


def _same(planned: object, rendered: object) -> bool:
    if isinstance(planned, float) and isinstance(rendered, int | float):
        return abs(planned - rendered) <= _MILLISECOND
    return type(planned) is type(rendered) and planned == rendered


def _manifest(plan: DeploymentPlan, text: str, dialect: Dialect) -> Iterator[str]:
    document, expected = _parsed(text), _expected_services(plan, dialect)
    services = document.get("services")
    services = services if isinstance(services, dict) else {}
    yield from _keys(dialect.manifest, document, dialect.top_keys)
    yield from _differences(
        dialect.manifest,
        {dialect.name_key: plan.name, "services": sorted(expected)},
        {**document, "services": sorted(services)},
    )
    for name, planned in expected.items():
        rendered = services.get(name, {})
        yield from _keys(f"services.{name}", rendered, dialect.service_keys)
        yield from _differences(f"services.{name}", planned, {path: _at(rendered, path) for path in planned})


def _parsed(text: str) -> dict[str, object]:
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders are the safe one
    except yaml.YAMLError as error:
        raise ActionError(
            f"nothing was written, the templates do not give YAML: {' '.join(str(error).split())}"
        ) from error
    return document if isinstance(document, dict) else {}


def _keys(where: str, mapping: Mapping[str, object], allowed: frozenset[str]) -> Iterator[str]:
    for key in sorted(mapping.keys() - allowed):
        yield f"{where}: the key {key!r} is not ours"


def _at(mapping: object, path: str) -> object:
    """The value at a dotted path in base units; None where there is none."""
    value = mapping
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    unit = _UNITS.get(path.rpartition(".")[2])
    try:
        return unit(value) if unit is not None and isinstance(value, str) else value
    except InputError:
        return value


def _expected_services(plan: DeploymentPlan, dialect: Dialect) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for service in plan.services:
        for name in service.names:
            found[name] = _facts(service, 1 if service.members else service.replicas, dialect)
    # a job that ends is no service of the plan
    return {**found, "memory-form": {}} if plan.find("memory") else found


def _facts(service: Service, replicas: int, dialect: Dialect) -> dict[str, object]:
    facts: dict[str, object] = {
        "image": _literal(service.image),
        "deploy.replicas": replicas,
        "deploy.resources.limits.cpus": service.cpu_limit_millicores,
        "deploy.resources.limits.memory": service.memory_limit_bytes,
        "deploy.resources.reservations.cpus": service.cpu_request_millicores,
        "deploy.resources.reservations.memory": service.memory_request_bytes,
        "stop_grace_period": float(service.stop_grace_seconds),
        "ports": dialect.ports(service),
    }
    if service.command or service.name not in _COMMANDED:
        facts["command"] = [_literal(argument) for argument in service.command] or None
    facts.update({f"environment.{name}": _literal(value) for name, value in service.env.items()})
    return {**facts, **_health_facts(service, dialect)}


def _health_facts(service: Service, dialect: Dialect) -> dict[str, object]:
    """The health numbers, where this image can be asked at all."""
    if health_command(service) is None or service.name in dialect.unchecked:
        return {"healthcheck": None}
    health = service.health
    return {
        "healthcheck.interval": float(health.interval_seconds),
        "healthcheck.timeout": float(health.timeout_seconds + START_ALLOWANCE_SECONDS),
        "healthcheck.retries": health.fall,
        "healthcheck.start_period": float(health.start_period_seconds),
    }


def _literal(value: str) -> str:
    return value.replace("$", "$$")
