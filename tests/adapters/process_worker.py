"""A worker for tests of the process engine: PORT says where it listens, its arguments how it misbehaves.

ignore-term   SIGTERM is noticed and ignored
crash         exits with 3 at once
orphan        leaves a daemon in a session of its own that ignores SIGTERM; its pid is logged
storm         forks children that burn 10 ms each, as fast as it can
"""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

DAEMON = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork() and os._exit(0); print('daemon', os.getpid(), flush=True); time.sleep(600)"
DRAINING = threading.Event()
ACTIVE: list[str] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self._answer(503 if DRAINING.is_set() else 200, {"status": "draining" if DRAINING.is_set() else "ok"})
        elif url.path == "/work":
            time.sleep(int(parse_qs(url.query)["ms"][0]) / 1000)
            self._answer(200, {"replica": os.environ["CFSCALE_REPLICA"]})
        elif url.path == "/tasks":
            ACTIVE.extend(["task"] * int(parse_qs(url.query).get("begin", ["0"])[0]))
            del ACTIVE[: int(parse_qs(url.query).get("end", ["0"])[0])]
            self._answer(200, {"active": len(ACTIVE)})
        elif url.path == "/cpu":
            own, reaped = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
            self._answer(
                200,
                {
                    "cpu": own.ru_utime + own.ru_stime + reaped.ru_utime + reaped.ru_stime,
                    "reaped": reaped.ru_utime + reaped.ru_stime,
                },
            )
        else:
            self._answer(200, {"env": dict(os.environ), "args": sys.argv[1:], "directory": str(Path.cwd())})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Keep the log to what the tests look for."""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def storm() -> None:
    while not DRAINING.is_set():
        pid = os.fork()
        if pid == 0:
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
            os._exit(0)
        os.waitpid(pid, 0)


def main(modes: list[str]) -> None:
    if "crash" in modes:
        say("cannot go on")
        sys.exit(3)
    if "orphan" in modes:
        subprocess.run([sys.executable, "-c", DAEMON], start_new_session=True, check=True)
    server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)

    def stop(_number: int, _frame: object) -> None:
        say("SIGTERM")
        if "ignore-term" not in modes:
            DRAINING.set()
            threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    if "storm" in modes:
        storm()
    serving.join()
    server.server_close()


if __name__ == "__main__":
    main(sys.argv[1:])
