"""Reaching a target: which addresses may be asked at all, and a connection to the first of them that takes one.

addresses ─▶ forbidden? ─▶ connect, one after the other ─▶ TLS, verified ─▶ Wire
"""

import asyncio
import errno
import socket
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from cfscale.adapters.probes.certificate import Validity, earliest, refusal
from cfscale.adapters.probes.resolver import LOOKUPS, BlindError, Lookup, Resolver, literal, lookup_addresses
from cfscale.adapters.probes.wire import READ_BYTES, AnswerError, Marks, TlsWire, Wire
from cfscale.core.health import Kind, Phases, State, Target
from cfscale.core.judging import Judging

if TYPE_CHECKING:
    import ssl

__all__ = [
    "LOOKUPS",
    "READ_BYTES",
    "Answer",
    "AnswerError",
    "BlindError",
    "CertificateError",
    "Dialer",
    "Network",
    "Pulse",
    "TlsPolicy",
    "Wire",
    "forbidden",
    "lookup_addresses",
]
Answer = tuple[State, str]
W = TypeVar("W", bound=Wire)
_AWS_METADATA = IPv6Address("fd00:ec2::254")
_LINK_LOCAL = "169.254."


class CertificateError(AnswerError):
    """The certificate does not stand for the target."""


def forbidden(address: str) -> str | None:
    """Why this IP address is never asked, or None: link-local addresses lead to cloud metadata services."""
    if ":" not in address:
        refused = address.startswith(_LINK_LOCAL)
    else:
        ip = ip_address(address.partition("%")[0])
        plain = getattr(ip, "ipv4_mapped", None) or ip
        refused = plain.is_link_local or plain == _AWS_METADATA
    return f"{address} is refused: link-local and metadata addresses are never probed" if refused else None


class TlsPolicy(Struct, frozen=True):
    """How certificates are judged.

    ``authorities`` is a file of trusted ones beside the system's. ``expiring_seconds``: less than that left is
    degraded. ``tolerant``: one that fails verification is degraded too, rather than down.
    """

    expiring_seconds: float
    authorities: Path | None = None
    tolerant: bool = False


class Pulse:
    """Feels how late the event loop is: ``missed`` sums up the seconds in which it could not look at anything."""

    _SECONDS = 0.05
    _NOTABLE_SECONDS = 0.05

    def __init__(self) -> None:
        self.missed = 0.0
        self._beat(None)

    def _beat(self, due: float | None) -> None:
        now = monotonic()
        if due is not None and now - due > self._NOTABLE_SECONDS:
            self.missed += now - due
        asyncio.get_running_loop().call_later(self._SECONDS, self._beat, now + self._SECONDS)


class Network:
    """What all attempts of one event loop share: lookups and TLS settings. A ``lookup`` replaces the name servers.

    ``direct``: what needs no lookup may be connected to without ``connect``, which tries one address after the other.
    """

    direct = True

    def __init__(
        self,
        judging: Judging,
        lookup: Lookup | None = None,
        lookups: int = LOOKUPS,
        policy: TlsPolicy | None = None,
    ) -> None:
        self.policy = policy or TlsPolicy(judging.certificate_seconds)
        self._judging = judging
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._resolver = Resolver(lookup, lookups)

    @cached_property
    def pulse(self) -> Pulse:
        """The pulse of the loop that asks first."""
        return Pulse()

    def excused(self, lost: float, limit: float) -> bool:
        """Whether this host looked away for so long, in seconds, that a target with this time limit is not to blame."""
        return lost > max(self._judging.late_seconds, self._judging.late_ratio * limit)

    def context(self, *, verify: bool, h2: bool = False) -> "ssl.SSLContext":
        """Verifying with the system's certificates and those of the policy, or only fit to read a certificate."""
        found = self._contexts.get((verify, h2))
        if found is None:
            found = self._contexts[verify, h2] = _context(self.policy, verify=verify)
            found.set_alpn_protocols(["h2"] if h2 else ["http/1.1"])
        return found

    async def resolve(self, target: Target, deadline: float) -> list[str]:
        """The target's IP addresses by then (monotonic time); raises BlindError, AnswerError for a name that is none."""
        own = literal(target.host)
        addresses = [own] if own else await self._resolver.addresses(target.host, target.port, deadline)
        for address in addresses:
            if reason := forbidden(address):
                raise BlindError(reason)
        return addresses

    async def connect(self, wire: Wire, target: Target, addresses: list[str]) -> None:
        """Connect to the first address that takes a connection; raises OSError.

        None gets more than its share of the time, so that one that swallows everything does not hide the others.
        """
        if len(addresses) == 1:
            await wire.connect(*_endpoint(addresses[0], target.port), wire.deadline)
            return
        problem: OSError | None = None
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            now = monotonic()
            try:
                await wire.connect(*_endpoint(address, target.port), now + (wire.deadline - now) / left)
            except OSError as error:  # a TimeoutError is one
                problem = error
                wire.close()
            else:
                return
        raise problem or OSError(errno.EADDRNOTAVAIL, "no address")


