"""What a Compose file deploys, whoever wrote it: services with counts, amounts, images and ports.

    events ─▶ values (bounded depth and size; anchors, merge keys) ─▶ variables ─▶ services

A variable stands for its default; without one its value is unknown, and said to be. The file is read strictly: what
is malformed is an InputError with its line and column. The environment and ``.env`` are not consulted: they are of
the machine that reads, not of the one that runs.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from msgspec import Struct

from cfscale.core.deviation import Deployed
from cfscale.core.units import parse_cpu, parse_duration, parse_size
from cfscale.errors import InputError

STACK = "stack.yaml"
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", STACK)
MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000
# what Docker grants a container to stop in where the file says nothing
_DOCKER_GRACE = "10s"
_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::?-(?P<default>[^${}]*)|[^{}]*)\})",
    re.ASCII,
)
_COUNT = re.compile(r"[0-9]{1,6}", re.ASCII)
_SHORT_PORT = re.compile(
    r"(?:(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?(?P<published>[0-9]+(?:-[0-9]+)?)?:)?"
    r"(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>tcp|udp))?",
    re.ASCII,
)
_ZERO = re.compile(r"0+(?:\.0*)?[A-Za-z]*", re.ASCII)
T = TypeVar("T")


class _Node(Struct, frozen=True):
    """A value and where it stands; ``weight`` counts the values in it, aliases expanded."""

    value: "str | list[_Node] | dict[str, _Node] | None"
    line: int
    column: int
    weight: int = 1


class _UnknownError(Exception):
    """A value is left to a variable without a default; the text is what the file says."""


def manifest(path: Path) -> Path:
    """The Compose file that a path names, itself or in a folder; raises InputError where there is none."""
    if not path.is_dir():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: no {NAMES[0]} in it: give the folder of a rendered plan, or a Compose file")


def read_deployed(path: Path) -> tuple[tuple[Deployed, ...], tuple[str, ...]]:
    """The services of a Compose file, and remarks on what of it was not counted; raises InputError."""
    file = manifest(path)
    root = _Reader(str(file)).read(_text(file))
    return _services(str(file), root)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}: give a Compose file, or the folder of a rendered plan") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{file}:1:1: more than {MAX_BYTES} bytes: this is no Compose file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}:1: not UTF-8 text: save the file as UTF-8") from error


class _Reader:
    """Builds values from the events of the parser, which are lazy: nothing is built that is not within bounds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._anchors: dict[str, _Node] = {}
        self._nodes = 0

    def read(self, text: str) -> _Node:
        """The single mapping of the text; raises InputError."""
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        try:
            root = self._documents(events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
            raise InputError(f"{self._name}:{place}: not valid YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"{self._name}:1:1: not valid YAML: {' '.join(str(error).split())}") from error
        if root is None or not isinstance(root.value, dict):
            raise InputError(f"{self._name}:1:1: not a Compose file: it must be a mapping with 'services'")
        return root

    def _documents(self, events: Iterator[Any]) -> _Node | None:
        root = None
        for event in events:
            if isinstance(event, yaml.NodeEvent):
                if root is not None:
                    raise self._error(event, "a second document: keep one of them")
                root = self._node(event, events, 0)
        return root

    def _error(self, event: Any, problem: str) -> InputError:
        mark = event.start_mark
        return InputError(f"{self._name}:{mark.line + 1}:{mark.column + 1}: {problem}")

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> _Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._error(event, f"the alias '*{event.anchor}' refers to nothing before it")
            node = self._anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            empty = event.implicit[0] and event.value in ("", "~", "null")
            node = _Node(None if empty else event.value, line, column)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = self._sequence(events, depth)
            node = _Node(items, line, column, 1 + sum(item.weight for item in items))
        else:
            mapping = self._mapping(events, depth)
            node = _Node(mapping, line, column, 1 + sum(item.weight for item in mapping.values()))
        self._nodes += node.weight if isinstance(event, yaml.AliasEvent) else 1
        if self._nodes > MAX_NODES or node.weight > MAX_NODES:
            raise self._error(event, "the document expands to too many values: use fewer aliases")
        if event.anchor and not isinstance(event, yaml.AliasEvent):
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, events: Iterator[Any], depth: int) -> list[_Node]:
        items: list[_Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, events, depth + 1))
        return items

    def _mapping(self, events: Iterator[Any], depth: int) -> dict[str, _Node]:
        own: dict[str, _Node] = {}
        merged: dict[str, _Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be a plain word")
            value = self._node(next(events), events, depth + 1)
            if event.value == "<<" and event.implicit[0]:
                merged = {**self._merge(event, value), **merged}
            elif event.value in own:
                raise self._error(event, f"duplicate key '{event.value}': keep one of them")
            else:
                own[event.value] = value
        return {**merged, **own}

    def _merge(self, event: Any, value: _Node) -> dict[str, _Node]:
        """What ``<<`` brings in: of a list of mappings the first wins."""
        merged: dict[str, _Node] = {}
        for source in value.value if isinstance(value.value, list) else [value]:
            if not isinstance(source.value, dict):
                raise self._error(event, "'<<' takes a mapping or a list of mappings")
            merged = {**source.value, **merged}
        return merged


def _services(name: str, root: _Node) -> tuple[tuple[Deployed, ...], tuple[str, ...]]:
    top = _Part(name, root, "")
    if "include" in top.known():
        raise top.error("include", "'include' is not followed: give what 'docker compose config' prints")
    found, notes = [], []
    services = top.below("services")
    if not services.known():
        raise top.error("services", "'services' is missing or empty: this is no Compose file")
    for service in services.known():
        part = services.below(service)
        if part.node is not None and "profiles" in part.known():
            notes.append(f"{service} starts only with a profile of Compose and is not counted")
            continue
        if part.is_mapping("labels") and "cfscale.job" in part.below("labels").known():
            continue  # it ends, and holds nothing
        found.append(_deployed(service, part))
    return tuple(found), tuple(notes)


def _deployed(name: str, part: "_Part") -> Deployed:
    if "extends" in part.known():
        raise part.error("extends", f"{name}: 'extends' is not followed: give what 'docker compose config' prints")
    deploy, values = part.below("deploy"), _Values()
    limits, reserved = deploy.below("resources").below("limits"), deploy.below("resources").below("reservations")
    label = values.of(
        "part_of", lambda: part.below("labels").text("cfscale.service") if part.is_mapping("labels") else None
    )
    replicas = values.of("replicas", deploy.first(part, "replicas", "scale", _count))
    return Deployed(
        name=name,
        part_of=label or name,
        replicas=1 if replicas is None else replicas,
        image=values.of("image", lambda: part.text("image")),
        cpu_request_millicores=values.of("cpu_request_millicores", lambda: reserved.parsed("cpus", _cpu)),
        cpu_limit_millicores=values.of("cpu_limit_millicores", limits.first(part, "cpus", "cpus", _cpu)),
        memory_request_bytes=values.of(
            "memory_request_bytes", reserved.first(part, "memory", "mem_reservation", _size)
        ),
        memory_limit_bytes=values.of("memory_limit_bytes", limits.first(part, "memory", "mem_limit", _size)),
        ports=values.of("ports", lambda: _ports(part)) or (),
        stop_grace_milliseconds=values.of("stop_grace_milliseconds", lambda: _grace(part)) or 0,
        checked=_checked(part),
        unknown=values.unknown,
    )


class _Values:
    """Takes what is known, and keeps the text of what is not."""

    def __init__(self) -> None:
        self.unknown: dict[str, str] = {}

    def of(self, name: str, value: Callable[[], T | None]) -> T | None:
        """The value, or None where a variable hides it."""
        try:
            return value()
        except _UnknownError as error:
            self.unknown[name] = str(error)
            return None


class _Part(Struct, frozen=True):
    """A mapping of the file, perhaps one that is not there, and where it is."""

    file: str
    node: _Node | None
    label: str

    def error(self, key: str, problem: str) -> InputError:
        """The complaint with the place of the key, or of the mapping."""
        node = self._get(key) or self.node
        return InputError(f"{self.file}:{node.line if node else 1}:{node.column if node else 1}: {problem}")

    def known(self) -> Mapping[str, _Node]:
        """The keys there are."""
        return self.node.value if self.node is not None and isinstance(self.node.value, dict) else {}

    def _get(self, key: str) -> _Node | None:
        return self.known().get(key)

    def is_mapping(self, key: str) -> bool:
        """Whether a mapping stands there."""
        node = self._get(key)
        return node is not None and isinstance(node.value, dict)

    def below(self, key: str) -> "_Part":
        """The mapping at a key, empty where there is none; raises InputError where something else stands there."""
        node, label = self._get(key), f"{self.label}{key}"
        if node is not None and node.value is not None and not isinstance(node.value, dict):
            raise self.error(key, f"{label}: expected a mapping")
        return _Part(self.file, node, f"{label}.")

    def items(self, key: str) -> list[_Node]:
        """The list at a key; raises InputError where something else stands there."""
        node = self._get(key)
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, list):
            raise self.error(key, f"{self.label}{key}: expected a list")
        return node.value

    def text(self, key: str) -> str | None:
        """The text at a key with its variables filled in; raises _UnknownError for one without a default."""
        node = self._get(key)
        if node is None or node.value is None:
            return None
        if not isinstance(node.value, str):
            raise self.error(key, f"{self.label}{key}: expected a plain value")
        return _filled(node.value)

    def parsed(self, key: str, parse: Callable[[str], int | None]) -> int | None:
        """The amount at a key; raises InputError with its place."""
        text = self.text(key)
        if text is None:
            return None
        try:
            return parse(text)
        except InputError as error:
            raise self.error(key, f"{self.label}{key}: {error}") from error

    def first(
        self, other: "_Part", key: str, legacy: str, parse: Callable[[str], int | None]
    ) -> Callable[[], int | None]:
        """The amount at a key of this mapping, or else at the older key of the other."""

        def value() -> int | None:
            return self.parsed(key, parse) if key in self.known() else other.parsed(legacy, parse)

        return value


