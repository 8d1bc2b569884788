"""The chart's values read back and compared with the plan, before anything is written.

What is read is the neutral model again: counts, sizes, probes, routes. The rendered manifests are compared the same
way in the tests, where there is a helm to render them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.units import parse_cpu
from cfscale.errors import ActionError
from cfscale.render.helm.fill import carried, copies, edges_of
from cfscale.render.helm.images import image_of

_SHOWN = 3
# what the platform is told beside what the profile says
_PLATFORM = ("CFN_LOG_LEVEL", "NODE_OPTIONS", "CFN_AGENT_TYPE")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def compare(plan: DeploymentPlan, text: str) -> None:
    """Raise ActionError where the values say anything else than the plan; it names the first differences."""
    found = list(_differences(plan, parsed(text)))
    if found:
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ActionError(
            f"nothing was written, the values do not say what the plan says: {'; '.join(found[:_SHOWN])}{more}"
        )


def parsed(text: str) -> dict[str, Any]:
    """A values file as it stands; raises ActionError where it is none."""
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders are the safe one
    except yaml.YAMLError as error:
        raise ActionError(f"nothing was written, the values are not YAML: {' '.join(str(error).split())}") from error
    return document if isinstance(document, dict) else {}


def _differences(plan: DeploymentPlan, values: Mapping[str, Any]) -> Iterator[str]:
    services: dict[str, Any] = values.get("services", {})
    planned = [service for service in plan.services if carried(service)]
    if list(services) != [service.name for service in planned]:
        yield f"services are {', '.join(services)}"
    for service in planned:
        read = facts_read(service.name, services.get(service.name, {}))
        for name, value in facts(service).items():
            if read.get(name) != value:
                # a variable or an argument may hold what must not be shown
                shown = "" if name in ("env", "args") else f": {read.get(name)!r}, planned {value!r}"
                yield f"services.{service.name}: {name} differs{shown}"
    if values.get("networkPolicy", {}).get("edges") != edges_of(plan):
        yield "networkPolicy.edges differ"


def facts(service: Service) -> dict[str, object]:
    """What a chart says of a service, from the plan."""
    image = image_of(service)
    return {
        "image": (image.registry, image.repository, image.tag, image.digest),
        "replicas": copies(service),
        "cpu_request": service.cpu_request_millicores,
        "cpu_limit": service.cpu_limit_millicores,
        "memory_request": service.memory_limit_bytes or service.memory_request_bytes,
        "memory_limit": service.memory_limit_bytes,
        "port": None if service.name == "pooler" else service.port,
        "health": (service.health.kind.value, service.health.path, service.health.rise, service.health.fall),
        "args": list(service.command),
        "env": {name: value for name, value in service.env.items() if name not in _PLATFORM},
        "routes": (list(service.routes), service.one_writer, service.sticky_header or ""),
    }


def facts_read(name: str, values: Mapping[str, Any]) -> dict[str, object]:
    """The same from the values of a service."""
    try:
        return _facts_read(name, values)
    except (KeyError, TypeError, ValueError):
        return {}


def _facts_read(name: str, values: Mapping[str, Any]) -> dict[str, object]:
    image, health, routing = values["image"], values["health"], values["routing"]
    requests, limits = values["resources"]["requests"], values["resources"]["limits"]
    return {
        "image": (image["registry"], image["repository"], image["tag"], image["digest"]),
        "replicas": (values["replicas"], values["minReplicas"], values["maxReplicas"]),
        "cpu_request": millicores(requests["cpu"]),
        "cpu_limit": millicores(limits["cpu"]) if limits["cpu"] else None,
        "memory_request": size(requests["memory"]),
        "memory_limit": size(limits["memory"]) if limits["memory"] else None,
        "port": None if name == "pooler" else values["port"],
        "health": (health["kind"], health["path"], health["rise"], health["fall"]),
        "args": values["args"],
        "env": {key: value for key, value in values["env"].items() if key not in _PLATFORM},
        "routes": (routing["prefixes"], routing["oneWriter"], routing["stickyHeader"]),
    }


def millicores(text: str) -> int:
    """``250m`` or ``2`` in millicores."""
    return int(text[:-1]) if text.endswith("m") else parse_cpu(text)


def size(text: str) -> int:
    """``512Mi`` or a plain number in bytes."""
    return int(text[:-2]) * _UNITS[text[-2:]] if text[-2:] in _UNITS else int(text)
