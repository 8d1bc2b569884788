"""Names to addresses without anybody waiting for anybody else's name.

    literal ─▶ itself        hosts file ─▶ its addresses        else one UDP question a type to the name servers, all
                                                                 at once for different names, once for equal ones

glibc's resolver blocks a thread a name, and a dozen names whose servers are silent block asyncio's whole pool. Here a
silent server costs one socket for as long as the one target may take. Where the system looks names up elsewhere (LDAP,
mDNS, a container's own directory), it is asked in threads of its own after all, so that the names mean what they mean
to every other program.
"""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

from msgspec import Struct

from cfscale.adapters.probes.dnswire import AAAA, NAME_ERROR, NO_ERROR, RCODES, A, Reply, answers, question, reply
from cfscale.adapters.probes.wire import AnswerError, ready

LOOKUPS = 64
QUESTIONS = 256
KEPT_SECONDS = 30.0
_RETRY_SECONDS = 0.8
_LAGGARD_SECONDS = 0.2
_PORT = 53
_DATAGRAM = 4096
_SILENT = "the name lookup took too long: the resolver may be out of reach"
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN_ADDRESS = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}", re.ASCII)
_OWN_SOURCES = frozenset({"files", "dns", "myhostname"})
_NO_NAME = "the name does not resolve"

Lookup = Callable[[str, int], list[str]]


class BlindError(Exception):
    """The prober cannot tell: the fault is its own, or its rules forbid the question."""


def lookup_addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a name, as the system resolves it; blocks, and raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def literal(host: str) -> str | None:
    """The address that a host is itself, in its plain form; None for a name. 127.1 and 0x7f000001 are addresses."""
    if _PLAIN_ADDRESS.fullmatch(host):
        return host
    try:
        if ":" in host:
            return str(ip_address(host))
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError, UnicodeError):
        return None