def _filled(text: str) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        if match["default"] is None:
            raise _UnknownError(text)
        return match["default"]

    if "$" in _VARIABLE.sub("", text):  # nested, or what Compose itself refuses
        raise _UnknownError(text)
    return _VARIABLE.sub(replacement, text)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise InputError(f"'{text}' is not a number of replicas")
    return int(text)


def _cpu(text: str) -> int | None:
    """Zero is Docker's word for no limit."""
    return None if _ZERO.fullmatch(text) else parse_cpu(text)


def _size(text: str) -> int | None:
    """Docker's sizes, whose units are of either case; zero is no limit."""
    number = text.rstrip("kKmMgGtTiIbB")
    unit = text[len(number) :].upper().replace("IB", "iB")
    return None if _ZERO.fullmatch(text) else parse_size(number + unit)


def _grace(part: _Part) -> int | None:
    key = "stop_grace_period"
    if part.text(key) is None:
        return round(parse_duration(_DOCKER_GRACE) * 1000)
    return part.parsed(key, lambda text: round(parse_duration(text) * 1000))


def _checked(part: _Part) -> bool:
    """Whether a health check is stated and not switched off; what the image brings along cannot be seen here."""
    check = part.below("healthcheck")
    node = check.known().get("test")
    if node is None or node.value is None:
        return False
    first = node.value[0].value if isinstance(node.value, list) and node.value else node.value
    return first != "NONE" and check.known().get("disable", _Node("false", 1, 1)).value != "true"


