"""What a watch serves while it goes on: metrics for Prometheus to scrape, and agent checks for HAProxy to ask.

Both only ever tell of the latest round. Neither can be made to wait, to remember or to do anything by who asks.
"""

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cfscale.errors import ActionError, InputError

_PATIENCE_SECONDS = 2.0
_QUESTION_BYTES = 256
_AGENT_PATIENCE_SECONDS = 0.3
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def address_of(text: str, option: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, on loopback where only ``:PORT`` is given; raises InputError."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) < 2**16:
        raise InputError(f"{option} '{text}': write HOST:PORT, such as 127.0.0.1:9115")
    return host.strip("[]") or "127.0.0.1", int(port)


@contextmanager
def metrics(address: tuple[str, int], text: Callable[[], str]) -> Iterator[int]:
    """Serve ``text()`` at /metrics; gives the port. Raises ActionError where the address cannot be had."""

    class Metrics(BaseHTTPRequestHandler):
        timeout = _PATIENCE_SECONDS
        server_version, sys_version = "cfscale", ""

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] in ("/metrics", "/")
            body = (text() if found else "not found: ask for /metrics\n").encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    with _serving(address, lambda where: _Quiet(where, Metrics)) as port:
        yield port


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is its own affair."""


class _Agents(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A balancer that went away in the middle asks again soon."""


@contextmanager
def agent(address: tuple[str, int], line: Callable[[str], str]) -> Iterator[int]:
    """Answer agent checks with ``line(name)``, where the name is what HAProxy's ``agent-send`` says, if anything."""

    class Agent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(_AGENT_PATIENCE_SECONDS)
            try:
                asked = self.request.recv(_QUESTION_BYTES)
            except TimeoutError:
                asked = b""
            name = asked.partition(b"\n")[0].decode("utf-8", "replace").strip()
            self.request.sendall(f"{line(name)}\n".encode())

    with _serving(address, lambda where: _Agents(where, Agent)) as port:
        yield port


@contextmanager
def _serving(address: tuple[str, int], make: Callable[[tuple[str, int]], socketserver.TCPServer]) -> Iterator[int]:
    try:
        server = make(address)
    except OSError as error:
        raise ActionError(
            f"{address[0]}:{address[1]}: cannot listen there: {(error.strerror or '').lower()}"
        ) from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="cfscale-serving", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