class Directory(Struct, frozen=True):
    """Where names are looked up on this machine, as its files say."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dots: int = 1
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    own: bool = True

    @classmethod
    def read(cls, etc: Path = Path("/etc")) -> "Directory":
        """What the files say; files that are missing or torn say nothing."""
        words = [line.split() for line in _lines(etc / "resolv.conf")]
        servers = tuple(line[1] for line in words if line[0] == "nameserver" and len(line) > 1)
        search = next((tuple(line[1:]) for line in reversed(words) if line[0] in ("search", "domain")), ())
        options = [option for line in words if line[0] == "options" for option in line[1:]]
        dots = next((int(o[6:]) for o in options if o.startswith("ndots:") and o[6:].isdigit()), 1)
        sources = next((line.split()[1:] for line in _lines(etc / "nsswitch.conf") if line.startswith("hosts:")), [])
        own = bool(servers) and all(source in _OWN_SOURCES for source in sources if not source.startswith("["))
        return cls(servers, search, dots, tuple(_hosts(_lines(etc / "hosts"))), own)

    def known(self, name: str) -> list[str]:
        """The addresses that need no question; those of localhost are there whatever the file says."""
        wanted = name.rstrip(".").lower()
        found = [address for entry, addresses in self.hosts if entry == wanted for address in addresses]
        if not found and (wanted == "localhost" or wanted.endswith(".localhost")):
            return ["127.0.0.1", "::1"]
        return list(dict.fromkeys(found))

    def candidates(self, name: str) -> list[str]:
        """The full names that a name may mean, in the order in which they are tried."""
        if name.endswith("."):
            return [name]
        longer = [f"{name}.{domain}" for domain in self.search]
        return [name, *longer] if name.count(".") >= self.dots else [*longer, name]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip()) and not line.startswith(";")]


def _hosts(lines: Iterable[str]) -> Iterable[tuple[str, tuple[str, ...]]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        address, *names = line.split()
        if literal(address):
            for name in names:
                found.setdefault(name.lower(), []).append(address)
    return ((name, tuple(addresses)) for name, addresses in found.items())


class _Kept(Struct, frozen=True):
    until: float
    answer: "asyncio.Task[list[str]]"


class Resolver:
    """Looks up names for one event loop. A ``lookup`` of None asks the name servers, else it is called in threads."""

    def __init__(self, lookup: Lookup | None = None, lookups: int = LOOKUPS) -> None:
        self._lookup = lookup
        self._threads = asyncio.Semaphore(lookups)
        self._questions = asyncio.Semaphore(QUESTIONS)
        self._kept: dict[str, _Kept] = {}

    @cached_property
    def directory(self) -> Directory:
        """The files of this machine, read once."""
        return Directory.read()

    async def addresses(self, host: str, port: int, deadline: float) -> list[str]:
        """The addresses by then (monotonic time). Raises BlindError, and AnswerError for a name that is none."""
        kept = self._kept.get(host)
        if kept is None or kept.until < monotonic():
            self._kept = {name: entry for name, entry in self._kept.items() if entry.until >= monotonic()}
            task = asyncio.create_task(self._found(host, port, deadline))
            task.add_done_callback(_seen)
            kept = self._kept[host] = _Kept(monotonic() + KEPT_SECONDS, task)
        done, _ = await asyncio.wait((kept.answer,), timeout=max(0.0, deadline - monotonic()))
        if not done:
            raise BlindError(_SILENT)
        try:
            return kept.answer.result()
        except Exception:
            self._kept.pop(host, None)  # a failure is not kept: the next attempt asks again
            raise

    async def _found(self, host: str, port: int, deadline: float) -> list[str]:
        if self._lookup is not None:
            return await self._threaded(self._lookup, host, port)
        if known := self.directory.known(host):
            return known
        if not self.directory.own:
            return await self._threaded(lookup_addresses, host, port)
        async with self._questions:
            return await self._asked(host, deadline)

    async def _asked(self, host: str, deadline: float) -> list[str]:
        for name in self.directory.candidates(host):
            try:
                both = await self._both(name, deadline)
            except ValueError as error:
                raise AnswerError(_NO_NAME) from error
            if any(found.truncated for found in both):
                return await self._threaded(lookup_addresses, host, 0)
            if addresses := [address for found in both for address in found.addresses]:
                return addresses
        raise AnswerError(_NO_NAME)

    async def _both(self, name: str, deadline: float) -> list[Reply]:
        """The replies about both kinds of addresses; the second one to arrive is not waited for as long."""
        asked = [asyncio.create_task(self._ask(question(name, kind), deadline)) for kind in (A, AAAA)]
        try:
            done, late = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            if late and any(task.exception() is None and task.result().addresses for task in done):
                await asyncio.wait(late, timeout=_LAGGARD_SECONDS)
            elif late:
                await asyncio.wait(late)
            ended = [task for task in asked if task.done()]
            replies = [task.result() for task in ended if task.exception() is None]
            problem = next((task.exception() for task in ended if task.exception() is not None), None)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        settled = any(found.addresses or found.rcode == NAME_ERROR for found in replies)
        if problem is not None and not settled:
            raise problem
        return replies

    async def _ask(self, asked: bytes, deadline: float) -> Reply:
        """One question to one server after the other until one of them knows; raises BlindError."""
        servers, problem, turn = self.directory.servers, _SILENT, 0
        while monotonic() < deadline and turn < 3 * len(servers):
            server = servers[turn % len(servers)]
            turn += 1
            try:
                found = await ask_server((server, _PORT), asked, min(deadline, monotonic() + _RETRY_SECONDS))
            except TimeoutError:
                continue
            except (OSError, ValueError) as error:
                problem = f"the name lookup failed: {error}"
                continue
            if found.rcode in (NO_ERROR, NAME_ERROR):
                return found
            problem = f"the name lookup failed: {RCODES.get(found.rcode, found.rcode)}"
        raise BlindError(problem)

    async def _threaded(self, lookup: Lookup, host: str, port: int) -> list[str]:
        """Resolve in a thread. It frees its place when it ends, even where nobody waits for it any more."""
        await self._threads.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def settle(found: list[str], problem: Exception | None) -> None:
            self._threads.release()
            if not answer.done():
                answer.set_exception(problem) if problem else answer.set_result(found)

        def resolve() -> None:
            outcome = _resolved(lookup, host, port)
            with suppress(RuntimeError):  # the loop has ended: nobody waits for the answer
                loop.call_soon_threadsafe(settle, *outcome)

        try:
            threading.Thread(target=resolve, name="cfscale-lookup", daemon=True).start()
        except RuntimeError as error:
            self._threads.release()
            raise BlindError(f"no thread for the name lookup: {error}") from error
        return await answer


def _seen(task: "asyncio.Task[list[str]]") -> None:
    """Take note of a failure that came when nobody waited any more."""
    if not task.cancelled():
        task.exception()


async def ask_server(server: tuple[str, int], asked: bytes, until: float) -> Reply:
    """One datagram to a name server, and its reply; raises OSError, TimeoutError among them, and ValueError."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as udp:
        udp.connect(server)  # answers from anywhere else are dropped, and a closed port is heard of
        udp.send(asked)
        while True:
            await ready(asyncio.get_running_loop(), udp, until)
            data = udp.recv(_DATAGRAM)
            if answers(asked, data):
                return reply(asked, data)


def _resolved(lookup: Lookup, host: str, port: int) -> tuple[list[str], Exception | None]:
    try:
        return lookup(host, port), None
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return [], AnswerError(_NO_NAME)
        return [], BlindError(f"the name lookup failed: {error.strerror}")
    except (OSError, UnicodeError) as error:
        return [], BlindError(f"the name lookup failed: {error}")
