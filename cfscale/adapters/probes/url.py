"""From text to a target: one URL a target, refused at the door where it is wrong.

http(s)://host[:port]/path          tcp://host:port               tls://host:port
redis(s)://host[:port]              postgres://[user@]host[:port][/database]
grpc(s)://host:port[/service]       dns://server[:port]/name[?type=AAAA]
jsonrpc+http(s)://host[:port][/rpc] agent://host:port             docker://container
heartbeat:///file[?max_age=90s]     heartbeat://redis[:port]/key[?max_age=90s]
exec:///program[?arg=...&arg=...][&codes=nagios]
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from msgspec import Struct

from cfscale.adapters.probes.network import forbidden
from cfscale.core.health import Kind, Target, shown
from cfscale.core.plan import Health, HealthKind
from cfscale.core.workload import duration
from cfscale.errors import InputError

GROUP = "urls"
_RECORD_TYPES = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
_LITERAL = re.compile(r"\[[^\[\]]*\](?::[0-9]*)?", re.ASCII)
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", re.ASCII)
_BROKEN = re.compile(r"[\x00-\x20\x7f-\x9f]")
# what fleets are made of needs no thorough parser: thousands of these are read in one go
_PLAIN = re.compile(r"(https?)://([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::([0-9]{1,5}))?(/[A-Za-z0-9/._-]*)?", re.ASCII)
_LAST_PORT, _LAST_BYTE = 65_535, 255
_MAX_AGE = "90s"


class _Scheme(Struct, frozen=True):
    """What a scheme stands for. ``options`` are the names that its query may hold; None: the query is the path's."""

    kind: Kind
    tls: bool = False
    port: int | None = None
    path: bool = False
    user: bool = False
    options: tuple[str, ...] | None = ()


_SCHEMES: Mapping[str, _Scheme] = {
    "http": _Scheme(Kind.HTTP, port=80, path=True, user=True, options=None),
    "https": _Scheme(Kind.HTTP, tls=True, port=443, path=True, user=True, options=None),
    "tcp": _Scheme(Kind.TCP),
    "tls": _Scheme(Kind.TLS, tls=True),
    "redis": _Scheme(Kind.REDIS, port=6379),
    "rediss": _Scheme(Kind.REDIS, tls=True, port=6379),
    "postgres": _Scheme(Kind.POSTGRES, port=5432, path=True, user=True),
    "postgresql": _Scheme(Kind.POSTGRES, port=5432, path=True, user=True),
    "grpc": _Scheme(Kind.GRPC, path=True),
    "grpcs": _Scheme(Kind.GRPC, tls=True, port=443, path=True),
    "dns": _Scheme(Kind.DNS, port=53, path=True, options=("type",)),
    "jsonrpc+http": _Scheme(Kind.JSONRPC, port=80, path=True, options=None),
    "jsonrpc+https": _Scheme(Kind.JSONRPC, tls=True, port=443, path=True, options=None),
    "agent": _Scheme(Kind.AGENT),
    "docker": _Scheme(Kind.DOCKER, port=0),
    "heartbeat": _Scheme(Kind.HEARTBEAT, port=6379, path=True, options=("max_age",)),
    "exec": _Scheme(Kind.EXEC, port=0, path=True, options=("arg", "codes")),
}
SCHEMES = tuple(_SCHEMES)
_HEALTH_KINDS = {
    "http": HealthKind.HTTP,
    "tcp": HealthKind.TCP,
    "redis": HealthKind.REDIS,
    "jsonrpc": HealthKind.JSONRPC,
}
_WITH_PASSWORD = (Kind.REDIS, Kind.HEARTBEAT)


