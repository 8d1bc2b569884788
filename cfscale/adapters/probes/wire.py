"""One connection under one deadline: non-blocking sockets on the event loop, with or without TLS.

Sockets are driven directly rather than through transports and streams: a question and its answer then cost the event
loop one registration, where a local target has often accepted before anybody waits. Every wait ends at the deadline
of the attempt, a point in monotonic time (event loops that round theirs are too coarse for latencies).

    connect ─▶ [handshake] ─▶ send ─▶ read ... ─▶ close          each leaves its moment in ``Marks``
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import ssl

READ_BYTES = 64 * 1024
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
T = TypeVar("T")
_NO_LINGER = struct.pack("ii", 1, 0)
_NO_FILES, _FILES_SECONDS = (errno.EMFILE, errno.ENFILE), 0.02
_IN_PROGRESS = (errno.EINPROGRESS, errno.EAGAIN)


class AnswerError(Exception):
    """The target answered what no healthy target answers."""


class Marks:
    """The moments of an attempt in monotonic time, None where it has not come to that."""

    __slots__ = ("connected", "first_byte", "secured")

    def __init__(self) -> None:
        self.connected: float | None = None
        self.secured: float | None = None
        self.first_byte: float | None = None


class Wire:
    """A connection from which no more than 64 KiB are ever read; every method raises OSError, TimeoutError included."""

    __slots__ = ("_left", "_loop", "_socket", "deadline", "marks")
    _socket: socket.SocketType  # from ``connect`` on

    def __init__(self, deadline: float, marks: Marks) -> None:
        self.deadline, self.marks = deadline, marks
        self._loop = asyncio.get_running_loop()
        self._left = READ_BYTES

    async def connect(self, family: int, address: object, until: float) -> None:
        """Connect by ``until``, which may be earlier than the deadline."""
        self._socket = connecting = await self._opened(family)
        code = connecting.connect_ex(address)  # type: ignore[arg-type]
        if code in _IN_PROGRESS:
            await self._connected(connecting, until)
        elif code:
            raise OSError(code, os.strerror(code))
        self.marks.connected = monotonic()

    async def _opened(self, family: int) -> socket.SocketType:
        """A socket, as soon as other questions have left files for it."""
        while True:
            try:
                return socket.SocketType(family, _STREAM)  # the plain one: its wrapper costs as much as the system
            except OSError as error:
                if error.errno not in _NO_FILES or monotonic() >= self.deadline:
                    raise
            await asyncio.sleep(_FILES_SECONDS)

    async def _connected(self, connecting: socket.SocketType, until: float) -> None:
        try:
            connecting.getpeername()  # the other side of the loopback has accepted already
        except OSError:
            await ready(self._loop, connecting, until, writing=True)
            code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                await ready(self._loop, self._socket, self.deadline, writing=True)

    async def read(self) -> bytes:
        """The next bytes as they come, empty at the end; raises AnswerError beyond the cap."""
        if self._left == 0:
            raise AnswerError(f"an answer of more than {READ_BYTES // 1024} KiB; the rest was not read")
        data = await self._received(self._left)
        self._left -= len(data)
        if self.marks.first_byte is None:
            self.marks.first_byte = monotonic()
        return data

    async def _received(self, most: int) -> bytes:
        # an answer that drips must not outlive the deadline by arriving just often enough
        if monotonic() >= self.deadline:
            raise TimeoutError
        await asyncio.sleep(0)  # while others have their turn near targets answer: no need to wait for those
        try:
            return self._socket.recv(most)
        except BlockingIOError:
            await ready(self._loop, self._socket, self.deadline)
        return self._socket.recv(most)

    def close(self, *, abruptly: bool = False) -> None:
        """Close at once, whatever is in flight; ``abruptly`` so that the system has nothing to remember of it."""
        if opened := getattr(self, "_socket", None):
            if abruptly:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            opened.close()


class TlsWire(Wire):
    """The same over TLS; ``upgrade`` is called once it is connected, at the latest before the first question."""

    __slots__ = ("_incoming", "_outgoing", "_tls")

    def __init__(self, deadline: float, marks: Marks) -> None:
        super().__init__(deadline, marks)
        self._tls: ssl.SSLObject | None = None

    async def upgrade(self, context: "ssl.SSLContext", host: str) -> None:
        """Shake hands; raises ssl.SSLError, for a certificate that is not trusted too."""
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            await self._until_done(self._tls.do_handshake)
        finally:
            await self._flush()
        self.marks.secured = monotonic()

    @property
    def certificate(self) -> bytes | None:
        """The certificate that was shown, encoded as it came."""
        return None if self._tls is None else self._tls.getpeercert(binary_form=True)

    @property
    def chain(self) -> list[bytes]:
        """All certificates on the way to the trusted one, where this version of Python tells; else the first."""
        told = getattr(self._tls, "get_verified_chain", None)
        if told is not None:
            try:
                return list(told())
            except ValueError:  # not verified
                pass
        return [self.certificate] if self.certificate else []

    async def send(self, data: bytes) -> None:
        """Send all of it, encrypted once there is TLS."""
        if self._tls is None:
            await super().send(data)
            return
        self._tls.write(data)
        await self._flush()

    async def _received(self, most: int) -> bytes:
        if self._tls is None:
            return await super()._received(most)
        import ssl

        tls = self._tls
        try:
            return await self._until_done(lambda: tls.read(most))
        except ssl.SSLZeroReturnError:
            return b""

    async def _until_done(self, step: Callable[[], T]) -> T:
        """Repeat a step of TLS until it needs no more of the other side."""
        import ssl

        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await super()._received(READ_BYTES)
                self._incoming.write(data) if data else self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super().send(self._outgoing.read())


async def ready(
    loop: asyncio.AbstractEventLoop, sock: socket.SocketType, until: float, *, writing: bool = False
) -> None:
    """Wait until the socket may be read (or written to); raises TimeoutError at ``until``.

    What has arrived counts even where the loop comes too late to see it in time: the delay is its own.
    """
    waiter = loop.create_future()
    descriptor = sock.fileno()
    (loop.add_writer if writing else loop.add_reader)(descriptor, _wake, waiter)
    timer = loop.call_later(max(0.0, until - monotonic()), _expire, waiter)
    try:
        await waiter
    finally:
        timer.cancel()
        (loop.remove_writer if writing else loop.remove_reader)(descriptor)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
