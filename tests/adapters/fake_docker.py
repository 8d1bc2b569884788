"""A Docker daemon on a unix socket that answers as it is told, or not at all."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer

ID = "c0ffee" * 10 + "abcd"
VERSION = {"ApiVersion": "1.41", "Version": "20.10.24"}

Answer = Callable[["Connection"], None]


class Connection(StreamRequestHandler):
    """One client; ``answers`` maps the end of a path (query cut off) to what is done."""

    server: "FakeDaemon"

    def handle(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline().strip().lower()) != b"":
                if header.startswith(b"content-length:"):
                    length = int(header.split(b":")[1])
            body = self.rfile.read(length)
            path = line.split()[1].decode().partition("?")[0]
            self.server.asked.append(path)
            self.server.told.append(body)
            answer = next((does for end, does in self.server.answers.items() if path.endswith(end)), not_found)
            answer(self)
            if self.server.over.is_set():
                return

    def send(self, status: str, body: bytes) -> None:
        """A whole answer."""
        self.head(status, len(body))
        self.wfile.write(body)

    def head(self, status: str, length: int) -> None:
        """The head of an answer only."""
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n".encode())
        self.wfile.write(f"Content-Length: {length}\r\n\r\n".encode())


class FakeDaemon(ThreadingUnixStreamServer):
    """Answers by path until it is closed; ``asked`` are the paths and ``told`` the bodies, in order."""

    daemon_threads = True

    def __init__(self, path: Path, answers: Mapping[str, Answer]) -> None:
        super().__init__(str(path), Connection)
        self.answers = dict(answers)
        self.asked: list[str] = []
        self.told: list[bytes] = []
        self.over = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


def json_answer(value: object, status: str = "200 OK") -> Answer:
    return lambda connection: connection.send(status, json.dumps(value).encode())


def not_found(connection: Connection) -> None:
    connection.send("404 Not Found", b'{"message": "No such container"}')


def refused(connection: Connection) -> None:
    connection.send("500 Internal Server Error", b'{"message": "driver failed"}')


def silence(connection: Connection) -> None:
    connection.server.over.wait(30)


def half_and_silence(connection: Connection) -> None:
    connection.head("200 OK", 1000)
    connection.wfile.write(b'[{"Id": "c0f')
    connection.wfile.flush()
    silence(connection)


def half_and_gone(connection: Connection) -> None:
    connection.head("200 OK", 1000)
    connection.wfile.write(b'[{"Id": "c0f')
    connection.connection.close()


def half_json(connection: Connection) -> None:
    connection.send("200 OK", b'[{"Id": "c0f')


@contextmanager
def serving(path: Path, answers: Mapping[str, Answer]) -> Iterator[FakeDaemon]:
    server = FakeDaemon(path, {"/version": json_answer(VERSION), **answers})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def listed(state: str = "running", status: str = "Up 2 seconds", **more: object) -> dict[str, object]:
    """A container as the list shows it."""
    networks = {"demo_data": endpoint("172.20.0.9"), "demo_app": endpoint("172.21.0.5")}
    return {
        "Id": ID,
        "Names": ["/demo-agents-1"],
        "Created": 1_700_000_000,
        "State": state,
        "Status": status,
        "Labels": {"com.docker.compose.service": "agents", "com.docker.compose.project": "demo"},
        "NetworkSettings": {"Networks": networks if state in ("running", "paused") else {}},
        **more,
    }


def endpoint(address: str, identity: str = "e1") -> dict[str, str]:
    return {"EndpointID": identity, "IPAddress": address}


def details(pid: int = 4242, started: str = "2026-11-23T22:41:25.465282195Z", **more: object) -> dict[str, object]:
    """A container as its inspection shows it."""
    return {
        "State": {"Pid": pid, "StartedAt": started, "Health": None, **more},
        "HostConfig": {"NanoCpus": 500_000_000, "Memory": 67_108_864},
        "RestartCount": 3,
    }
