"""One question to one target under one deadline, which covers the lookup, connecting, TLS and the whole answer."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib import import_module
from socket import AF_INET
from time import monotonic, time

from cfscale.adapters.probes.certificate import ending
from cfscale.adapters.probes.http import UP, Response, complete_status, judge, probe_http, received, request
from cfscale.adapters.probes.network import Answer, AnswerError, BlindError, Dialer, Network, forbidden
from cfscale.adapters.probes.redis import probe_redis
from cfscale.adapters.probes.resolver import literal
from cfscale.adapters.probes.tcp import probe_tcp, probe_tls
from cfscale.core.health import ALIVE, Attempt, Kind, State, Target, shown
from cfscale.core.judging import Judging
from cfscale.core.plan import Health, HealthKind

_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EAFNOSUPPORT})
_OWN_FAULTS = _UNREACHABLE | {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EPERM,
}

Probe = Callable[[Dialer, Target], Awaitable[Answer]]


def _later(module: str) -> Probe:
    """A probe whose module is imported when it is needed: most rounds need few protocols."""

    async def probe(dial: Dialer, target: Target) -> Answer:
        found: Probe = getattr(import_module(f"cfscale.adapters.probes.{module}"), f"probe_{module}")
        return await found(dial, target)

    return probe


def warm(network: Network, targets: Iterable[Target]) -> None:
    """Load beforehand what these targets take: done in the middle of a round it would count as their latency."""
    for kind in {target.kind for target in targets} & _LATER:
        import_module(f"cfscale.adapters.probes.{kind.value}")
    for h2 in {target.kind is Kind.GRPC for target in targets if target.tls}:
        network.context(verify=True, h2=h2)


_LATER = frozenset(
    {Kind.AGENT, Kind.DNS, Kind.POSTGRES, Kind.GRPC, Kind.JSONRPC, Kind.EXEC, Kind.DOCKER, Kind.HEARTBEAT}
)
PROBES: Mapping[Kind, Probe] = {
    Kind.HTTP: probe_http,
    Kind.TCP: probe_tcp,
    Kind.TLS: probe_tls,
    Kind.REDIS: probe_redis,
    Kind.AGENT: _later("agent"),
    Kind.DNS: _later("dns"),
    Kind.POSTGRES: _later("postgres"),
    Kind.GRPC: _later("grpc"),
    Kind.JSONRPC: _later("jsonrpc"),
    Kind.EXEC: _later("exec"),
    Kind.DOCKER: _later("docker"),
    Kind.HEARTBEAT: _later("heartbeat"),
    Kind.NONE: probe_tcp,  # no question to ask: being reachable is all there is to learn
}


_UNKNOWN, _HTTP = State.UNKNOWN, HealthKind.HTTP


async def ask(target: Target, network: Network) -> Attempt:
    """What the target answers; never raises for anything that the target or the network does."""
    began, missed = monotonic(), network.pulse.missed
    dial = Dialer(network, target, began + target.health.timeout_seconds)
    late = unreachable = False
    try:
        state, reason = await _answer(dial, target)
    except BlindError as error:
        state, reason = State.UNKNOWN, str(error)
    except AnswerError as error:
        state, reason = State.DOWN, str(error)
    except TimeoutError:
        lost = max(network.pulse.missed - missed, monotonic() - dial.deadline)
        late = network.excused(lost, target.health.timeout_seconds)
        state, reason = _overslept(lost) if late else _silent(dial)
    except OSError as error:
        state, reason = _failed(error)
        unreachable = error.errno in _UNREACHABLE
    finally:
        dial.close()
    latency = None if state is _UNKNOWN else monotonic() - began
    expires = dial.certificate.not_after if dial.certificate else None
    return Attempt(
        state, shown(reason), latency, dial.phases(began), dial.status, expires, late, unreachable, dial.remote
    )


async def _answer(dial: Dialer, target: Target) -> Answer:
    if dial.network.direct and is_plain(target):
        return await _plain_answer(dial, target)
    await dial.resolve()
    return _certified(dial, await PROBES[target.kind](dial, target))


def is_plain(target: Target) -> bool:
    """Whether it is what fleets are made of: HTTP without TLS, asked for a status alone, by an address that may be asked."""
    health = target.health
    plain = health.kind is _HTTP and not target.tls and not health.json and target.asked_in is None
    return plain and literal(target.host) == target.host and ":" not in target.host and not forbidden(target.host)


async def _plain_answer(dial: Dialer, target: Target) -> Answer:
    """The same question as ``probe_http``, with less on the way to it: ten thousand are asked in a round."""
    dial.addresses.append(target.host)
    wire = dial.wire()
    await wire.connect(AF_INET, (target.host, target.port), dial.deadline)
    await wire.send(request("GET", target.health.path, target))
    data = await wire.read()
    dial.status = complete_status(data) or (await received(wire, data, with_body=False)).status
    dial.close(abruptly=True)  # connections that the system remembers for a minute would use up ports and its time
    return judge(Response(dial.status), target)


def _certified(dial: Dialer, answer: Answer) -> Answer:
    """The answer in the light of the certificate behind it: one that fails or expires soon makes an up degraded."""
    state, reason = answer
    if dial.certificate is None or state is not UP:
        return answer
    if dial.refused:
        return State.DEGRADED, f"{reason}; {dial.refused}"
    now = time()
    if dial.certificate.not_after - now < dial.network.policy.expiring_seconds:
        return State.DEGRADED, f"{reason}; {ending(dial.certificate, now)}"
    return answer


def _overslept(lost: float) -> Answer:
    return State.UNKNOWN, f"this host was too busy to look: it missed {lost:.1f} s"


def _silent(dial: Dialer) -> Answer:
    if dial.target.kind is Kind.EXEC:
        return State.DOWN, f"did not end within {dial.target.health.timeout_seconds:g} s"
    where = "connected, but no whole answer" if dial.connected else "no connection"
    return State.DOWN, f"{where} within {dial.target.health.timeout_seconds:g} s"


def _failed(error: OSError) -> Answer:
    if type(error).__module__ == "ssl":
        return State.DOWN, f"TLS: {getattr(error, 'verify_message', '') or getattr(error, 'reason', '') or error}"
    reason = os.strerror(error.errno).lower() if error.errno else str(error) or "connection lost"
    return (State.UNKNOWN if error.errno in _OWN_FAULTS else State.DOWN), reason


def probe_once(address: str, health: Health, judging: Judging) -> tuple[bool, float, str]:
    """Ask ``host:port`` one question, from outside any event loop: (healthy, latency in seconds, reason).

    With a ``judging`` it satisfies ``runtime.ports.Prober``; degraded counts as healthy.
    """
    host, _, port = address.rpartition(":")
    target = Target(address, host.strip("[]"), int(port), health, group=address)

    async def once() -> Attempt:
        return await ask(target, Network(judging))

    attempt = asyncio.run(once())
    return attempt.state in ALIVE, attempt.latency_seconds or 0.0, attempt.reason
