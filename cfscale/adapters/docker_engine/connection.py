"""Where the Docker engine is, and what its failures mean, in cfscale's words.

The engine is the one that the ``docker`` command would use: DOCKER_HOST, else DOCKER_CONTEXT, else the current context.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from cfscale.errors import CfscaleError, UnavailableError

if TYPE_CHECKING:
    from docker import APIClient
    from docker.context import Context

CONNECTIONS = 64
_DEFAULT = "unix:///var/run/docker.sock"


class GoneError(Exception):
    """The container that was asked for does not exist (any more)."""


class LateError(UnavailableError):
    """The engine took too long over one question; it may answer others."""


def connect(timeout_seconds: float, version: str | None = None) -> "APIClient":
    """A client of the engine in use; asks for the engine's API version where none is given.

    Raises UnavailableError; no answer is waited for longer than ``timeout_seconds``.
    """
    from docker import APIClient
    from docker.utils import kwargs_from_env

    given = kwargs_from_env() if os.environ.get("DOCKER_HOST") else _context_arguments()
    _knock(str(given.get("base_url", _DEFAULT)), timeout_seconds)
    with answering():
        # the stubs say int; every transport takes a float
        timeout: int = timeout_seconds  # type: ignore[assignment]
        return APIClient(**given, version=version, timeout=timeout, max_pool_size=CONNECTIONS)


def _knock(url: str, timeout_seconds: float) -> None:
    """Raise UnavailableError with its remedy where a local socket is missing, dead or forbidden.

    docker-py would bury the reason, and leave its half-made socket open.
    """
    if not url.startswith("unix://"):
        return
    path = url.removeprefix("unix://")
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(timeout_seconds)
            door.connect(path)
    except PermissionError as exc:
        raise UnavailableError(
            f"{path}: permission denied by the Docker socket: join the group docker, or set DOCKER_HOST"
        ) from exc
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise UnavailableError(f"{path}: no Docker engine there ({why}): start it, or set DOCKER_HOST") from exc


def _context_arguments() -> dict[str, object]:
    context = _context()
    if context is None or context.name == "default":
        return {}
    return {"base_url": context.Host, "tls": context.TLSConfig if "docker" in context.tls_cfg else False}


def _context() -> "Context | None":
    from docker.context import ContextAPI

    name = os.environ.get("DOCKER_CONTEXT") or None
    try:
        context = ContextAPI.get_context(name)
    except Exception as exc:  # docker-py has no better class for a broken context file
        raise UnavailableError(f"the current Docker context cannot be read: {_line(exc)}") from exc
    if context is None:
        raise UnavailableError(f"Docker context {name or 'in use'!r} does not exist: see 'docker context ls'")
    return context


@contextmanager
def answering(refused: type[CfscaleError] = UnavailableError) -> Iterator[None]:
    """Translate what docker-py raises: an engine out of reach into UnavailableError, a refusal into ``refused``.

    An answer of "not found" becomes GoneError, one that does not come in time LateError.
    """
    from docker.errors import APIError, DockerException, NotFound
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except NotFound as exc:
        raise GoneError(_line(exc)) from exc
    except APIError as exc:
        raise refused(f"the Docker engine refused: {_line(exc.explanation or exc)}") from exc
    except msgspec.ValidationError as exc:
        raise UnavailableError(f"the Docker engine's answer is not understood: {_line(exc)}") from exc
    except (DockerException, RequestException, HTTPError, OSError) as exc:
        raise _unanswered(exc) from exc


def _unanswered(exc: Exception) -> UnavailableError:
    if "timed out" in str(exc):
        return LateError("the Docker engine does not answer in time: see 'docker info'")
    return UnavailableError(
        f"no whole answer from the Docker engine ({_line(exc)}): see 'docker info', or set DOCKER_HOST"
    )


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
