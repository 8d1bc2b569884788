"""A bounded, open-loop HTTP load client: so many requests a second, each counted as answered, limited or lost.

The targets may change while it runs: where no balancer is there, it spreads over the replicas that are listed.
A connection is used for one request only, so that no request ever meets one that its server has just closed.
"""

import argparse
import http.client
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What became of the requests: answered (200), limited (429), lost (anything else), and who answered."""

    sent: int = 0
    answered: int = 0
    limited: int = 0
    lost: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    workers: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """The report in one line."""
        why = f" ({dict(self.reasons)})" if self.reasons else ""
        return f"{self.sent} sent, {self.answered} answered by {len(self.workers)} workers, {self.limited} limited, {self.lost} lost{why}"


class Load:
    """Sends ``rate`` requests a second to ``path`` of the targets until stopped or ``seconds`` have passed."""

    def __init__(
        self, targets: Callable[[], Sequence[str]], path: str, *, rate: float, seconds: float, threads: int = 32
    ) -> None:
        """``targets`` gives ``host:port`` addresses and is asked before every request."""
        self.report = Report()
        self._targets, self._path, self._rate, self._seconds = targets, path, rate, seconds
        self._next, self._lock, self._stop = 0, threading.Lock(), threading.Event()
        self._start = time.monotonic()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def start(self) -> "Load":
        """Begin sending."""
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> Report:
        """Send nothing new, wait for what is on its way, and return the report."""
        self._stop.set()
        return self.wait()

    def wait(self) -> Report:
        """Wait until all is sent and answered, and return the report."""
        for thread in self._threads:
            thread.join()
        return self.report

    def _work(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            due = number / self._rate
            if due >= self._seconds or self._stop.wait(max(0.0, self._start + due - time.monotonic())):
                return
            outcome, worker = self._send(number)
            self._count(outcome, worker)

    def _send(self, number: int) -> tuple[str, str]:
        targets = self._targets()
        if not targets:
            return "no target", ""
        connection = http.client.HTTPConnection(targets[number % len(targets)], timeout=30)
        try:
            connection.request("GET", self._path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, ""
        finally:
            connection.close()
        return str(response.status), (response.getheader("X-Served-By") or body[:80].decode("ascii", "replace"))

    def _count(self, outcome: str, worker: str) -> None:
        with self._lock:
            self.report.sent += 1
            if outcome == "200":
                self.report.answered += 1
                self.report.workers[worker] += 1
            elif outcome == "429":
                self.report.limited += 1
            else:
                self.report.lost += 1
                self.report.reasons[outcome] += 1


def main() -> int:
    """``load.py HOST:PORT PATH --rate N --seconds N``: print the report; exit 1 where a request was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", metavar="HOST:PORT")
    parser.add_argument("path")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    load = Load(lambda: [options.target], options.path, rate=options.rate, seconds=options.seconds)
    report = load.start().wait()
    print(report.line())
    return 1 if report.lost else 0


if __name__ == "__main__":
    sys.exit(main())
