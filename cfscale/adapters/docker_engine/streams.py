"""Statistics of containers as quickly as the engine gives them.

    each answer, timed ─▶ at once: one answer a question, asked for when it is wanted
                       └▶ late, twice (engines before 23.0.8): one stream a container, whose latest sample is at hand

The first answer of an idle engine proves nothing: even an old one gives it at once.
A stream that breaks is begun anew after a pause; its last sample then grows old, and says so by its time.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator
from threading import Event, Lock, Thread

from msgspec.structs import replace

from cfscale.adapters.docker_engine.stats import Measured
from cfscale.errors import UnavailableError

QUICK_SECONDS = 0.3
LATE_ANSWERS = 2
MOST_STREAMS = 200
FIRST_SAMPLE_SECONDS = 3.0
_PAUSE_SECONDS = 1.0

Measure = Callable[[str], Measured | None]
Follow = Callable[[str], Iterator[Measured]]


class Statistics:
    """A ``measure`` for StatsReader; ``measure`` and ``follow`` are the engine's two ways of answering."""

    def __init__(self, measure: Measure, follow: Follow, *, quick_seconds: float = QUICK_SECONDS) -> None:
        self._measure, self._follow = measure, follow
        self._quick_seconds = quick_seconds
        self._late = 0
        self._lock = Lock()
        self._streams: dict[str, Stream] = {}

    def measure(self, container: str) -> Measured | None:
        """The newest statistics of one container; None if it is gone. Raises UnavailableError. For many threads."""
        with self._lock:
            stream = self._stream(container) if self._late >= LATE_ANSWERS else None
        return self._timed(container) if stream is None else stream.latest()

    def keep(self, containers: Collection[str]) -> None:
        """End the streams of all others."""
        with self._lock:
            for gone in self._streams.keys() - set(containers):
                self._streams.pop(gone).end()

    def _timed(self, container: str) -> Measured | None:
        began = time.monotonic()
        found = self._measure(container)
        if time.monotonic() - began >= self._quick_seconds:
            self._late += 1
        return found

    def _stream(self, container: str) -> "Stream | None":
        """The container's stream, a new one if need be; None where there are as many as may be."""
        if container not in self._streams and len(self._streams) < MOST_STREAMS:
            self._streams[container] = Stream(container, self._follow)
        return self._streams.get(container)


class Stream:
    """One container's statistics, read by a thread of their own as they come."""

    def __init__(self, container: str, follow: Follow) -> None:
        self._container, self._follow = container, follow
        self._latest: Measured | None = None
        self._problem: UnavailableError | None = None
        self._over, self._first = Event(), Event()
        Thread(target=self._run, name=f"stats-{container[:12]}", daemon=True).start()

    def latest(self) -> Measured | None:
        """The latest sample, waited for if it is the first; None if the container is gone. Raises UnavailableError."""
        self._first.wait(FIRST_SAMPLE_SECONDS)
        if self._latest is None and not self._over.is_set():
            raise self._problem or UnavailableError(f"container {self._container[:12]}: no statistics yet")
        return self._latest

    def end(self) -> None:
        """Read no more; the thread ends with the next sample."""
        self._over.set()
        self._latest = None

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._read()
                self.end()  # the engine ends a stream when the container is gone
            except UnavailableError as error:
                self._problem = error
                self._first.set()
                self._over.wait(_PAUSE_SECONDS * (1 + random.random()))  # noqa: S311 - it only spreads retries
        self._first.set()

    def _read(self) -> None:
        for sample in self._follow(self._container):
            if self._over.is_set():
                return
            self._latest = replace(sample, at_seconds=time.monotonic(), taken_at=time.time())
            self._first.set()
