"""Whether a connection is accepted, and no more than that; over TLS, with a certificate that stands for the target."""

from time import time

from cfscale.adapters.probes.certificate import ending
from cfscale.adapters.probes.network import Answer, Dialer
from cfscale.core.health import State, Target


async def probe_tcp(dial: Dialer, _target: Target) -> Answer:
    """Connect; being accepted is the whole answer."""
    await dial()
    return State.UP, "connected"


async def probe_tls(dial: Dialer, _target: Target) -> Answer:
    """Connect and shake hands: the certificate is the answer."""
    await dial()
    return State.UP, "TLS" if dial.certificate is None else f"TLS, {ending(dial.certificate, time())}"
