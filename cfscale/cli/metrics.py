"""Prometheus metrics of the scaler itself, served while it watches: ``/metrics``, and ``/health`` for who supervises it.

    scaler ─▶ Meter (a registry of its own) ─▶ HTTP on one address, in a thread

``/health`` is 200 while ticks come, 503 once none has ended for three intervals.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from cfscale.cli import console
from cfscale.core.decision import Action, Decision
from cfscale.core.history import History
from cfscale.core.policy import Observation
from cfscale.core.samples import ReplicaState
from cfscale.errors import InputError, UnavailableError

_LATE_INTERVALS = 3
_MOST_PORT = 65_535
Application = Callable[[dict[str, object], Callable[..., object]], Iterable[bytes]]


class Meter:
    """What is counted. ``interval_seconds`` is how often a tick should end."""

    def __init__(self, deployment: str, engine: str, interval_seconds: float) -> None:
        self.registry = CollectorRegistry()
        self._interval = interval_seconds
        self._ended = time.monotonic()
        by_service = ("service",)
        self._replicas = self._gauge("replicas", "Replicas by state, as last observed", ("service", "state"))
        self._desired = self._gauge("desired_replicas", "Replicas that the last decision asks for", by_service)
        self._bounds = self._gauge("replica_bound", "Hard bounds of the replica count", ("service", "bound"))
        self._usage = self._gauge(
            "utilisation_ratio", "Mean utilisation of the ready replicas", ("service", "resource")
        )
        self._age = self._gauge("sample_age_seconds", "Age of the oldest measurement used", ("service", "resource"))
        self._failures = self._gauge("failed_actions", "Actions in a row that did not take effect", by_service)
        self._blind = self._gauge("without_data", "1 while a service has no usable measurements", by_service)
        self._decisions = Counter(
            "cfscale_decisions", "Decisions", ("service", "action", "urgency"), registry=self.registry
        )
        self._actions = Counter(
            "cfscale_actions", "Actions that were begun, and how they ended", ("service", "action", "outcome"),
            registry=self.registry,
        )  # fmt: skip
        self._ticks = Histogram("cfscale_tick_seconds", "Duration of a tick", registry=self.registry)
        self._last = self._gauge("last_tick_timestamp_seconds", "When the last tick ended", ())
        self._warnings = Counter("cfscale_warnings", "Warnings to the operator", registry=self.registry)
        self._gauge("info", "What is scaled", ("deployment", "engine")).labels(deployment, engine).set(1)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(f"cfscale_{name}", text, labels, registry=self.registry)

    def decided(self, decision: Decision, observation: Observation | None, code: int) -> None:
        """Count one decision; ``code`` is that of the scaler for this service."""
        name = decision.service
        self._decisions.labels(name, decision.action, decision.urgency).inc()
        self._desired.labels(name).set(decision.desired)
        self._blind.labels(name).set(code == UnavailableError.exit_code)
        for sample in decision.samples:
            self._usage.labels(name, sample.resource).set(sample.value_ratio)
            self._age.labels(name, sample.resource).set(sample.age_seconds)
        if observation is not None:
            for state in ReplicaState:
                self._replicas.labels(name, state).set(observation.count(state))
            self._bounds.labels(name, "min").set(observation.service.min_replicas)
            self._bounds.labels(name, "max").set(observation.service.max_replicas)

    def acted(self, decision: Decision) -> None:
        """Count an action by its end."""
        if decision.action is not Action.HOLD:
            self._actions.labels(decision.service, decision.action, "done" if decision.applied else "failed").inc()

    def ticked(self, seconds: float, histories: Mapping[str, History]) -> None:
        """A tick ended after so many seconds."""
        self._ended = time.monotonic()
        self._ticks.observe(seconds)
        self._last.set_to_current_time()
        for name, history in histories.items():
            self._failures.labels(name).set(history.failures)

    def counting(self, warn: Callable[[str], None]) -> Callable[[str], None]:
        """The same way to warn, and each warning is counted."""

        def counted(text: str) -> None:
            self._warnings.inc()
            warn(text)

        return counted

    @property
    def late(self) -> float:
        """Seconds since the last tick, where that is too long; else 0."""
        since = time.monotonic() - self._ended
        return since if since > _LATE_INTERVALS * self._interval else 0.0

    def application(self) -> Application:
        """The WSGI application of both paths."""
        metrics = cast("Application", make_wsgi_app(self.registry))

        def answer(environ: dict[str, object], start: Callable[..., object]) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/metrics":
                return metrics(environ, start)
            if environ["PATH_INFO"] != "/health":
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics, /health\n"]
            late = self.late
            start("503 Service Unavailable" if late else "200 OK", [("Content-Type", "application/json")])
            status = "late" if late else "ok"
            return [f'{{"status": "{status}", "seconds_since_last_tick": {late:.1f}}}\n'.encode()]

        return answer


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; without a host the loopback. Raises InputError."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 <= int(port) <= _MOST_PORT:
        raise InputError(f"--metrics '{text}': write [ADDRESS]:PORT, such as :9464 or 0.0.0.0:9464")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Quiet(WSGIRequestHandler):
    """Requests are no news."""

    timeout = 5

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@contextmanager
def serving(meter: Meter, where: str) -> Iterator[int]:
    """Serve the metrics in the background while the block runs; gives the port. Raises InputError."""
    host, port = address_of(where)
    try:
        server = make_server(host, port, meter.application(), server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise InputError(f"--metrics '{where}': {error.strerror or error}: choose another address") from error
    thread = Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
    thread.start()
    console.note(f"metrics: http://{host}:{server.server_port}/metrics")
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(WSGIServer):
    """One request after the other; who stops in the middle is dropped after a few seconds."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""
