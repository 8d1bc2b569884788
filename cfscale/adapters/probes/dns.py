"""One question to a name server: it is up if it knows the name, and down if it does not answer, or not this."""

import asyncio
import socket
from time import monotonic

from cfscale.adapters.probes.dnswire import NO_ERROR, RCODES, RECORD_TYPES, answers, question, reply
from cfscale.adapters.probes.network import Answer, AnswerError, Dialer
from cfscale.adapters.probes.wire import ready
from cfscale.core.health import State, Target

_TRIES = 3
_DATAGRAM = 65_535


async def probe_dns(dial: Dialer, target: Target) -> Answer:
    """``about`` is the name and the record type. Datagrams get lost: the question is sent up to three times."""
    name, record = target.about
    try:
        asked = question(name, RECORD_TYPES[record])
        found = reply(asked, await _asked(dial, target, asked))
    except ValueError as error:
        raise AnswerError(str(error)) from error
    if found.rcode != NO_ERROR:
        return State.DOWN, f"{RCODES.get(found.rcode, found.rcode)} for {name} {record}"
    if not found.records and not found.truncated:
        return State.DOWN, f"no {record} record of {name}"
    records = ", ".join(found.addresses) or f"{found.records} records"
    return State.UP, f"{name} {record}: {records}"


async def _asked(dial: Dialer, target: Target, asked: bytes) -> bytes:
    address = dial.addresses[0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as udp:
        udp.connect((address, target.port))
        dial.marks.connected = monotonic()
        for turn in range(_TRIES, 0, -1):
            udp.send(asked)
            now = monotonic()
            try:
                return await _answer(dial, udp, asked, now + (dial.deadline - now) / turn)
            except TimeoutError:
                continue
    raise TimeoutError


async def _answer(dial: Dialer, udp: socket.socket, asked: bytes, until: float) -> bytes:
    while True:
        await ready(asyncio.get_running_loop(), udp, until)
        data = udp.recv(_DATAGRAM)
        dial.marks.first_byte = dial.marks.first_byte or monotonic()
        if answers(asked, data):
            return data
