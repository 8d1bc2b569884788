"""One replica: a place in its service that a process fills, and fills again when the process ends.

waiting ──▶ running ──▶ draining ──▶ stopping ──▶ gone
   ▲           │ ended                              ▲
   ├───────────┤                                    │
   │           └──▶ failed (crash loop) ────────────┤
   └────────────────────────────────────────────────┘
"""

import os
import selectors
import time
from enum import StrEnum

from cfscale.adapters.process.backoff import QUICK_EXITS, STABLE_SECONDS, Backoff
from cfscale.adapters.process.health import DOUBT_INTERVAL_SECONDS, Check, Pulse
from cfscale.adapters.process.launch import Process, Surroundings
from cfscale.adapters.process.procfs import read_stat
from cfscale.adapters.process.recipes import Recipe, listen_problem
from cfscale.core.plan import Health, HealthKind
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import ActionError

NEVER = float("inf")
KILL_MARGIN_SECONDS = 5.0


class Phase(StrEnum):
    """What the supervisor is doing with a slot."""

    WAITING = "waiting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    FAILED = "failed"
    GONE = "gone"


class Slot:
    """One replica of one service. ``due`` is when ``tick`` has something to do."""

    def __init__(self, recipe: Recipe, number: int, around: Surroundings, now: float) -> None:
        self.recipe, self.number = recipe, number
        self.service = recipe.service.name
        self.name = self.identity = f"{self.service}-{number}"
        self.phase, self.state, self.reason = Phase.WAITING, ReplicaState.STARTING, ""
        self.due, self.started_at, self.restarts = now, 0.0, 0
        self.pid: int | None = None
        self.port = recipe.port or around.pick_port()
        self.log = around.layout.logs / f"{self.name}.log"
        self._around = around
        self._process: Process | None = None
        self._check: Check | None = None
        self._pulse = Pulse(recipe.health, now)
        self._launched, self._backoff = now, Backoff()
        self._watched, self._drained_by = False, NEVER
        self.done = recipe.service.drain is None or recipe.service.drain.done is None  # as far as can be asked

    @property
    def leaving(self) -> bool:
        """Whether this replica is on its way out, or out."""
        return self.phase in (Phase.DRAINING, Phase.STOPPING, Phase.GONE)

    @property
    def address(self) -> tuple[str, int]:
        """Where this machine reaches the replica."""
        return ("127.0.0.1" if self.recipe.host in ("*", "0.0.0.0") else self.recipe.host, self.port)  # noqa: S104

    @property
    def shim(self) -> int | None:
        """The pid of the shim, our own child, while it runs."""
        return self._process.shim if self._process else None

    def replica(self) -> Replica:
        """The replica as the engine reports it."""
        stat = read_stat(self.pid) if self.pid else None
        paused = stat is not None and stat.state == "T" and not self.leaving
        return Replica(
            id=self.identity,
            name=self.name,
            service=self.service,
            state=ReplicaState.PAUSED if paused else self.state,
            started_at=self.started_at,
            address=f"{self.address[0]}:{self.port}",
            pid=self.pid,
            restarts=self.restarts,
            reason=self.reason,
        )

    def tick(self, now: float) -> None:
        """Do what is due; safe to call at any time."""
        if self._check is not None and self._check.deadline <= now:
            self._check.expire()
            self._judge(now)
        if self.due > now:
            return
        self.due = NEVER
        if self.phase is Phase.WAITING:
            self._launch(now)
        elif self.phase is Phase.RUNNING:
            self._ask(now)
        elif self.phase is Phase.DRAINING:
            self._finish_work(now)
        elif self.phase is Phase.STOPPING and self._process is not None:
            self._process.kill()

    def next_due(self) -> float:
        """When ``tick`` wants to be called again."""
        return min(self.due, self._check.deadline if self._check else NEVER)

    def drain(self, now: float, seconds: float, *, watched: bool) -> None:
        """Leave rotation now and stop after this time, or sooner: when its work is done, or, watched, on ``stop``."""
        if self.leaving:
            return
        if self._process is None:
            self._finish()
        else:
            self._drop_check()
            self.phase, self.state, self._drained_by = Phase.DRAINING, ReplicaState.DRAINING, now + seconds
            self._watched = watched
            self.due = self._drained_by if self.done else now

    def _finish_work(self, now: float) -> None:
        """Ask a replica out of rotation whether its work is done, until its time is up."""
        drain = self.recipe.service.drain
        if now >= self._drained_by or drain is None or drain.done is None:
            self.stop(now)
        else:
            self._question(drain.done, now)

    def stop(self, now: float) -> None:
        """End the process now: SIGTERM, its grace period, SIGKILL; all of it is the shim's work."""
        if self._process is None and self.phase is not Phase.GONE:
            self._finish()
        elif self._process is not None and self.phase is not Phase.STOPPING:
            self._drop_check()
            self._process.stop()
            self.phase, self.state = Phase.STOPPING, ReplicaState.DRAINING
            self.due = now + self.recipe.service.stop_grace_seconds + KILL_MARGIN_SECONDS

    def retry(self, now: float) -> None:
        """Give a replica in a crash loop another try."""
        if self.phase is Phase.FAILED:
            self.phase, self.due, self._backoff = Phase.WAITING, now, Backoff()

    def abandon(self) -> None:
        """Let go of the process without waiting for its end; the shim sees to that."""
        self._drop_check()
        if self._process is not None:
            self._around.selector.unregister(self._process.link)
            self._process.abandon()
            self._process = None

    def _launch(self, now: float) -> None:
        self.phase, self.state = Phase.RUNNING, ReplicaState.STARTING
        self._launched, self.started_at, self._pulse = now, time.time(), Pulse(self.recipe.health, now)
        try:
            self._process = process = self._spawn()
        except (OSError, ActionError) as error:
            self._ended(now, f"cannot be started: {error}")
            return
        self._around.selector.register(process.link, selectors.EVENT_READ, lambda now: self._listen(process, now))

    def _spawn(self) -> Process:
        if self.recipe.port is None and listen_problem(self.recipe.host, self.port):
            self.port = self._around.pick_port()
        words = [word.replace("{port}", str(self.port)) for word in self.recipe.command]
        own = {"PORT": str(self.port), "CFSCALE_SERVICE": self.service, "CFSCALE_REPLICA": str(self.number)}
        env = {**os.environ, **self._around.env, **self.recipe.env, **own}
        return Process(self.recipe, words, env, self.log, self._around.replicas_lock)

    def _listen(self, process: Process, now: float) -> None:
        if self._process is not process:
            return
        there, stat = process.listen()
        if not there:
            self._drop_check()
            self._around.selector.unregister(process.link)
            how = process.wait()
            self._process, self.pid = None, None
            self._around.strays |= process.shim_was_killed
            self._ended(now, how)
        elif stat is not None:
            self.pid, self.identity = stat.pid, stat.identity
            self._around.tell(f"{self.name} started: pid {self.pid}, {self.address[0]}:{self.port}")
            if self.phase is Phase.RUNNING:
                self.due = now
        elif self.phase is Phase.RUNNING:
            self._drop_check()
            self.due = NEVER
            self._become(ReplicaState.UNHEALTHY, "its main process ended, what it left is being stopped")

    def _ask(self, now: float) -> None:
        if self.recipe.health.kind is HealthKind.NONE:
            self._become(ReplicaState.READY, "")
        else:
            self._question(self.recipe.health, now)

    def _question(self, health: Health, now: float) -> None:
        if self._check is not None:
            return
        try:
            self._check = check = Check(self.address, health, now)
        except OSError:  # out of descriptors, or of name service: says nothing of the replica
            self.due = now + DOUBT_INTERVAL_SECONDS
            return
        self._around.selector.register(check.socket, check.events, lambda now: self._advance(check, now))
        self._judge(now)

    def _advance(self, check: Check, now: float) -> None:
        if self._check is not check:
            return
        check.advance()
        self._around.selector.modify(check.socket, check.events, lambda now: self._advance(check, now))
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Take the check's verdict, if there is one, and set when to ask again."""
        if self._check is None or self._check.verdict is None:
            return
        verdict = self._check.verdict
        self._drop_check()
        if self.phase is Phase.DRAINING:
            self.done = verdict[0]
            self.due = now + DOUBT_INTERVAL_SECONDS
            if self.done and not self._watched:
                self.stop(now)
            return
        state = self._pulse.feel(verdict, self.state, now)
        self._become(state, verdict[1] if state is ReplicaState.UNHEALTHY else "")
        self.due = now + self._pulse.interval(state)

    def _become(self, state: ReplicaState, reason: str) -> None:
        if self.state is not state:
            self._around.tell(f"{self.name} is {state}{': ' + reason if reason else ''}")
        self.state, self.reason = state, reason

    def _ended(self, now: float, how: str) -> None:
        if self.leaving:
            self._finish()
            return
        self.state = ReplicaState.UNHEALTHY
        delay = self._backoff.after(now - self._launched)
        if delay is None:
            self.phase = Phase.FAILED
            self.reason = f"crash loop: {how}, {QUICK_EXITS} times within {STABLE_SECONDS:g} s of the start; not started again, see {self.log}"
        else:
            self.phase, self.due, self.restarts = Phase.WAITING, now + delay, self.restarts + 1
            self.reason = f"{how}; started again in {delay:g} s"
        self._around.tell(f"{self.name}: {self.reason}")

    def _finish(self) -> None:
        self.phase, self.state, self.due = Phase.GONE, ReplicaState.STOPPED, NEVER
        self._around.tell(f"{self.name} stopped")

    def _drop_check(self) -> None:
        if self._check is not None:
            self._around.selector.unregister(self._check.socket)
            self._check.close()
            self._check = None
