"""The ``process`` engine: drives a supervisor through its socket, and starts one where there is none.

Limits of CPU and memory are measured against, not enforced: that takes a cgroup, and with it root.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.json import encode

from cfscale import errors
from cfscale.adapters.process.layout import Layout, remove_data, wait_until_gone, write_private
from cfscale.adapters.process.procfs import Stat, read_stat
from cfscale.adapters.process.protocol import Down, Ping, Report, Request, Scale, Status, Up, ask
from cfscale.adapters.process.recipes import Recipes, plan_recipes
from cfscale.adapters.process.supervisor import Supervisor, patience_of
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, Usage
from cfscale.errors import ActionError, CfscaleError, UnavailableError

if TYPE_CHECKING:
    from cfscale.adapters.process.usage import UsageReader

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_EXIT_SECONDS = 5.0


class Order(Struct, frozen=True):
    """What a detached supervisor is to run."""

    plan: DeploymentPlan
    counts: dict[str, int]
    base_dir: str


class ProcessEngine:
    """Runs a plan's services as local processes; ``base_dir`` (the profile's directory) is where they work.

    ``hurried`` says whether the caller was asked to stop: a drain is then left to the supervisor, which goes on with it.
    """

    def __init__(self, plan: DeploymentPlan, state_dir: Path, base_dir: Path) -> None:
        self._plan, self._base_dir = plan, base_dir.absolute()
        self._layout = Layout(state_dir.absolute())
        self._usage: UsageReader | None = None
        self.hurried: Callable[[], bool] = lambda: False

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return "process"

    @property
    def target(self) -> str:
        """The host and the state directory: there is at most one supervisor of both."""
        return f"process:{socket.gethostname()}:{self._layout.state}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know of the running deployment, a plain sentence each."""
        return self._report().notes

    def supervise(self, counts: Mapping[str, int], on_event: Callable[[str], None]) -> int | None:
        """Supervise in the foreground until SIGINT, SIGTERM, SIGHUP or ``down``; everything is stopped on return.

        Returns the number of the signal that ended it, None for ``down``. Needs the main thread. A second signal
        returns at once: what is left then ends within its grace period.
        """
        recipes = self._recipes()
        accepted = recipes.accept(counts)
        with Supervisor(self._plan, recipes, self._layout, on_event) as supervisor:
            for note in recipes.notes:
                on_event(note)
            return supervisor.run(accepted)

    def up(self, counts: Mapping[str, int]) -> None:
        """Bring a running supervisor to these counts, or start one in the background; returns when all have started."""
        recipes = self._recipes()
        accepted = recipes.accept(counts)
        try:
            ask(self._layout.socket, Ping())
        except UnavailableError:
            self._detach(accepted)
        else:
            self._request(Up(counts=accepted, fingerprint=recipes.fingerprint))
        self._await(
            lambda replicas: all(_started(replicas, name) >= count for name, count in accepted.items()),
            _START_SECONDS,
            "start",
        )

    def down(self, *, volumes: bool) -> None:
        """Stop everything and the supervisor; with ``volumes`` what services kept is removed too."""
        patience, supervisor = 4 * patience_of(self._plan), None
        try:
            supervisor = read_stat(self._report().supervisor)
            self._request(Down())
        except UnavailableError:
            # dead or already on its way out: the locks say when nothing is left
            patience = patience_of(self._plan)
        for lock in (self._layout.replicas_lock, self._layout.supervisor_lock):
            if not wait_until_gone(lock, patience):
                raise ActionError(
                    f"{self._layout.state}: something still runs after {patience:g} s: see {self._layout.logs}"
                )
        self._layout.socket.unlink(missing_ok=True)
        if volumes:
            remove_data(self._layout)
        if supervisor is not None:
            _await_exit(supervisor)

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica the supervisor knows; raises UnavailableError when none answers."""
        return self._report().replicas

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """CPU since the previous call of this engine object, and memory; ``warming`` on the first."""
        from cfscale.adapters.process.usage import UsageReader  # psutil is for those who measure

        self._usage = self._usage or UsageReader(self._plan.services, self._layout.state)
        return self._usage.read(replicas)

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count`` replicas and return when each has started."""
        self._request(Scale(service=service.name, count=count))
        self._await(
            lambda replicas: _started(replicas, service.name) >= count, _START_SECONDS, f"start of {service.name}"
        )

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Drain and stop these replicas, leaving ``count``; returns when they are gone."""
        self._request(Scale(service=service.name, count=count, victims=tuple(victim.id for victim in victims)))
        patience = service.drain_limit_seconds + service.stop_grace_seconds + 10.0
        stopped = ", ".join(victim.name for victim in victims)
        self._await(lambda replicas: _present(replicas, service.name) <= count, patience, f"end of {stopped}")

    def _recipes(self) -> Recipes:
        return plan_recipes(self._plan, self._layout, self._base_dir)

    def _request(self, request: Request) -> Report | None:
        answer = ask(self._layout.socket, request)
        if answer.error is not None:
            raise ActionError(answer.error)
        return answer.report

    def _report(self) -> Report:
        report = self._request(Status())
        if report is None:
            raise UnavailableError(f"{self._layout.socket}: the supervisor gave no report")
        return report

    def _await(self, reached: Callable[[Sequence[Replica]], bool], patience: float, what: str) -> None:
        deadline = time.monotonic() + patience
        while not reached(self.replicas()):
            if what.startswith("end of") and self.hurried():
                raise ActionError(f"{what}: left to the supervisor, which goes on draining")
            if time.monotonic() >= deadline:
                raise ActionError(f"{what}: not reached within {patience:g} s: 'cfscale status' says how far it came")
            time.sleep(_POLL_SECONDS)

    def _detach(self, counts: dict[str, int]) -> None:
        """Leave a supervisor in the background; it holds our pipe until it answers on its socket."""
        self._layout.create()
        order = Order(plan=self._plan, counts=counts, base_dir=str(self._base_dir))
        write_private(self._layout.order, encode(order).decode())
        command = [sys.executable, "-m", "cfscale.adapters.process", str(self._layout.state)]
        patience = _START_SECONDS + patience_of(self._plan)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=patience)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"the supervisor did not start within {patience:g} s: see {self._layout.logs}"
            ) from error
        if done.stdout or done.returncode:
            raise _reported(done.stdout, done.stderr)


def _await_exit(process: Stat) -> None:
    """Give a supervisor that has let go of everything the moment it takes to exit."""
    deadline = time.monotonic() + _EXIT_SECONDS
    while (stat := read_stat(process.pid)) is not None and stat.identity == process.identity and stat.state != "Z":
        if process.pid == os.getpid() or time.monotonic() >= deadline:
            return
        time.sleep(_POLL_SECONDS)


def _present(replicas: Sequence[Replica], service: str) -> int:
    return sum(1 for item in replicas if item.service == service)


def _started(replicas: Sequence[Replica], service: str) -> int:
    """How many replicas of a service were started at least once, however they fare."""
    return sum(1 for item in replicas if item.service == service and (item.pid is not None or item.restarts > 0))


def _reported(said: bytes, complaint: bytes) -> CfscaleError:
    """The error that a background supervisor ended with."""
    try:
        kind, text = json.loads(said)
        return {"LockedError": errors.LockedError, "InputError": errors.InputError}.get(kind, UnavailableError)(text)
    except ValueError:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        return UnavailableError(f"the supervisor did not start: {last or 'it said nothing'}")
