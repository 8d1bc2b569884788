"""What a profile says of one service beyond the tier, checked: resources, the health question, the published address.

An InputError names where in the profile the mistake stands.
"""

import re

from cfscale.core.plan import Drain, Health, HealthKind
from cfscale.core.tier import Rules, ServiceKind
from cfscale.core.units import parse_cpu, parse_size
from cfscale.core.workload import DrainOverride, HealthOverride, ResourceOverride, duration
from cfscale.errors import InputError

_ADDRESS = r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-fA-F:.]+\]|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*"
_LEAST_INTERVAL, _MOST_INTERVAL = 0.1, 86_400.0


def resources_of(name: str, given: ResourceOverride) -> tuple[int | None, int | None]:
    """Millicores and bytes of one replica's limits, None for what is not given."""
    where = f"services.{name}.resources"
    try:
        cpu = None if given.cpu is None else parse_cpu(given.cpu)
    except InputError as error:
        raise InputError(f"{where}.cpu: {error}") from error
    try:
        return cpu, None if given.memory is None else parse_size(given.memory)
    except InputError as error:
        raise InputError(f"{where}.memory: {error}") from error


def published(publish: str | None, replicas: int, name: str) -> str | None:
    """``host:port`` for one replica, ``host:first-last`` for several: one port each."""
    if publish is None:
        return None
    host, _, port = publish.rpartition(":")
    highest = 65_536 - replicas
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= highest:
        raise InputError(f"services.{name}.publish '{publish}': write ADDRESS:PORT with a port up to {highest}")
    if host and not re.fullmatch(_ADDRESS, host, re.ASCII):
        raise InputError(f"services.{name}.publish '{publish}': write an IP address before the port, such as 127.0.0.1")
    host = host or "127.0.0.1"
    return f"{host}:{port}" if replicas == 1 else f"{host}:{port}-{int(port) + replicas - 1}"


def path_of(text: str, where: str) -> str:
    """A path that an HTTP request line can hold, or its beginning."""
    if not text.startswith("/") or any(character.isspace() for character in text):
        raise InputError(f"{where} '{text}': write a path that begins with '/' and holds no white space")
    return text


def health_of(rules: Rules, name: str, kind: ServiceKind, override: HealthOverride) -> Health:
    """How the replicas of a service are asked for their health."""
    where = f"services.{name}.health"
    return Health(
        kind=HealthKind(override.kind or str(kind.health["kind"])),
        path=path_of(str(kind.health.get("path", "/")) if override.path is None else override.path, f"{where}.path"),
        status=override.status or 200,
        json=override.json or {},
        rpc_path=path_of(
            str(kind.health.get("rpc_path", "/rpc")) if override.rpc_path is None else override.rpc_path,
            f"{where}.rpc_path",
        ),
        interval_seconds=_period(override.interval, rules, name, "interval"),
        timeout_seconds=_period(override.timeout, rules, name, "timeout"),
        start_period_seconds=duration(
            override.start_period, rules.leaf("health.start_period").seconds, f"{where}.start_period"
        ),
        rise=override.rise or int(rules.leaf("health.rise").exact),
        fall=override.fall or int(rules.leaf("health.fall").exact),
    )


def drain_of(rules: Rules, name: str, given: DrainOverride | None, grace: float) -> Drain | None:
    """How a replica of a service finishes its work before it is told to stop; None where the profile says nothing."""
    if given is None:
        return None
    where = f"services.{name}.drain"
    if given.path is None and (given.json is not None or given.status is not None):
        raise InputError(f"{where} says what the answer must be but not whom to ask: give a path")
    done = None
    if given.path is not None:
        done = Health(
            HealthKind.HTTP,
            path=path_of(given.path, f"{where}.path"),
            status=given.status or 200,
            json=given.json or {},
            timeout_seconds=rules.leaf("health.timeout").seconds,
        )
    return Drain(duration(given.limit, grace, f"{where}.limit"), done)


def _period(given: str | None, rules: Rules, name: str, what: str) -> float:
    """Seconds between questions, or for one answer: none at all would ask without end, or never hear an answer."""
    where = f"services.{name}.health.{what}"
    seconds = duration(given, rules.leaf(f"health.{what}").seconds, where)
    if not _LEAST_INTERVAL <= seconds <= _MOST_INTERVAL:
        raise InputError(f"{where} '{given}': give 100ms to 1d")
    return seconds
