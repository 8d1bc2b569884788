"""A worker whose faults a test can choose: what it answers says which replica it is.

GET /health     200
GET /work?ms=50 waits so long, then 200 and the host's name; 500 while the file /tmp/broken exists
GET /size?n=512 200 and so many bytes of text
"""

import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer by the path."""
        target = urlsplit(self.path)
        asked = {name: int(values[0]) for name, values in parse_qs(target.query).items()}
        time.sleep(asked.get("ms", 0) / 1000)
        body = b"x" * asked["n"] if "n" in asked else socket.gethostname().encode()
        broken = target.path != "/health" and Path("/tmp/broken").exists()
        self.send_response(500 if broken else 200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    import signal

    server = ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
