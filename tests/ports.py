"""Ports for the servers that tests start."""

import itertools
import os
import socket

_FIRST, _PER_WORKER, _WORKERS = 20_000, 1_500, 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
# runs that share a machine begin at different places
_candidates = itertools.cycle(
    _FIRST + _worker * _PER_WORKER + (os.getppid() * 37 + step) % _PER_WORKER for step in range(_PER_WORKER)
)


def free_port() -> int:
    """A port of the loopback that nobody listens on; another call, or another worker, is given another one.

    It is below those that the system hands out, so that no connection takes it before the server has it.
    """
    return next(port for port in _candidates if _is_free(port))


def free_ports(count: int) -> int:
    """The first of so many such ports in a row."""
    found = [free_port()]
    while len(found) < count:
        port = free_port()
        found = [*found, port] if port == found[-1] + 1 else [port]
    return found[0]


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