def _context(policy: TlsPolicy, *, verify: bool) -> "ssl.SSLContext":
    import ssl

    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif policy.authorities is not None:
        context.load_verify_locations(cafile=policy.authorities)
    return context


def _endpoint(address: str, port: int) -> tuple[int, object]:
    if ":" in address:
        host, _, zone = address.partition("%")
        return socket.AF_INET6, (host, port, 0, socket.if_nametoindex(zone) if zone else 0)
    return socket.AF_INET, (address, port)


class Dialer:
    """Connects to one target as often as its protocol wants, all within the deadline of one attempt.

    It keeps what is worth telling of the way there: moments, the certificate's dates, the last HTTP status.
    """

    __slots__ = (
        "_wires",
        "addresses",
        "certificate",
        "deadline",
        "marks",
        "network",
        "refused",
        "resolved",
        "status",
        "target",
    )

    def __init__(self, network: Network, target: Target, deadline: float, marks: Marks | None = None) -> None:
        self.network, self.target, self.deadline = network, target, deadline
        self.marks = marks or Marks()
        self.addresses: list[str] = []
        self.resolved: float | None = None
        self.certificate: Validity | None = None
        self.refused = ""
        self.status: int | None = None
        self._wires: list[Wire] = []

    async def resolve(self) -> None:
        """Find the addresses; raises BlindError, and AnswerError for a name that is none."""
        if self.target.host and not self.target.host.startswith("/"):
            self.addresses = await self.network.resolve(self.target, self.deadline)
            self.resolved = monotonic()

    async def __call__(self) -> Wire:
        """A connection, over TLS where the target asks for it. Raises OSError, and CertificateError."""
        if not self.target.tls:
            return await self._connected(Wire(self.deadline, self.marks))
        import ssl

        wire = await self._connected(TlsWire(self.deadline, self.marks))
        try:
            await wire.upgrade(self.network.context(verify=True, h2=self._speaks_h2), self.target.host)
        except ssl.SSLCertVerificationError as error:
            return await self._unverified(error)
        self.certificate = earliest(wire.chain)
        return wire

    def wire(self) -> Wire:
        """A wire to connect, closed with this attempt."""
        self._wires.append(wire := Wire(self.deadline, self.marks))
        return wire

    async def _unverified(self, error: "ssl.SSLCertVerificationError") -> TlsWire:
        """The connection once more, to read the certificate that was refused."""
        code, message = error.verify_code, error.verify_message
        try:
            wire = await self._connected(TlsWire(self.deadline, self.marks))
            await wire.upgrade(self.network.context(verify=False, h2=self._speaks_h2), self.target.host)
        except OSError as again:  # it was there a moment ago
            raise CertificateError(refusal(code, message, None, time())) from again
        self.certificate = earliest(wire.chain)
        self.refused = refusal(code, message, self.certificate, time())
        if not self.network.policy.tolerant:
            raise CertificateError(self.refused)
        return wire

    async def _connected(self, wire: W) -> W:
        self._wires.append(wire)
        if self.target.host.startswith("/"):
            await wire.connect(socket.AF_UNIX, self.target.host, self.deadline)
        else:
            await self.network.connect(wire, self.target, self.addresses)
        return wire

    def close(self, *, abruptly: bool = False) -> None:
        """Close all connections, ``abruptly`` as ``Wire.close`` says."""
        for wire in self._wires:
            wire.close(abruptly=abruptly)
        self._wires.clear()

    @property
    def _speaks_h2(self) -> bool:
        return self.target.kind is Kind.GRPC

    @property
    def connected(self) -> bool:
        """Whether a connection came about."""
        return self.marks.connected is not None

    @property
    def remote(self) -> bool:
        """Whether it did so with another machine."""
        for address in self.addresses:
            if address.startswith("127.") or address == "::1":
                return False
        return self.connected and bool(self.addresses)

    def phases(self, began: float) -> Phases:
        """Where the time went, for an attempt that began then."""
        marks = self.marks
        sent = marks.secured or marks.connected
        return Phases(
            self.resolved and _between(began, self.resolved),
            _between(self.resolved or began, marks.connected),
            marks.secured and _between(marks.connected, marks.secured),
            _between(sent, marks.first_byte),
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
