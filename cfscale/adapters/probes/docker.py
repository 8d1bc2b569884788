"""What a Docker engine knows of one container: whether it runs, and what its own HEALTHCHECK said last.

    running, healthy or no check   up         starting            starting
    unhealthy, restarting, exited  down       paused              maintenance
    killed for memory, restarted   degraded   while it runs again

The engine is asked over its socket with a plain GET, which a filtering proxy before the socket lets through.
"""

import os
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from cfscale.adapters.probes.http import SUCCESS, exchange, parse_json, request
from cfscale.adapters.probes.network import Answer, AnswerError, BlindError, Dialer
from cfscale.core.health import State, Target

_SOCKET = "/var/run/docker.sock"
_NOT_FOUND = 404
_PORT = 2375


async def probe_docker(dial: Dialer, target: Target) -> Answer:
    """Inspect the container ``about``; raises BlindError where the engine does not answer."""
    (name,) = target.about
    engine = Dialer(dial.network, _engine(target), dial.deadline, marks=dial.marks)
    try:
        await engine.resolve()
        question = request("GET", f"/containers/{quote(name, safe='')}/json", replace(target, host="docker", port=80))
        response = await exchange(await engine(), question, with_body=True)
    except TimeoutError:
        raise
    except (OSError, AnswerError) as error:
        raise BlindError(f"the Docker engine cannot be asked: {getattr(error, 'strerror', None) or error}") from error
    finally:
        engine.close()
    if response.status == _NOT_FOUND:
        return State.DOWN, "there is no such container"
    found = parse_json(response.body)
    if response.status not in SUCCESS or not isinstance(found, dict):
        raise BlindError(f"the Docker engine answers HTTP {response.status}")
    return judge(found)


def _engine(target: Target) -> Target:
    """Where the engine is, as the environment says."""
    url = os.environ.get("DOCKER_HOST", "")
    if not url or url.startswith("unix://"):
        return replace(target, host=url.removeprefix("unix://") or _SOCKET)
    parts = urlsplit(url)
    if parts.scheme != "tcp" or not parts.hostname:
        raise BlindError("DOCKER_HOST is neither unix:// nor tcp://")
    return replace(target, host=parts.hostname, port=parts.port or _PORT)


def judge(container: Mapping[str, object]) -> Answer:
    """The verdict on an inspected container."""
    state = _member(container, "State")
    status = str(state.get("Status", "unknown"))
    if status == "paused":
        return State.MAINTENANCE, "paused"
    if status in ("created", "removing") or (status != "running" and not state.get("Running")):
        died = " (killed for memory)" if state.get("OOMKilled") else ""
        return State.DOWN, f"{status}, exit code {state.get('ExitCode')}{died}"
    if status == "restarting":
        return State.DOWN, f"restarting, exit code {state.get('ExitCode')}"
    return _running(container, _member(state, "Health"), died=bool(state.get("OOMKilled")))


def _running(container: Mapping[str, object], health: Mapping[str, object], *, died: bool) -> Answer:
    said = str(health.get("Status", "none"))
    if said == "starting":
        return State.STARTING, "running, its health check has not answered yet"
    if said == "unhealthy":
        return State.DOWN, f"its health check fails: {_last_output(health) or 'it says nothing'}"
    words = "running, healthy" if said == "healthy" else "running; it has no health check"
    restarts = container.get("RestartCount")
    if died:
        return State.DEGRADED, f"{words}; a process of it was killed for memory"
    return State.UP, f"{words}; restarted {restarts} times" if restarts else words


def _last_output(health: Mapping[str, object]) -> str:
    log = health.get("Log")
    last = log[-1] if isinstance(log, list) and log else None
    return " ".join(str(last.get("Output", "")).split()) if isinstance(last, dict) else ""


def _member(value: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}