def parse_target(text: str, *, timeout_seconds: float, password: str | None = None) -> Target:
    """The target of one URL; raises InputError. ``password`` is for redis, and the URL's own is never shown."""
    if (match := _PLAIN.fullmatch(text)) and (plain := _plain(text, match, timeout_seconds)):
        return plain
    name = shown(re.sub(r"//.*@", "//", text, flags=re.DOTALL))  # in a wrong URL the password may be anywhere
    if _BROKEN.search(text):
        raise InputError(f"'{name}': a URL holds no spaces, line breaks or control characters: encode them as %XX")
    parts = _split(text, name)
    if parts.scheme not in _SCHEMES:
        raise InputError(f"'{name}': no such scheme: write {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    scheme = _SCHEMES[parts.scheme]
    options = _checked(scheme, parts, name)
    kind = scheme.kind
    return Target(
        name=redacted(text),
        host=_place(kind, parts, name),
        port=_port(parts, name, scheme.port),
        health=_health(kind, parts, timeout_seconds),
        group=GROUP,
        tls=scheme.tls,
        any_success=True,
        secret=_credentials(parts) if kind is Kind.HTTP else password if kind in _WITH_PASSWORD else None,
        asked_in=None if kind.value in _HEALTH_KINDS else kind,
        about=_about(kind, parts, options, name),
        user=_user(kind, parts, options),
        max_age_seconds=duration(dict(options).get("max_age", _MAX_AGE), 0.0, f"'{name}': max_age"),
    )


def _plain(text: str, match: re.Match[str], timeout_seconds: float) -> Target | None:
    scheme, host, port_text, path = match.groups()
    port = int(port_text) if port_text else _SCHEMES[scheme].port or 0
    canonical = all(int(part) <= _LAST_BYTE and str(int(part)) == part for part in host.split("."))
    if not canonical or not 1 <= port <= _LAST_PORT or forbidden(host):
        return None  # the thorough parser says what is wrong
    health = _plain_health(path or "/", timeout_seconds)
    return Target(text, host, port, health, GROUP, scheme == "https", True)  # noqa: FBT003 - any_success


@lru_cache(maxsize=1024)
def _plain_health(path: str, timeout_seconds: float) -> Health:
    return Health(HealthKind.HTTP, path, timeout_seconds=timeout_seconds)


def parse_targets(
    lines: Iterable[str], where: str, *, timeout_seconds: float, password: str | None = None
) -> tuple[Target, ...]:
    """The targets of a file, one URL a line; ``#`` starts a comment line. InputError says ``where:line``."""
    targets = []
    for number, line in enumerate(lines, 1):
        text = line.strip(" \t\r\n")
        if not text or text.startswith("#"):
            continue
        try:
            targets.append(parse_target(text, timeout_seconds=timeout_seconds, password=password))
        except InputError as error:
            raise InputError(f"{where}:{number}: {error}") from error
    return tuple(targets)


def redacted(text: str) -> str:
    """A well-formed URL as it may be shown: without user and password, and without control characters."""
    return shown(re.sub(r"//[^/?#]*@", "//", text, count=1))


def _split(text: str, name: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError as error:
        raise InputError(f"'{name}': not a URL: write http://host:port/path") from error


def _checked(scheme: _Scheme, parts: SplitResult, name: str) -> list[tuple[str, str]]:
    """The options in the query; raises InputError for whatever the scheme has no use for."""
    kind = scheme.kind
    if not scheme.path and (parts.path.strip("/") or parts.query):
        place = "container" if kind is Kind.DOCKER else "host:port"
        raise InputError(f"'{name}': {parts.scheme} takes no path: write {parts.scheme}://{place}")
    if "@" in parts.netloc and not scheme.user:
        raise InputError(f"'{name}': no credentials here: give the redis password with --password-file")
    if kind is Kind.POSTGRES and parts.password is not None:
        raise InputError(f"'{name}': no password here: that PostgreSQL asks for one is proof of life")
    if scheme.options is None:
        return []
    options = parse_qsl(parts.query, keep_blank_values=True)
    if unknown := next((key for key, _ in options if key not in scheme.options), None):
        known = ", ".join(scheme.options) or "none"
        raise InputError(f"'{name}': no option '{unknown}' here: {parts.scheme} knows {known}")
    return options


def _place(kind: Kind, parts: SplitResult, name: str) -> str:
    """The host, or the file that stands in for one; empty where the target is on this machine."""
    if kind is Kind.DOCKER:
        if not _CONTAINER.fullmatch(parts.netloc):
            raise InputError(f"'{name}': no name of a container: write docker://name")
        return ""
    if kind is Kind.EXEC or (kind is Kind.HEARTBEAT and not parts.netloc):
        path = unquote(parts.path)
        if parts.netloc or not path.strip("/"):
            raise InputError(f"'{name}': write three slashes and an absolute path: {parts.scheme}:///path")
        return "" if kind is Kind.EXEC else path
    return _host(parts, name)


def _about(kind: Kind, parts: SplitResult, options: Sequence[tuple[str, str]], name: str) -> tuple[str, ...]:
    """What the target is asked about, in the order that its protocol wants."""
    path = unquote(parts.path).strip("/")
    match kind:
        case Kind.DNS:
            record = dict(options).get("type", "A").upper()
            if not path or record not in _RECORD_TYPES:
                raise InputError(f"'{name}': write dns://server/name?type=TYPE, one of {', '.join(_RECORD_TYPES)}")
            return (path, record)
        case Kind.HEARTBEAT if parts.netloc:
            if not path:
                raise InputError(f"'{name}': the key is missing: write heartbeat://host:port/key")
            return (path,)
        case Kind.POSTGRES | Kind.GRPC:
            return (path,) if path else ()
        case Kind.EXEC:
            return (unquote(parts.path), *(value for key, value in options if key == "arg"))
        case Kind.DOCKER:
            return (parts.netloc,)
        case _:
            return ()


def _user(kind: Kind, parts: SplitResult, options: Sequence[tuple[str, str]]) -> str:
    if kind is Kind.POSTGRES:
        return unquote(parts.username or "")
    return dict(options).get("codes", "") if kind is Kind.EXEC else ""


def _host(parts: SplitResult, name: str) -> str:
    host = parts.hostname or ""
    literal = "[" in parts.netloc
    if literal and not _LITERAL.fullmatch(parts.netloc.rpartition("@")[2]):
        raise InputError(f"'{name}': no valid host: an IPv6 address stands in [ ], and nothing but a port after it")
    try:
        address = ip_address(host)
    except ValueError:
        return _named_host(host, name, literal=literal)
    if reason := forbidden(str(address)):
        raise InputError(f"'{name}': {reason}")
    return host


def _named_host(host: str, name: str, *, literal: bool) -> str:
    try:
        ascii_host = host.encode("idna").decode("ascii") if not host.isascii() else host
    except UnicodeError:
        ascii_host = ""
    if literal or not _HOST.fullmatch(ascii_host):
        raise InputError(f"'{name}': no valid host: write a name, an IPv4 address, or an IPv6 address in [ ]")
    return ascii_host


def _port(parts: SplitResult, name: str, default: int | None) -> int:
    if default == 0:
        return 0
    try:
        port = parts.port if parts.port is not None else default
    except ValueError:
        port = 0
    if port is None:
        raise InputError(f"'{name}': the port is missing: write {parts.scheme}://host:port")
    if not 1 <= port <= _LAST_PORT:
        raise InputError(f"'{name}': the port is not one: write a number from 1 to {_LAST_PORT}")
    return port


def _health(kind: Kind, parts: SplitResult, timeout_seconds: float) -> Health:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rpc_path = path if path != "/" else "/rpc"
    spoken = _HEALTH_KINDS.get(kind.value, HealthKind.NONE)
    return Health(kind=spoken, path=path, rpc_path=rpc_path, timeout_seconds=timeout_seconds)


def _credentials(parts: SplitResult) -> str | None:
    """``user:password`` for HTTP basic authentication."""
    if "@" not in parts.netloc:
        return None
    return f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
