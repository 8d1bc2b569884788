"""From text to a target: http, https, tcp, redis and jsonrpc+http(s) URLs, refused at the door when they are wrong."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from cfscale.adapters.probes.network import forbidden
from cfscale.core.health import Target, shown
from cfscale.core.plan import Health, HealthKind
from cfscale.errors import InputError

GROUP = "urls"
_SCHEMES = {
    "http": (HealthKind.HTTP, False, 80),
    "https": (HealthKind.HTTP, True, 443),
    "tcp": (HealthKind.TCP, False, None),
    "redis": (HealthKind.REDIS, False, 6379),
    "jsonrpc+http": (HealthKind.JSONRPC, False, 80),
    "jsonrpc+https": (HealthKind.JSONRPC, True, 443),
}
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252})", re.ASCII)
_BROKEN = re.compile(r"[\x00-\x20\x7f-\x9f]")
_LAST_PORT = 65_535


def parse_target(text: str, *, timeout_seconds: float, password: str | None = None) -> Target:
    """The target of one URL; raises InputError. ``password`` is for redis, and the URL's own is never shown."""
    name = shown(re.sub(r"//.*@", "//", text, flags=re.DOTALL))  # in a wrong URL the password may be anywhere
    if _BROKEN.search(text):
        raise InputError(f"'{name}': a URL holds no spaces, line breaks or control characters: encode them as %XX")
    parts = _split(text, name)
    if parts.scheme not in _SCHEMES:
        raise InputError(f"'{name}': no such scheme: write {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    kind, tls, default_port = _SCHEMES[parts.scheme]
    if kind in (HealthKind.TCP, HealthKind.REDIS) and (parts.path.strip("/") or parts.query):
        raise InputError(f"'{name}': {parts.scheme} takes no path: write {parts.scheme}://host:port")
    if "@" in parts.netloc and kind is not HealthKind.HTTP:
        raise InputError(f"'{name}': no credentials here: give the redis password with --password-file")
    return Target(
        name=redacted(text),
        host=_host(parts, name),
        port=_port(parts, name, default_port),
        health=_health(kind, parts, timeout_seconds),
        group=GROUP,
        tls=tls,
        any_success=True,
        secret=_credentials(parts) if kind is HealthKind.HTTP else password if kind is HealthKind.REDIS else None,
    )


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


def _host(parts: SplitResult, name: str) -> str:
    host = parts.hostname or ""
    literal = "[" in parts.netloc
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
    try:
        port = parts.port if parts.port is not None else default
    except ValueError:
        port = 0
    if port is None:
        raise InputError(f"'{name}': the port is missing: write {parts.scheme}://host:port")
    if not 1 <= port <= _LAST_PORT:
        raise InputError(f"'{name}': the port is not one: write a number from 1 to {_LAST_PORT}")
    return port


def _health(kind: HealthKind, parts: SplitResult, timeout_seconds: float) -> Health:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    rpc_path = path if path != "/" else "/rpc"
    return Health(kind=kind, path=path, rpc_path=rpc_path, timeout_seconds=timeout_seconds)


def _credentials(parts: SplitResult) -> str | None:
    """``user:password`` for HTTP basic authentication."""
    if "@" not in parts.netloc:
        return None
    return f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
