"""What is wrong with a certificate, in words and days: the rules of verifying it are OpenSSL's, the reading is ours.

A certificate that fails verification cannot be read through ``ssl`` any more, and the days left are what an operator
wants to know; so its two dates are read from its encoding (X.509 as DER).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

DAY_SECONDS = 86_400.0
_SEQUENCE, _VERSION, _UTC_TIME, _GENERAL_TIME = 0x30, 0xA0, 0x17, 0x18
_LONG_FORM = 0x80
_TIMES = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERAL_TIME: "%Y%m%d%H%M%SZ"}
_EXPIRED, _NOT_YET, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 62, 64
_WORDS = {
    18: "self-signed certificate",
    19: "a self-signed certificate in its chain",
    20: "signed by nobody who is trusted here",
    21: "its chain is not complete",
    23: "revoked",
}


class Validity(Struct, frozen=True):
    """From when until when a certificate is valid, in seconds since the epoch."""

    not_before: float
    not_after: float


def validity(encoded: bytes) -> Validity:
    """The dates of an encoded certificate; raises ValueError where it is none."""
    try:
        certificate = _content(encoded, 0, _SEQUENCE)
        body = _content(certificate, 0, _SEQUENCE)
        place = _end(body, 0) if body[0] == _VERSION else 0
        for _ in range(3):  # serial number, algorithm, issuer
            place = _end(body, place)
        dates = _content(body, place, _SEQUENCE)
        return Validity(_time(dates, 0), _time(dates, _end(dates, 0)))
    except (IndexError, KeyError) as error:
        raise ValueError("not a certificate") from error


def earliest(chain: Sequence[bytes]) -> Validity | None:
    """The dates of the certificate that expires first; None where none can be read."""
    found = []
    for encoded in chain:
        try:
            found.append(validity(encoded))
        except ValueError:
            continue
    return min(found, key=lambda dates: dates.not_after, default=None)


def refusal(code: int, message: str, dates: Validity | None, now: float) -> str:
    """Why verification failed (OpenSSL's code and message), with the days that matter."""
    if dates is None:
        return f"certificate: {_WORDS.get(code, message)}"
    if code == _EXPIRED and dates.not_after <= now:
        return f"certificate expired {_days(now - dates.not_after)} ago"
    if code == _NOT_YET and dates.not_before > now:
        return f"certificate not valid before {_days(dates.not_before - now)} from now"
    why = message if code in (_WRONG_HOST, _WRONG_ADDRESS) else _WORDS.get(code, message)
    left = dates.not_after - now
    return f"certificate: {why}; {f'{_days(left)} left' if left > 0 else f'expired {_days(-left)} ago'}"


def ending(dates: Validity, now: float) -> str:
    """How long a valid certificate still lasts."""
    return f"certificate expires in {_days(dates.not_after - now)}"


def _days(seconds: float) -> str:
    days = int(max(0.0, seconds) // DAY_SECONDS)
    return f"{days} day{'' if days == 1 else 's'}"


def _header(data: bytes, place: int) -> tuple[int, int]:
    """Where the content of the element begins, and where it ends."""
    length, start = data[place + 1], place + 2
    if length & _LONG_FORM:
        size = length & ~_LONG_FORM
        length, start = int.from_bytes(data[start : start + size], "big"), start + size
    if start + length > len(data):
        raise IndexError
    return start, start + length


def _end(data: bytes, place: int) -> int:
    return _header(data, place)[1]


def _content(data: bytes, place: int, tag: int) -> bytes:
    if data[place] != tag:
        raise KeyError(tag)
    start, end = _header(data, place)
    return data[start:end]


def _time(data: bytes, place: int) -> float:
    start, end = _header(data, place)
    return datetime.strptime(data[start:end].decode("ascii"), _TIMES[data[place]]).replace(tzinfo=UTC).timestamp()
