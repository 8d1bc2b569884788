"""The supervisor's end of its socket: clients that come and go, none of which can hold up the loop or another client.

Each connection has a deadline for its request and for taking the answer, and a bound on what it may send.
"""

import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from msgspec.json import encode

from cfscale.adapters.process.layout import PRIVATE_FILE
from cfscale.adapters.process.protocol import MAX_LINE_BYTES, REQUEST_SECONDS, Answer, Request, read_request
from cfscale.errors import CfscaleError, UnavailableError

Respond = Callable[[Request], Answer]
_MAX_CLIENTS = 64


def listen(path: Path) -> socket.socket:
    """A listening socket for this user alone; a name left behind by a supervisor that died is replaced.

    The caller holds the supervisor's lock: whoever bound this name before is gone.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o777 - PRIVATE_FILE)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise UnavailableError(f"{path}: cannot answer there: {error.strerror}") from error
    finally:
        os.umask(umask)
    listener.listen(_MAX_CLIENTS)
    listener.setblocking(False)  # noqa: FBT003 - the socket API's own signature
    return listener


class Connection:
    """One client: reads lines, answers each, and is dropped when it is late or says too much."""

    def __init__(self, client: socket.socket, now: float) -> None:
        self.socket = client
        self.deadline = now + REQUEST_SECONDS
        self._received = bytearray()
        self._answers = bytearray()
        client.setblocking(False)  # noqa: FBT003 - the socket API's own signature

    @property
    def events(self) -> int:
        """What to wait for: an answer that was not taken yet comes before the next request."""
        return selectors.EVENT_WRITE if self._answers else selectors.EVENT_READ

    def advance(self, respond: Respond, now: float) -> bool:
        """Go on after the socket became ready; False when the connection is over."""
        try:
            if self._answers:
                del self._answers[: self.socket.send(self._answers)]
                return True
            chunk = self.socket.recv(64 * 1024)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += chunk
        self._answer_lines(respond, now)
        return bool(chunk) and len(self._received) <= MAX_LINE_BYTES

    def _answer_lines(self, respond: Respond, now: float) -> None:
        while b"\n" in self._received:
            line, _, rest = bytes(self._received).partition(b"\n")
            self._received = bytearray(rest)
            self._answers += encode(answer_line(line, respond)) + b"\n"
            self.deadline = now + REQUEST_SECONDS


def answer_line(line: bytes, respond: Respond) -> Answer:
    """The answer to one line; what is not a request, and what cannot be done, is an answer too."""
    try:
        return respond(read_request(line))
    except (ValueError, OSError, CfscaleError) as error:
        return Answer(error=str(error))


class Control:
    """The listening socket and its clients, driven by the supervisor's selector."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, respond: Respond) -> None:
        self._path, self._selector, self._respond = path, selector, respond
        self._clients: set[Connection] = set()
        self._listener = listen(path)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def expire(self, now: float) -> float:
        """Drop clients that are late and return when the next one would be."""
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)
        return min((client.deadline for client in self._clients), default=float("inf"))

    def close(self) -> None:
        """Drop everyone and take the name away."""
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, now: float) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return
        client = Connection(accepted, now)
        if len(self._clients) >= _MAX_CLIENTS:
            accepted.close()
            return
        self._clients.add(client)
        self._selector.register(accepted, client.events, lambda now: self._advance(client, now))

    def _advance(self, client: Connection, now: float) -> None:
        before = client.events
        if not client.advance(self._respond, now):
            self._drop(client)
        elif client.events != before:
            self._selector.modify(client.socket, client.events, lambda now: self._advance(client, now))

    def _drop(self, client: Connection) -> None:
        self._clients.discard(client)
        self._selector.unregister(client.socket)
        client.socket.close()
