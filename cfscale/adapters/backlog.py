"""How much waits in a queue: Redis lists, a Prometheus query, or a number in an answer of JSON over HTTP.

What cannot be asked is not zero: the backlog then says that it is unknown, and why.
"""

import os
import socket
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from math import isfinite
from urllib.parse import quote, urlsplit

import msgspec

from cfscale.core.plan import Policy
from cfscale.core.policy import Backlog

TIMEOUT_SECONDS = 2.0
MAX_BYTES = 1024 * 1024
PASSWORD = "CFSCALE_QUEUE_PASSWORD"  # noqa: S105 - the name of a variable, not what it holds
_REDIS_PORT = 6379


class _Answer(msgspec.Struct):
    """The part of a Prometheus answer that matters: one vector."""

    data: "_Vector"


class _Vector(msgspec.Struct):
    result: list["_Sample"]


class _Sample(msgspec.Struct):
    value: tuple[float, str]


def asker(policies: Sequence[Policy]) -> Callable[[], Mapping[str, Backlog]]:
    """Who asks for the backlogs of all queue policies, each within a bounded time."""
    queues = [policy.options for policy in policies if policy.kind == "queue"]
    return lambda: {options["name"]: ask(options) for options in queues}


def ask(options: Mapping[str, str]) -> Backlog:
    """The backlog of one queue now."""
    each, source = float(options["per_replica"]), options["source"]
    try:
        waiting = _SOURCES[source](options)
    except (OSError, ValueError, LookupError, TypeError, msgspec.DecodeError) as error:
        return Backlog(options["name"], None, each, time.time(), f"{source}: {str(error) or type(error).__name__}")
    if not isfinite(waiting) or waiting < 0:
        return Backlog(options["name"], None, each, time.time(), f"{source}: {waiting:g} is no length of a queue")
    return Backlog(options["name"], waiting, each, time.time())


def _redis(options: Mapping[str, str]) -> float:
    """The length of a list."""
    parts = urlsplit(options["url"])
    address = parts.hostname, parts.port or _REDIS_PORT
    with closing(socket.create_connection(address, TIMEOUT_SECONDS)) as link, link.makefile("rb") as answers:
        if password := os.environ.get(PASSWORD):
            _command(link, "AUTH", password)
            _expect(answers.readline(MAX_BYTES), b"+")
        _command(link, "LLEN", options["key"])
        return float(_expect(answers.readline(MAX_BYTES), b":"))


def _command(link: socket.socket, *words: str) -> None:
    """Send a command in the protocol's own framing: no word can become another command."""
    raw = [word.encode() for word in words]
    link.sendall(b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in raw))


def _expect(line: bytes, kind: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    if not line.startswith(kind):
        raise ValueError(text.removeprefix("-") or "no answer")
    return text[1:]


def _prometheus(options: Mapping[str, str]) -> float:
    """The sum over the series of an instant query; none at all is unknown, not zero."""
    url = f"{options['url'].rstrip('/')}/api/v1/query?query={quote(options['query'], safe='')}"
    found = msgspec.json.decode(_get(url), type=_Answer).data.result
    if not found:
        raise ValueError("the query has no result")
    return sum(float(sample.value[1]) for sample in found)


def _http(options: Mapping[str, str]) -> float:
    """The number at a path such as ``queue.waiting`` in a JSON answer."""
    node = msgspec.json.decode(_get(options["url"]))
    for word in options["field"].split("."):
        node = node[int(word)] if isinstance(node, list) else node[word]
    return float(node)


def _get(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked: http or https
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
        return bytes(answer.read(MAX_BYTES))


_SOURCES: dict[str, Callable[[Mapping[str, str]], float]] = {
    "redis": _redis,
    "prometheus": _prometheus,
    "http": _http,
}
