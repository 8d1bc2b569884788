"""What is said on the supervisor's socket: one JSON object a line, a request and then its answer.

    {"do": "scale", "service": "agents", "count": 2, "victims": ["4711@1234"]}
    {"error": null, "report": {...}}

Every request is answered at once: it changes what is wanted, and ``status`` tells how far the supervisor has come.
"""

import socket
import time
from pathlib import Path

from msgspec import DecodeError, Struct, ValidationError
from msgspec.json import decode, encode

from cfscale.core.samples import Replica
from cfscale.errors import NotRunningError, UnavailableError

MAX_LINE_BYTES = 1024 * 1024
_ANSWER_BYTES = 64 * 1024 * 1024
REQUEST_SECONDS = 5.0


class Ping(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="ping"):
    """Ask whether anyone is there."""


class Status(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="status"):
    """Ask for the report."""


class Up(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="up"):
    """Bring services to these counts and give replicas in a crash loop another try."""

    counts: dict[str, int]
    fingerprint: str


class Scale(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="scale"):
    """Bring one service to this count; on the way down these replicas go first (default: the newest)."""

    service: str
    count: int
    victims: tuple[str, ...] = ()


class Down(Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="down"):
    """Stop everything, and then the supervisor itself."""


Request = Ping | Status | Up | Scale | Down


class Report(Struct, frozen=True):
    """The state of the deployment as its supervisor knows it."""

    supervisor: int
    replicas: tuple[Replica, ...]
    notes: tuple[str, ...]


class Answer(Struct, frozen=True):
    """The answer to any request: an error in words, or none and the report."""

    error: str | None = None
    report: Report | None = None


def read_request(line: bytes) -> Request:
    """The request of a line; raises ValueError in words for anything else."""
    try:
        request: Request = decode(line, type=Request)
    except (ValidationError, DecodeError) as error:
        raise ValueError(f"not a request: {error}") from error
    return request


def ask(path: Path, request: Request) -> Answer:
    """Send one request and return its answer.

    Raises NotRunningError where no supervisor runs, and UnavailableError when it does not answer in time, or not in words
    that are understood.
    """
    deadline = time.monotonic() + REQUEST_SECONDS
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(REQUEST_SECONDS)
            connection.connect(str(path))
            connection.sendall(encode(request) + b"\n")
            return decode(_read_line(connection, deadline), type=Answer)
    except FileNotFoundError as error:
        raise NotRunningError("no supervisor is running: start one with 'cfscale up --engine process'") from error
    except TimeoutError as error:
        raise UnavailableError(
            f"{path}: the supervisor did not answer within {REQUEST_SECONDS:g} s: see its log"
        ) from error
    except (OSError, DecodeError, ValidationError) as error:
        # nobody listens any more, or an answer ended with the supervisor; of anything else nobody knows whether it runs
        gone = NotRunningError if isinstance(error, ConnectionError) else UnavailableError
        raise gone(f"{path}: the supervisor is gone: 'cfscale up --engine process' starts a new one") from error


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    answer = bytearray()
    while not answer.endswith(b"\n"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(256 * 1024)
        if not chunk or len(answer) > _ANSWER_BYTES:
            raise ConnectionError("the answer is not complete")
        answer += chunk
    return bytes(answer)
