"""DNS messages, as much of them as a question and its addresses need (RFC 1035)."""

import secrets
import struct
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

A, AAAA = 1, 28
RECORD_TYPES = {"A": A, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": AAAA, "SRV": 33}
NO_ERROR, NAME_ERROR = 0, 3
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RECURSION_DESIRED, _RESPONSE, _TRUNCATED = 0x0100, 0x8000, 0x0200
_POINTER, _LABEL = 0xC0, 63
_IN = 1


class Reply(Struct, frozen=True):
    """An answer: its code, how many records of the type that was asked for it has, and the addresses among them."""

    rcode: int
    records: int
    addresses: tuple[str, ...]
    truncated: bool


def question(name: str, record_type: int) -> bytes:
    """One question under a random number, which guards against answers to somebody else's."""
    labels = b"".join(bytes([len(label)]) + label for label in _labels(name))
    return _HEADER.pack(secrets.randbits(16), _RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0" + _pair(record_type)


def _pair(record_type: int) -> bytes:
    return struct.pack("!HH", record_type, _IN)


def _labels(name: str) -> list[bytes]:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")] if name.rstrip(".") else []
    if any(not 0 < len(label) <= _LABEL for label in labels):
        raise ValueError(f"'{name}' is no name")
    return labels


def answers(asked: bytes, data: bytes) -> bool:
    """Whether a datagram answers this very question."""
    if len(data) < _HEADER.size or data[:2] != asked[:2]:
        return False
    flags = _HEADER.unpack_from(data)[1]
    end = len(asked)
    return bool(flags & _RESPONSE) and (data[_HEADER.size : end].lower() == asked[_HEADER.size :].lower())


def reply(asked: bytes, data: bytes) -> Reply:
    """The reply in a message that answers the question; raises ValueError where it is torn."""
    _, flags, _, count, _, _ = _HEADER.unpack_from(data)
    wanted = struct.unpack_from("!H", asked, len(asked) - 4)[0]
    found: list[bytes] = []
    place = len(asked)
    try:
        for _ in range(count):
            place = _past_name(data, place)
            kind, _, _, length = _RECORD.unpack_from(data, place)
            place += _RECORD.size + length
            if kind == wanted:
                found.append(data[place - length : place])
    except (struct.error, IndexError) as error:
        if not flags & _TRUNCATED:
            raise ValueError("a torn DNS answer") from error
    addresses = tuple(text for record in found if (text := _address(wanted, record)))
    return Reply(flags & 0xF, len(found), addresses, bool(flags & _TRUNCATED))


def _past_name(data: bytes, place: int) -> int:
    while length := data[place]:
        if length >= _POINTER:
            return place + 2
        place += 1 + length
    return place + 1


def _address(record_type: int, record: bytes) -> str | None:
    if record_type == A and len(record) == 4:  # noqa: PLR2004 - bytes of the address
        return str(IPv4Address(record))
    if record_type == AAAA and len(record) == 16:  # noqa: PLR2004 - bytes of the address
        return str(IPv6Address(record))
    return None
