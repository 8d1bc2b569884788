"""The deep question to a coordinator: ``system_health`` over JSON-RPC, because its ``/health`` is a fixed text.

Cost: one request a probe against the coordinator's 120 a minute and client; three for the first probe of a server that
nobody has initialised yet. ``initialize`` is sent only when it is asked for (-32002): the server keeps one session an
``initialize`` for 30 minutes and refuses all clients at 100 of them, so a probe that opened with it would bring down
what it watches.

    result, overall "healthy"            up         (at least 80 % of the components that can be checked)
    result, overall anything else        degraded   it serves; the score and the failing components are the reason.
                                                    A fresh server is here: score 33, no memory store and no config yet
    HTTP 429, or its own "Rate limit"    degraded   rate limited
    JSON-RPC error, no tool, other HTTP  down
"""

import json
from collections.abc import Mapping

from cfscale.adapters.probes.http import SUCCESS, TOO_MANY_REQUESTS, exchange, parse_json, request
from cfscale.adapters.probes.network import Answer, AnswerError, Dialer
from cfscale.core.health import State, Target

_NOT_INITIALIZED = -32002
_HEALTHY = "healthy"
_INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "cfscale", "version": "1"},
}
_QUESTION = {"name": "system_health", "arguments": {}}


class _RateLimitedError(Exception):
    """The server counted too many requests of this client."""


async def probe_jsonrpc(dial: Dialer, target: Target) -> Answer:
    """Ask for ``system_health``, after ``initialize`` where the server wants that first."""
    try:
        reply = await _call(dial, target, "tools/call", _QUESTION)
        if _error_code(reply) == _NOT_INITIALIZED:
            refused = _problem(await _call(dial, target, "initialize", _INITIALIZE))
            if refused:
                return State.DOWN, f"initialize: {refused}"
            reply = await _call(dial, target, "tools/call", _QUESTION)
    except _RateLimitedError:
        return State.DEGRADED, "rate limited"
    problem = _problem(reply)
    return (State.DOWN, f"system_health: {problem}") if problem else _judge(reply)


async def _call(dial: Dialer, target: Target, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
    """The reply to one call; raises AnswerError where there is none."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    response = await exchange(await dial(), request("POST", target.health.rpc_path, target, body), with_body=True)
    if response.status == TOO_MANY_REQUESTS:
        raise _RateLimitedError
    reply = parse_json(response.body)
    if response.status not in SUCCESS:
        raise AnswerError(f"HTTP {response.status} to {method}")
    if not isinstance(reply, dict) or not ("result" in reply or "error" in reply):
        raise AnswerError(f"no JSON-RPC answer to {method}")
    if "rate limit" in str(_member(reply, "error").get("message", "")).lower():
        raise _RateLimitedError
    return reply


def _error_code(reply: Mapping[str, object]) -> object:
    return _member(reply, "error").get("code")


def _problem(reply: Mapping[str, object]) -> str | None:
    """What is wrong with a reply, or None."""
    if "error" in reply:
        error = _member(reply, "error")
        return f"error {error.get('code')}: {error.get('message')}"
    if _member(reply, "result").get("isError"):
        return _text(reply) or "the call failed"
    return None


def _judge(reply: Mapping[str, object]) -> Answer:
    found = parse_json(_text(reply).encode())
    if not isinstance(found, dict) or "overall" not in found:
        return State.DOWN, "system_health: its answer names no overall health"
    if found["overall"] == _HEALTHY:
        return State.UP, f"system_health: healthy, score {found.get('score')}"
    said = f"system_health: {found['overall']}, score {found.get('score')}"
    failing = ", ".join(_failing(found.get("checks")))
    return State.DEGRADED, f"{said} ({failing})" if failing else said


def _failing(checks: object) -> list[str]:
    """The components that are not well; what the server cannot check itself (``unknown``) does not count there."""
    known = [check for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []
    return [
        f"{check.get('name')}: {check.get('message') or check.get('status')}"
        for check in known
        if check.get("status") not in (_HEALTHY, "unknown")
    ]


def _text(reply: Mapping[str, object]) -> str:
    """The text of the first content item of a tool's result."""
    content = _member(reply, "result").get("content")
    first = content[0] if isinstance(content, list) and content else None
    return str(first.get("text", "")) if isinstance(first, dict) else ""


def _member(reply: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = reply.get(name)
    return value if isinstance(value, dict) else {}
