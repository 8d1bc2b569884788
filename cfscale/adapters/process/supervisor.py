"""The supervisor: one thread, one selector, no shared state.

    select ─▶ callbacks (clients, replicas' links, health checks, signals) ─▶ tick
    tick: slots do what is due ▸ the balancer's slots follow ▸ logs are cut ▸ late clients are dropped

It holds two locks while it lives (see ``layout``). Killed with -9, its ends of the replicas' links close, and every
shim ends its replica.
"""

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from msgspec.structs import replace

from cfscale.adapters.process import shim
from cfscale.adapters.process.balancer import Rotation
from cfscale.adapters.process.control import Control
from cfscale.adapters.process.fleet import Fleet
from cfscale.adapters.process.launch import Surroundings
from cfscale.adapters.process.layout import Layout, claim, cut_log, share_replicas_lock
from cfscale.adapters.process.protocol import Answer, Down, Ping, Report, Request, Scale, Status, Up
from cfscale.adapters.process.recipes import Recipes, listen_problem, require_free_ports, write_files
from cfscale.adapters.process.slot import NEVER, Phase
from cfscale.core.plan import DeploymentPlan
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import ActionError, RefusedError, UnavailableError

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOGS_SECONDS = 5.0
_BALANCER_SECONDS = 0.1
_BALANCER_RETRY_SECONDS = 1.0
_PORTS = range(20_000, 32_000)  # below the range from which the kernel takes the ports of outgoing connections


