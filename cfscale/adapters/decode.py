"""Strict YAML at the door: text to typed values, every mistake with its file, line and column.

The C parser is quick but crashes the process on absurd nesting, so a linear pre-scan bounds size, depth and
aliases first. Scalars stay text until the schema says what they are: ``no`` is never False, ``012`` never ten.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec
import yaml

from cfscale.errors import InputError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000
_PROBLEM = re.compile(r"(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>[^`]*)`)?", re.DOTALL)
_AMBIGUOUS = re.compile(
    r"(?i:y|n|yes|no|on|off)|[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+|[-+]?[0-9]+_[0-9_]+", re.ASCII
)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PLAIN_TAGS = frozenset(("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq"))
_WORDS = {
    " | null": "",
    "`int`": "a whole number",
    "`int": "a whole number",
    "`str`": "text",
    "`str": "text",
    "`float`": "a number",
    "`float": "a number",
    "`object`": "a mapping",
    "`object": "a mapping",
    "`array`": "a list",
    "`array": "a list",
    "`null`": "nothing",
    "`bool`": "true or false",
    "Object missing": "missing",
}
T = TypeVar("T")
Path = tuple[str | int, ...]


@dataclass(slots=True)
class _Document:
    """Values of a YAML document, where each stands, and what other YAML readers would take differently."""

    name: str
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    nodes: int = 0

    def error(self, line: int, column: int, problem: str) -> InputError:
        return InputError(f"{self.name}:{line}:{column}: {problem}")


def decode_yaml(raw: bytes, schema: type[T], name: str) -> tuple[T, tuple[str, ...]]:
    """One YAML document as a value of ``schema``, and warnings on scalars that other readers take differently.

    Raises InputError as ``name:line:column: problem`` for anything that is not exactly such a document.
    """
    document = _Document(name)
    text = _checked_text(raw, document)
    value = _build(_compose(text, document), (), 0, document)
    if not isinstance(value, dict):
        raise document.error(1, 1, "the document must be a mapping of keys to values")
    try:
        return msgspec.convert(value, schema, strict=False), tuple(document.warnings)
    except msgspec.ValidationError as error:
        raise _schema_error(error, value, schema, document) from error


def _checked_text(raw: bytes, document: _Document) -> str:
    if len(raw) > MAX_BYTES:
        raise document.error(1, 1, f"the file has {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise document.error(
            raw.count(b"\n", 0, error.start) + 1, 1, "not UTF-8 text: save the file as UTF-8"
        ) from error
    control = _FORBIDDEN.search(text)
    if control:
        line, column = _position(text, control.start())
        raise document.error(line, column, f"control character {control[0]!r} is not allowed: remove it")
    _check_depth(text, document)
    return text


def _position(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _check_depth(text: str, document: _Document) -> None:
    """Refuse nesting that could overflow the C parser's stack: flow brackets, and ``- - -`` or ``? ?`` on one line.

    Brackets inside quoted text count too: a profile never needs that many.
    """
    depth = 0
    for match in re.finditer(r"[\[{]|[\]}]", text):
        depth = depth + 1 if match[0] in "[{" else max(0, depth - 1)
        if depth > MAX_DEPTH:
            raise document.error(*_position(text, match.start()), f"nested more than {MAX_DEPTH} levels deep")
    for number, line in enumerate(text.splitlines(), start=1):
        indent = len(line) - len(line.lstrip(" "))
        lead = re.match(r"(?:[-?:]\s+)*", line[indent:])
        if indent > 4 * MAX_DEPTH or (lead is not None and len(lead[0].split()) > MAX_DEPTH):
            raise document.error(number, 1, f"nested more than {MAX_DEPTH} levels deep")


def _compose(text: str, document: _Document) -> yaml.Node:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise document.error(line, column, f"not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise document.error(1, 1, f"not valid YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    if node is None:
        raise document.error(1, 1, "the file is empty: 'cfscale init' writes a commented example")
    return node


def _build(node: yaml.Node, path: Path, depth: int, document: _Document) -> object:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    document.marks[path] = (line, column)
    document.nodes += 1
    if document.nodes > MAX_NODES or depth > MAX_DEPTH:
        raise document.error(line, column, "the document expands to too many values: use fewer aliases")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
        raise document.error(line, column, f"the tag '{node.tag}' is not allowed: write a plain value")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, line, column, document)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), depth + 1, document) for index, item in enumerate(node.value)]
    return _mapping(node, path, depth, document)


def _scalar(node: yaml.ScalarNode, line: int, column: int, document: _Document) -> str | None:
    text = str(node.value)
    if not node.style and node.tag == "tag:yaml.org,2002:null":
        return None
    if not node.style and _AMBIGUOUS.fullmatch(text):
        document.warnings.append(
            f'{document.name}:{line}:{column}: {text} is read as text; quote it ("{text}"), other YAML readers differ'
        )
    return text


def _mapping(node: yaml.Node, path: Path, depth: int, document: _Document) -> dict[str, object]:
    values: dict[str, object] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
            raise document.error(line, column, "a key must be a plain word (merge keys are not supported)")
        key = str(key_node.value)
        if key in values:
            raise document.error(line, column, f"duplicate key '{key}': keep one of them")
        values[key] = _build(value_node, (*path, key), depth + 1, document)
        document.marks[(*path, key)] = (line, column)
    return values


def _schema_error(error: msgspec.ValidationError, value: object, schema: Any, document: _Document) -> InputError:
    match = _PROBLEM.fullmatch(str(error))
    what, dotted = (match["what"], match["path"] or "$") if match else (str(error), "$")
    path, found = _locate(dotted, value, schema)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        line, column = document.marks.get((*path, unknown[1]), (1, 1))
        return document.error(line, column, f"unknown key '{unknown[1]}'{_nearest(unknown[1], _struct_of(found))}")
    if match and match["key"]:
        found = next(get_args(option)[0] for option in _options(found) if get_origin(option) is dict)
    line, column = document.marks.get(path, (1, 1))
    label = ".".join(str(part) for part in path)
    return document.error(line, column, f"{label + ': ' if label else ''}{_plain(what, found)}")


def _locate(dotted: str, value: Any, schema: Any) -> tuple[Path, Any]:
    """The path msgspec means (it writes ``[...]`` for any key), and the schema that stands there."""
    path: Path = ()
    for name, index in re.findall(r"\.([A-Za-z_]\w*)|\[(\.\.\.|\d+)\]", dotted):
        key = name or (int(index) if index.isdigit() else _culprit(value, _inner(schema, "")))
        value, schema, path = value[key], _inner(schema, key), (*path, key)
    return path, schema


def _culprit(value: Mapping[str, object], inner: Any) -> str:
    """The first key of a mapping whose value does not fit ``inner``: msgspec does not name it."""
    for key, item in value.items():
        try:
            msgspec.convert(item, inner, strict=False)
        except msgspec.ValidationError:
            return key
    return next(iter(value))


def _options(schema: Any) -> tuple[Any, ...]:
    """The members of a union, Annotated stripped; any other schema alone."""
    if hasattr(schema, "__metadata__"):
        return _options(schema.__origin__)
    if isinstance(schema, UnionType):
        return tuple(option for member in get_args(schema) for option in _options(member))
    return (schema,)


def _inner(schema: Any, key: str | int) -> Any:
    for option in _options(schema):
        if getattr(option, "__origin__", None) in (dict, list):
            return get_args(option)[-1]
    fields = msgspec.structs.fields(_struct_of(schema))
    return next(item.type for item in fields if item.encode_name == key)


def _struct_of(schema: Any) -> Any:
    options = (option for option in _options(schema) if isinstance(option, type))
    return next((option for option in options if issubclass(option, msgspec.Struct)), None)


def _nearest(word: str, struct: Any) -> str:
    import difflib  # only a mistake pays for it

    names = [item.encode_name for item in msgspec.structs.fields(struct)]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f": did you mean '{close[0]}'?" if close else f": known keys are {', '.join(sorted(names))}"


def _plain(what: str, schema: Any) -> str:
    """The complaint in an operator's words; where only some words are allowed, they are named."""
    allowed = [word for option in _options(schema) if get_origin(option) is Literal for word in get_args(option)]
    if allowed:
        return f"{what[0].lower()}{what[1:]}: write {' or '.join(allowed)}"
    described = [meta.description for meta in getattr(schema, "__metadata__", ()) if meta.description]
    if described:
        return f"expected {described[0]}"
    for technical, plain in _WORDS.items():
        what = what.replace(technical, plain)
    what = (
        what.replace("number`", "number")
        .replace("text`", "text")
        .replace("mapping`", "mapping")
        .replace("list`", "list")
    )
    return what[0].lower() + what[1:]
