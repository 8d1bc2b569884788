"""The values model as documents: a commented ``values.yaml``, its JSON Schema, and the table of the README."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from cfscale.render import emit
from cfscale.render.helm.base import Model
from cfscale.render.helm.values import Values

SERVICE_NAMES = "^(coordinator|agents(-[a-z0-9-]+)?|loadbalancer|queue|memory|cache|database|pooler)$"


def values_text(values: Values, heading: Sequence[str]) -> str:
    """All values as YAML; each is explained where its class comes first."""
    seen: set[type] = set()
    lines = [*(f"# {line}" for line in heading), "", *_mapping(values, "", seen)]
    return "\n".join(lines) + "\n"


def overlay_text(values: Values, heading: Sequence[str]) -> str:
    """All values as YAML without their explanations, to be laid over those of the chart."""
    lines = [*(f"# {line}" for line in heading), "", *_mapping(values, "", None)]
    return "\n".join(lines) + "\n"


def _mapping(model: Model, indent: str, seen: set[type] | None) -> Iterator[str]:
    explain = seen is not None and type(model) not in seen
    if seen is not None:
        seen.add(type(model))
    described = descriptions(type(model))
    for field in msgspec.structs.fields(type(model)):
        value, name = getattr(model, field.name), field.encode_name
        if explain and described.get(name):
            yield f"{indent}# -- {described[name]}"
        yield from _member(name, value, indent, seen)
        if not indent and name != "extraObjects":
            yield ""


def _member(name: str, value: object, indent: str, seen: set[type] | None) -> Iterator[str]:
    if isinstance(value, Struct):
        yield f"{indent}{key(name)}:"
        yield from _mapping(value, indent + "  ", seen)  # type: ignore[arg-type]  # every class of the model is one
    elif isinstance(value, Mapping) and value:
        yield f"{indent}{key(name)}:"
        for inner, item in value.items():
            yield from _member(inner, item, indent + "  ", seen)
    else:
        yield f"{indent}{key(name)}: {scalar(value)}"


def key(name: str) -> str:
    """A key as YAML: plain where it cannot be mistaken for anything else."""
    plain = name.replace("-", "").replace("_", "").isalnum() and name[0].isalpha() and name.isascii()
    return (
        name
        if plain and name.lower() not in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
        else scalar(name)
    )


def scalar(value: object) -> str:
    """A value on one line, which YAML and JSON read alike."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(emit.text(value))
    if isinstance(value, int | float):
        return f"{value:.10g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(name)}: {scalar(item)}" for name, item in value.items()) + "}"
    assert isinstance(value, Sequence)  # noqa: S101 - there is nothing else in the model
    return "[" + ", ".join(scalar(item) for item in value) + "]"


def descriptions(model: type) -> dict[str, str]:
    """Each key of a class and what it means."""
    components = _schema()["$defs"]
    properties = components[model.__name__].get("properties", {})
    return {name: item.get("description", "") or _class_words(item, components) for name, item in properties.items()}


@cache
def _schema() -> dict[str, Any]:
    return msgspec.json.schema(Values)


def _class_words(schema: Mapping[str, Any], components: Mapping[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    words = components.get(name, {}).get("description", "")
    return words if isinstance(words, str) else ""


def schema_text() -> str:
    """``values.schema.json``, which refuses what it does not know."""
    schema = copy.deepcopy(_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Values of the cfscale chart"
    schema["$defs"]["Values"]["properties"]["services"]["propertyNames"] = {"pattern": SERVICE_NAMES}
    # what a service that is off would be does not matter
    schema["$defs"]["Service"]["required"] = [
        "image",
        "port",
        "resources",
        "health",
        "replicas",
        "minReplicas",
        "maxReplicas",
    ]
    return json.dumps(_without_defaults(schema), indent=2) + "\n"


def _without_defaults(node: Any) -> Any:
    """A default belongs into values.yaml alone: in two places they part."""
    if isinstance(node, dict):
        return {name: _without_defaults(item) for name, item in node.items() if name != "default" or "$ref" not in node}
    return [_without_defaults(item) for item in node] if isinstance(node, list) else node


def table(values: Values) -> list[tuple[str, str, str]]:
    """(key, value, meaning) of every value, the services' once."""
    return list(_rows(values, ""))


def _rows(model: Model, prefix: str) -> Iterator[tuple[str, str, str]]:
    described = descriptions(type(model))
    for field in msgspec.structs.fields(type(model)):
        value, path = getattr(model, field.name), f"{prefix}{field.encode_name}"
        if field.encode_name == "services":
            first = next(iter(value.values()))
            yield from _rows(first, f"{path}.NAME.")
        elif isinstance(value, Struct):
            yield from _rows(value, f"{path}.")  # type: ignore[arg-type]  # every class of the model is one
        else:
            yield path, scalar(value), described.get(field.encode_name, "")