class Supervisor:
    """Runs a deployment's replicas from ``with`` to the end of ``run``; at most one a state directory."""

    def __init__(self, plan: DeploymentPlan, recipes: Recipes, layout: Layout, tell: Callable[[str], None]) -> None:
        self._plan, self._recipes, self._layout, self._tell = plan, recipes, layout, tell
        self._stopping, self._abandoned = False, False
        self._signal: int | None = None
        self._rotation, self._fed, self._balancer_problem = Rotation(layout.balancer_socket), "", ""
        self._balancer_due = self._logs_due = 0.0
        self._next_port = _PORTS.start + os.getpid() * 64 % len(_PORTS)

    def __enter__(self) -> "Supervisor":
        """Take the locks and answer on the socket; raises LockedError or UnavailableError with nothing started."""
        with ExitStack() as stack:
            self._layout.create()
            stack.callback(os.close, claim(self._layout))
            lock = share_replicas_lock(self._layout, patience_of(self._plan))
            stack.callback(os.close, lock)
            require_free_ports(self._recipes)
            write_files(self._plan, self._recipes, self._layout)
            self._selector = stack.enter_context(selectors.DefaultSelector())
            self._around = Surroundings(self._layout, self._selector, lock, self._tell, self._pick_port)
            self._fleet = Fleet(self._recipes, self._around)
            self._control = Control(self._layout.socket, self._selector, self._respond)
            stack.callback(self._control.close)
            stack.callback(self._abandon)
            stack.enter_context(self._signals())
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def run(self, counts: Mapping[str, int]) -> int | None:
        """Start these replicas and supervise until told to stop; the signal that said so, None for a request.

        A second signal does not wait: the shims end what is left, each within its grace period.
        """
        self._bring_up(counts, time.monotonic())
        while not self._abandoned:
            timeout = self._tick(time.monotonic())
            if self._stopping and not list(self._fleet):
                break
            for key, _ in self._selector.select(timeout):
                key.data(time.monotonic())
        return self._signal

    def _tick(self, now: float) -> float:
        """Do everything that is due and return the seconds until more will be."""
        self._fleet.tick(now)
        if self._stopping:
            self._fleet.stop_next(now)
        self._end_strays()
        balancer_due = self._follow(now)
        if self._logs_due <= now:
            self._logs_due = now + _LOGS_SECONDS
            self._cut_logs()
        due = min(self._fleet.next_due(), balancer_due, self._logs_due, self._control.expire(now))
        return max(0.0, due - time.monotonic())

    def _cut_logs(self) -> None:
        try:
            for log in self._layout.logs.glob("*.log"):
                cut_log(log)
        except OSError as error:
            self._tell(f"{self._layout.logs}: {error}")

    def _respond(self, request: Request) -> Answer:
        now = time.monotonic()
        match request:
            case Ping():
                return Answer()
            case Status():
                return Answer(report=self._report())
            case Down():
                self._stopping = True
                return Answer()
        if self._stopping:
            raise ActionError("the supervisor is stopping: wait for its end, then 'cfscale up'")
        if isinstance(request, Scale):
            self._fleet.set_count(request.service, request.count, request.victims, now)
        elif isinstance(request, Up):
            self._require_same(request.fingerprint)
            self._bring_up(request.counts, now)
        return Answer(report=self._report())

    def _require_same(self, fingerprint: str) -> None:
        if fingerprint != self._recipes.fingerprint:
            raise RefusedError(
                f"supervisor {os.getpid()} runs other commands than this plan's: 'cfscale down' first, then 'cfscale up'"
            )

    def _bring_up(self, counts: Mapping[str, int], now: float) -> None:
        self._fleet.bring_up(counts, now)
        for slot in self._fleet.of("queue"):
            self._around.env["CFSCALE_QUEUE"] = f"127.0.0.1:{slot.port}"
            self._around.env["CFSCALE_QUEUE_PASSWORD_FILE"] = str(self._layout.queue_password)

    def _report(self) -> Report:
        replicas = tuple(self._as_fed(slot.replica()) for slot in self._fleet)
        notes = self._recipes.notes
        addresses = ", ".join(item.address for item in replicas if item.service == "agents" and item.address)
        if addresses and not self._recipes.balanced:
            notes = (*notes, f"connect to the agents directly: {addresses}")
        return Report(supervisor=os.getpid(), replicas=replicas, notes=notes)

    def _as_fed(self, replica: Replica) -> Replica:
        """A balancer that listens, but was not told of any replica yet, is not ready."""
        unfed = replica.service == "loadbalancer" and self._recipes.balanced and replica.id != self._fed
        return (
            replace(replica, state=ReplicaState.STARTING) if unfed and replica.state is ReplicaState.READY else replica
        )

    def _follow(self, now: float) -> float:
        """Bring the balancer's slots to the replicas' states; drained replicas that are idle are stopped."""
        balancer = next(
            (slot for slot in self._fleet if slot.service == "loadbalancer" and slot.state is ReplicaState.READY), None
        )
        if not self._recipes.balanced or balancer is None or self._stopping:
            return NEVER
        if balancer.identity != self._fed:
            self._rotation.forget()
        if self._balancer_due > now:
            return self._balancer_due
        try:
            self._rotation.apply(self._fleet.servers())
            draining = self._stop_idle(now)
        except UnavailableError as error:
            self._complain(str(error))
            self._balancer_due = now + _BALANCER_RETRY_SECONDS
            return self._balancer_due
        self._fed = balancer.identity
        self._complain("")
        self._balancer_due = now + _BALANCER_SECONDS if draining else 0.0
        return self._balancer_due or NEVER

    def _stop_idle(self, now: float) -> bool:
        """Stop drained replicas that hold no request any more; whether some are left that do."""
        draining = [slot for slot in self._fleet if slot.phase is Phase.DRAINING and slot.recipe.service.routes]
        sessions = self._rotation.sessions() if draining else {}
        busy = [slot for slot in draining if not slot.done or sessions.get(f"{slot.service}/{slot.name}", 0) > 0]
        for slot in draining:
            if slot not in busy:
                slot.stop(now)
        return bool(busy)

    def _complain(self, problem: str) -> None:
        if problem and problem != self._balancer_problem:
            self._tell(problem)
        self._balancer_problem = problem

    def _pick_port(self) -> int:
        taken = {slot.port for slot in self._fleet}
        for _ in _PORTS:
            self._next_port = _PORTS.start + (self._next_port + 1 - _PORTS.start) % len(_PORTS)
            if self._next_port not in taken and not listen_problem("127.0.0.1", self._next_port):
                return self._next_port
        raise ActionError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free")

    def _end_strays(self) -> None:
        """End what a shim left that was itself killed: as the subreaper, this process is its parent now."""
        if not self._around.strays:
            return
        while strays := set(shim.children_of(os.getpid())) - self._others - {slot.shim for slot in self._fleet}:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._around.strays = False

    def _abandon(self) -> None:
        for slot in self._fleet:
            slot.abandon()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop signals arrive as bytes in the loop; needs the main thread, as signals do."""
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)  # noqa: FBT003 - the socket API's own signature
            self._selector.register(reader, selectors.EVENT_READ, partial(self._on_signals, reader))
            self._others = frozenset(shim.children_of(os.getpid()))
            shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 1)
            previous = {number: signal.signal(number, lambda _number, _frame: None) for number in _STOP_SIGNALS}
            old = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(old)
                for number, handler in previous.items():
                    signal.signal(number, handler)
                shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 0)
                self._selector.unregister(reader)

    def _on_signals(self, reader: socket.socket, _now: float) -> None:
        for number in reader.recv(4096):
            if number in _STOP_SIGNALS:
                self._abandoned, self._stopping = self._stopping, True
                self._signal = number


def patience_of(plan: DeploymentPlan) -> float:
    """Seconds within which the replicas of one stage have ended, however they behave."""
    return max((service.stop_grace_seconds for service in plan.services), default=0.0) + 10.0
