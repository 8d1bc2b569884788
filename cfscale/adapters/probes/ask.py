"""One question to one target under one deadline, which covers the lookup, connecting, TLS and the whole answer."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping

from cfscale.adapters.probes.http import Answer, Dial, probe_http
from cfscale.adapters.probes.jsonrpc import probe_jsonrpc
from cfscale.adapters.probes.network import AnswerError, BlindError, Network, Wire
from cfscale.adapters.probes.redis import probe_redis
from cfscale.adapters.probes.tcp import probe_tcp
from cfscale.core.health import ALIVE, Attempt, State, Target, shown
from cfscale.core.plan import Health, HealthKind

PROBES: Mapping[HealthKind, Callable[[Dial, Target], Awaitable[Answer]]] = {
    HealthKind.HTTP: probe_http,
    HealthKind.TCP: probe_tcp,
    HealthKind.REDIS: probe_redis,
    HealthKind.JSONRPC: probe_jsonrpc,
    HealthKind.NONE: probe_tcp,  # no question to ask: being reachable is all there is to learn
}
# a deadline that is noticed this much too late says that this host slept or was overloaded, not that the target is down
LATE_SECONDS = 1.0
_OWN_FAULTS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EAFNOSUPPORT,
        errno.EACCES,
        errno.EPERM,
    }
)


async def ask(target: Target, network: Network) -> Attempt:
    """What the target answers; never raises for anything that the target or the network does."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline = began + target.health.timeout_seconds
    opened: list[Wire] = []
    try:
        state, reason = await _answer(target, network, deadline, opened)
    except BlindError as error:
        state, reason = State.UNKNOWN, str(error)
    except AnswerError as error:
        state, reason = State.DOWN, str(error)
    except TimeoutError:
        state, reason = _silent(target, loop.time() - deadline, connected=bool(opened))
    except OSError as error:
        state, reason = _failed(error)
    finally:
        for wire in opened:
            wire.abort()
    return Attempt(state, shown(reason), None if state is State.UNKNOWN else loop.time() - began)


async def _answer(target: Target, network: Network, deadline: float, opened: list[Wire]) -> Answer:
    addresses = await network.resolve(target, deadline)

    async def dial() -> Wire:
        opened.append(await network.connect(target, addresses))
        return opened[-1]

    async with asyncio.timeout_at(deadline):
        return await PROBES[target.health.kind](dial, target)


def _silent(target: Target, late: float, *, connected: bool) -> Answer:
    if late > LATE_SECONDS:
        return State.UNKNOWN, f"this host was too busy to look: its clock ran {late:.1f} s past the deadline"
    where = "connected, but no whole answer" if connected else "no connection"
    return State.DOWN, f"{where} within {target.health.timeout_seconds:g} s"


def _failed(error: OSError) -> Answer:
    if type(error).__module__ == "ssl":
        return State.DOWN, f"TLS: {getattr(error, 'verify_message', '') or getattr(error, 'reason', '') or error}"
    reason = os.strerror(error.errno).lower() if error.errno else str(error) or "connection lost"
    return (State.UNKNOWN if error.errno in _OWN_FAULTS else State.DOWN), reason


def probe_once(address: str, health: Health) -> tuple[bool, float, str]:
    """Ask ``host:port`` one question, from outside any event loop: (healthy, latency in seconds, reason).

    Satisfies ``runtime.ports.Prober``; degraded counts as healthy.
    """
    host, _, port = address.rpartition(":")
    target = Target(address, host.strip("[]"), int(port), health, group=address)

    async def once() -> Attempt:
        return await ask(target, Network())

    attempt = asyncio.run(once())
    return attempt.state in ALIVE, attempt.latency_seconds or 0.0, attempt.reason
