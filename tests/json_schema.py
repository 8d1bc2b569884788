"""The subset of JSON Schema that ``cfscale schema`` prints, checked without a library: enough to find a document astray."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def problems(schema: Mapping[str, Any], value: object) -> list[str]:
    """Where a document departs from its schema, and how; empty where it does not."""
    return list(_problems(schema, value, schema.get("$defs", {}), "$"))


def _problems(schema: Mapping[str, Any], value: object, parts: Mapping[str, Any], where: str) -> Iterator[str]:
    if "$ref" in schema:
        yield from _problems(parts[schema["$ref"].removeprefix("#/$defs/")], value, parts, where)
    elif "anyOf" in schema:
        yield from _alternatives(schema["anyOf"], value, parts, where)
    elif "type" in schema and not _has_type(value, schema["type"]):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{where}: {value!r} does not match {schema['pattern']}"
    elif isinstance(value, list):
        yield from _items(schema, value, parts, where)
    elif isinstance(value, dict):
        yield from _members(schema, value, parts, where)


def _alternatives(
    options: Sequence[Mapping[str, Any]], value: object, parts: Mapping[str, Any], where: str
) -> Iterator[str]:
    if not any(not list(_problems(option, value, parts, where)) for option in options):
        yield f"{where}: {value!r} fits no alternative"


def _has_type(value: object, names: str | Sequence[str]) -> bool:
    names = [names] if isinstance(names, str) else names
    return any(isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool)) for name in names)


def _items(schema: Mapping[str, Any], value: list[object], parts: Mapping[str, Any], where: str) -> Iterator[str]:
    if isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            yield from _problems(schema["items"], item, parts, f"{where}[{index}]")


def _members(
    schema: Mapping[str, Any], value: dict[str, object], parts: Mapping[str, Any], where: str
) -> Iterator[str]:
    yield from (f"{where}: {name} is missing" for name in schema.get("required", ()) if name not in value)
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            yield from _problems(known[name], item, parts, f"{where}.{name}")
        elif isinstance(others, dict):
            yield from _problems(others, item, parts, f"{where}.{name}")
        elif not others:
            yield f"{where}: {name} is not known"
