"""Heartbeats: a sign of life that is left somewhere, in a file or under a Redis key, and how old it is.

That is how the reference platform tells of its coordinators and agents: keys such as ``team:web:coordinator:heartbeat``
that expire after 90 seconds. The age is the time that stands in the sign (a number of seconds or milliseconds, an ISO
date, or a JSON member of that meaning), else that of the file, else what a key's own expiry bounds.

    younger than max_age   up         older, or no sign at all   down
    no age can be told     degraded   a key that neither expires nor holds a time says nothing about now
"""

import asyncio
import json
import os
from datetime import datetime
from time import time

from cfscale.adapters.probes.network import Answer, AnswerError, BlindError, Dialer
from cfscale.adapters.probes.redis import command
from cfscale.adapters.probes.resp import Replies
from cfscale.core.health import State, Target

_READ_BYTES = 4096
_MEMBERS = ("timestamp", "time", "ts", "heartbeat", "lastHeartbeat", "last_heartbeat", "updatedAt", "updated_at")
_MILLISECONDS_FROM = 1e11
_AHEAD_SECONDS = 5.0


async def probe_heartbeat(dial: Dialer, target: Target) -> Answer:
    """The file at ``host`` where that is a path, else the key ``about`` of the Redis there."""
    if target.host.startswith("/"):
        content, modified = await asyncio.to_thread(_sign, target.host)
        sent = moment(content)
        return judge(modified if sent is None else sent, target, time())
    return await _key(dial, target)


def _sign(path: str) -> tuple[bytes, float]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise AnswerError("no heartbeat: the file is not there") from error
    except OSError as error:
        raise BlindError(f"the heartbeat cannot be read: {error.strerror}") from error
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - by descriptor: a pipe must not block the open
        return file.read(_READ_BYTES) or b"", os.fstat(descriptor).st_mtime


async def _key(dial: Dialer, target: Target) -> Answer:
    wire, (key,) = await dial(), target.about
    first = command("AUTH", target.secret) if target.secret is not None else b""
    await wire.send(first + command("GET", key) + command("PTTL", key))
    replies = Replies(wire)
    if first:
        await replies.next()
    value, left = await replies.next(), await replies.next()
    if isinstance(value, Exception):
        if str(value).startswith("NOAUTH"):
            raise BlindError("the heartbeat is behind a password: give --password-file")
        raise AnswerError(f"no heartbeat: {value}")
    if not isinstance(value, bytes):
        return State.DOWN, f"no heartbeat: there is no key {key}"
    sent = moment(value)
    if sent is not None:
        return judge(sent, target, time())
    if isinstance(left, int) and left > 0:
        return State.UP, f"heartbeat; expires in {left / 1000:.0f} s unless renewed"
    return State.DEGRADED, "heartbeat of no known age: the key neither expires nor holds a time"


def judge(sent: float, target: Target, now: float) -> Answer:
    """The verdict on a sign of life that was left at ``sent``."""
    age = now - sent
    if age < -_AHEAD_SECONDS:
        return State.DEGRADED, f"heartbeat from {-age:.0f} s ahead: its clock and ours differ"
    old = f"heartbeat {max(age, 0.0):.0f} s old"
    if age > target.max_age_seconds:
        return State.DOWN, f"{old}, more than {target.max_age_seconds:g} s"
    return State.UP, old


def moment(content: bytes) -> float | None:
    """The time that a sign holds, in seconds since the epoch; None where it holds none."""
    text = content.decode("utf-8", "replace").strip().strip('"')
    if text.startswith("{"):
        text = _member(text)
    try:
        number = float(text)
    except ValueError:
        return _date(text)
    if not 1e9 <= number < 1e14:  # noqa: PLR2004 - between 2001 in seconds and 5138 in milliseconds
        return None
    return number / 1000 if number >= _MILLISECONDS_FROM else number


def _member(text: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return next((str(found[name]) for name in _MEMBERS if name in found), "") if isinstance(found, dict) else ""


def _date(text: str) -> float | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found.timestamp()
