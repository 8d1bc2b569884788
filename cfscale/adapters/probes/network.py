"""Reaching a target: names to addresses, addresses to connections, and which of them may not be reached at all.

Lookups run in threads of their own, one per lookup and at most 64 at a time: names that never resolve hold up neither
literal addresses nor each other, and a thread stuck in the resolver does not keep the process from ending.
"""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from cfscale.core.health import Target

if TYPE_CHECKING:
    import ssl

LOOKUPS = 64
READ_BYTES = 64 * 1024
_AWS_METADATA = IPv6Address("fd00:ec2::254")

Lookup = Callable[[str, int], list[str]]


class BlindError(Exception):
    """The prober cannot tell: the fault is its own, or its rules forbid the question."""


class AnswerError(Exception):
    """The target answered what no healthy target answers."""


def forbidden(address: str) -> str | None:
    """Why this IP address is never asked, or None: link-local addresses lead to cloud metadata services."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_link_local or ip == _AWS_METADATA:
        return f"{address} is refused: link-local and metadata addresses are never probed"
    return None


def lookup_addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a name, as the system resolves it; blocks, and raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Wire:
    """One connection, from which no more than 64 KiB are ever read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._left = READ_BYTES

    def send(self, data: bytes) -> None:
        """Queue bytes to be sent; questions are small, so nothing waits for room."""
        self._writer.write(data)

    async def read(self) -> bytes:
        """The next bytes as they come, empty at the end; raises AnswerError beyond the cap."""
        if self._left == 0:
            raise AnswerError(f"an answer of more than {READ_BYTES // 1024} KiB; the rest was not read")
        data = await self._reader.read(self._left)
        self._left -= len(data)
        return data

    def abort(self) -> None:
        """Close at once, whatever is in flight."""
        self._writer.transport.abort()


class Network:
    """What all attempts of one event loop share: the room for lookups and the TLS settings."""

    def __init__(self, lookup: Lookup = lookup_addresses, lookups: int = LOOKUPS) -> None:
        self._lookup = lookup
        self._room = asyncio.Semaphore(lookups)

    @cached_property
    def tls(self) -> "ssl.SSLContext":
        """Verifying, with the system's certificates."""
        import ssl

        return ssl.create_default_context()

    async def resolve(self, target: Target, deadline: float) -> list[str]:
        """The target's IP addresses by then (loop time); raises BlindError, and AnswerError for a name that is none."""
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._addresses(target.host, target.port)
        except TimeoutError as error:
            raise BlindError("the name lookup took too long: the resolver may be out of reach") from error
        for address in addresses:
            if reason := forbidden(address):
                raise BlindError(reason)
        return addresses

    async def connect(self, target: Target, addresses: list[str]) -> Wire:
        """A connection to the first address that takes one; raises OSError.

        None gets more than its share of the time, so that one that swallows everything does not hide the others.
        """
        share = target.health.timeout_seconds / len(addresses)
        problem: OSError | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(share):
                    return await self._open(target, address)
            except OSError as error:  # a TimeoutError is one
                problem = error
        raise problem or OSError(errno.EADDRNOTAVAIL, "no address")

    async def _open(self, target: Target, address: str) -> Wire:
        tls = self.tls if target.tls else None
        reader, writer = await asyncio.open_connection(
            address, target.port, ssl=tls, server_hostname=target.host if tls else None, limit=READ_BYTES
        )
        return Wire(reader, writer)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            await self._room.acquire()
        return await self._looked_up(host, port)

    async def _looked_up(self, host: str, port: int) -> list[str]:
        """Resolve in a thread. It frees its place when it ends, even where nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], problem: Exception | None) -> None:
            self._room.release()
            if not answer.done():
                answer.set_exception(problem) if problem else answer.set_result(found)

        def resolve() -> None:
            outcome = _resolved(self._lookup, host, port)
            with suppress(RuntimeError):  # the loop has ended: nobody waits for the answer
                loop.call_soon_threadsafe(settle, *outcome)

        try:
            threading.Thread(target=resolve, name="cfscale-lookup", daemon=True).start()
        except RuntimeError as error:
            self._room.release()
            raise BlindError(f"no thread for the name lookup: {error}") from error
        return await answer


def _resolved(lookup: Lookup, host: str, port: int) -> tuple[list[str], Exception | None]:
    try:
        return lookup(host, port), None
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return [], AnswerError("the name does not resolve")
        return [], BlindError(f"the name lookup failed: {error.strerror}")
    except (OSError, UnicodeError) as error:
        return [], BlindError(f"the name lookup failed: {error}")
