"""A proxy in front of an engine's socket that passes questions on and spoils answers as it is told, at any time."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path


class Fault(StrEnum):
    """What is done to each piece of an answer."""

    NONE = "none"
    DELAY = "delay"
    RESET = "reset"
    HALF = "half an answer"
    SILENCE = "silence"


class FaultProxy:
    """Listens at ``path`` for the engine at ``upstream``; ``fault`` holds from the next piece of any answer on."""

    def __init__(self, path: Path, upstream: str, delay_seconds: float = 0.5) -> None:
        self.fault = Fault.NONE
        self.spoilt = 0
        self._upstream, self._delay = upstream, delay_seconds
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """End every connection."""
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in tuple(self._open):
            _end(connection)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self._upstream)
            self._open |= {client, engine}
            for source, sink, spoil in ((client, engine, False), (engine, client, True)):
                threading.Thread(target=self._pump, args=(source, sink), kwargs={"spoil": spoil}, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, *, spoil: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                passed = self._spoilt(piece) if spoil and self.fault is not Fault.NONE else piece
                if passed is None:
                    break
                sink.sendall(passed)
        for connection in (source, sink):
            _end(connection)
            self._open.discard(connection)

    def _spoilt(self, piece: bytes) -> bytes | None:
        self.spoilt += 1
        if self.fault is Fault.DELAY:
            self._over.wait(self._delay)
            return piece
        if self.fault is Fault.HALF:
            return piece[: len(piece) // 2]
        if self.fault is Fault.SILENCE:
            self._over.wait(30)
        return None


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def spoiling(path: Path, upstream: str = "/var/run/docker.sock") -> Iterator[FaultProxy]:
    """A proxy for as long as the block runs."""
    proxy = FaultProxy(path, upstream)
    try:
        yield proxy
    finally:
        proxy.close()