def _ports(part: _Part) -> tuple[str, ...]:
    found = []
    for node in part.items("ports"):
        if isinstance(node.value, dict):
            found.append(_long_port(_Part(part.file, node, f"{part.label}ports.")))
        else:
            found.append(_short_port(part, node))
    return tuple(sorted(port for port in found if port))


def _long_port(port: _Part) -> str:
    published, host, target = port.text("published"), port.text("host_ip") or "0.0.0.0", port.text("target")  # noqa: S104
    if target is None:
        raise port.error("target", "a port without 'target'")
    return _port(host, published, target, port.text("protocol"))


def _short_port(part: _Part, node: _Node) -> str:
    text = _filled(node.value) if isinstance(node.value, str) else ""
    match = _SHORT_PORT.fullmatch(text)
    if match is None:
        raise InputError(f"{part.file}:{node.line}:{node.column}: '{text}' is not a port: write HOST:PORT:TARGET")
    return _port(match["host"] or "0.0.0.0", match["published"], match["target"], match["protocol"])  # noqa: S104


def _port(host: str, published: str | None, target: str, protocol: str | None) -> str:
    """A port as the plan writes it, an IPv6 address in brackets; without a published one Docker chooses any."""
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{host}:{published or 'any'}->{target}" + ("/udp" if protocol == "udp" else "")
