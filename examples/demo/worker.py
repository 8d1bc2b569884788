"""A small HTTP worker that burns CPU on request, to have something to scale.

GET /health       200 {"status": "ok"}; 503 {"status": "draining"} once SIGTERM came
GET /work?ms=50   uses that much CPU time (at most 5000 ms), then 200 {"worker": "host:process", "ms": 50}
anything else     404

SIGTERM: health turns 503 at once, so that balancers turn away; requests are served for DRAIN_SECONDS more (2 if unset)
and until those in flight are answered (at most 30 s), each answer closing its connection; then exit code 0.
PORT (8080 if unset) is where it listens.
"""

import json
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from urllib.parse import parse_qs, urlsplit

MAX_MS = 5000
IN_FLIGHT_SECONDS = 30.0
NAME = f"{socket.gethostname()}:{os.getpid()}"


class Worker(ThreadingHTTPServer):
    """The server, and what it knows of its requests."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, drain_seconds: float) -> None:
        super().__init__(("", port), Handler)
        self.drain_seconds = drain_seconds
        self.draining = threading.Event()
        self._changed = threading.Condition()
        self._in_flight = 0

    def count(self, step: int) -> None:
        """One request more or fewer is in flight."""
        with self._changed:
            self._in_flight += step
            self._changed.notify_all()

    def terminate(self, _signal: int, _frame: FrameType | None) -> None:
        """Begin to drain; a handler must not wait, so the waiting is done elsewhere."""
        if not self.draining.is_set():
            self.draining.set()
            threading.Thread(target=self._drain).start()

    def _drain(self) -> None:
        time.sleep(self.drain_seconds)
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0, timeout=IN_FLIGHT_SECONDS)
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive unless the worker drains."""

    server: Worker
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body of an answer leave in one packet
    timeout = 75

    def do_GET(self) -> None:
        """Answer one request; it counts as in flight until its answer is on its way."""
        self.server.count(1)
        try:
            self.answer(*self.respond())
        finally:
            self.server.count(-1)

    def respond(self) -> tuple[int, dict[str, object]]:
        """Status and body for the path asked for."""
        url = urlsplit(self.path)
        if url.path == "/health":
            return (503, {"status": "draining"}) if self.server.draining.is_set() else (200, {"status": "ok"})
        if url.path != "/work":
            return 404, {"error": "not found"}
        try:
            ms = min(max(int(parse_qs(url.query).get("ms", ["50"])[0]), 0), MAX_MS)
        except ValueError:
            return 400, {"error": "ms is not a whole number"}
        burn(ms)
        return 200, {"worker": NAME, "ms": ms}

    def answer(self, status: int, body: dict[str, object]) -> None:
        """Send it as JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.server.draining.is_set():
            self.send_header("Connection", "close")  # closes it here too
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *_words: object) -> None:
        """Say nothing: the balancer logs requests."""


def burn(ms: int) -> None:
    """Keep this thread computing for so many milliseconds of CPU time, however long that takes."""
    end = time.thread_time_ns() + ms * 1_000_000
    while time.thread_time_ns() < end:
        sum(range(1000))


if __name__ == "__main__":
    worker = Worker(int(os.environ.get("PORT", "8080")), float(os.environ.get("DRAIN_SECONDS", "2")))
    signal.signal(signal.SIGTERM, worker.terminate)
    worker.serve_forever(poll_interval=0.1)
    worker.server_close()
