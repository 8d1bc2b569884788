"""The engine ``compose``: the real ``docker compose`` command acts, the Engine API is asked what came of it.

    up, grow, down ─▶ docker compose (an argument vector, no shell) ─▶ list ─▶ as many as wanted? else ActionError
    shrink         ─▶ stop and remove exactly the victims           ─▶ list ─▶ the same question

Nothing needs to record a count: the engine's list is the record, and ``up`` is given what it says.
"""

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from cfscale.adapters.command import gist, run
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.errors import ActionError, UnavailableError

MANIFEST = "compose.yaml"
# the network on which the balancer meets those behind it: its slots hold addresses of this one
_SHARED_NETWORK = "app"
_UP_SECONDS = 1800.0  # images may have to be built or pulled
_GROW_SECONDS = 300.0
_DOWN_SECONDS = 120.0
_DOWN_PAUSES = (0.5, 1.0, 2.0, 4.0)
_STOPS_AT_ONCE = 16
_FAILED_PULL = re.compile(r"([a-z0-9][a-z0-9_.-]*) Error ")


class Docker(Protocol):
    """What is asked of the Engine API."""

    def identity(self) -> str:
        """The engine's own id; raises UnavailableError soon where it does not answer."""
        ...

    def replicas(self, project: str, ports: Mapping[str, int], networks: Sequence[str]) -> tuple[Replica, ...]:
        """The project's containers of the services in ``ports``."""
        ...

    def disk_ratio(self) -> float | None:
        """How full the disk of the engine's data is; None where that cannot be seen."""
        ...

    def leftovers(self, project: str, *, volumes: bool) -> tuple[str, ...]:
        """What there still is of a project, in words."""
        ...

    def drop_ghosts(self, project: str) -> None:
        """Detach from the project's networks what is no longer there."""
        ...

    def stop(self, container: str, grace_seconds: float) -> None:
        """Ask it to end, then end it."""
        ...

    def remove(self, container: str) -> None:
        """Remove it, stopped as it is."""
        ...


Reader = Callable[[Sequence[Replica]], tuple[Usage, ...]]


class ComposeEngine:
    """Runs a plan as the Compose project of its name, from the manifest in ``folder``.

    ``readers`` measure usage: what the first leaves out the next is asked for. ``progress`` is given each line that
    Compose prints.
    """

    def __init__(
        self,
        plan: DeploymentPlan,
        folder: Path,
        docker: Docker,
        *,
        readers: Sequence[Reader] = (),
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._docker = docker
        self._readers = tuple(readers)
        self._progress = progress
        self._target = ""

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return "compose"

    @property
    def target(self) -> str:
        """The engine's own id and the project: what a lock must be keyed on."""
        self._target = self._target or f"docker:{self._docker.identity()}:{self._plan.name}"
        return self._target

    def up(self, counts: Mapping[str, int]) -> None:
        """Start every service, the scaled ones with these counts (the plan's where none is given).

        Raises ActionError before anything is started where a port is taken.
        """
        self._require_free_ports()
        wanted = {
            service.name: counts.get(service.name, service.replicas) if _moves(service) else service.replicas
            for service in self._plan.services
        }
        scale = [f"--scale={service.name}={wanted[service.name]}" for service in self._plan.services if _moves(service)]
        self._compose("up", "-d", "--remove-orphans", *scale, seconds=_UP_SECONDS)
        replicas = self.replicas()
        for name, count in wanted.items():
            _require(name, count, replicas)

    def _require_free_ports(self) -> None:
        """The engine finds a taken port half-way, with the rest started, and some versions never free its network again."""
        if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
            return  # the ports are another machine's
        live = self.replicas()
        idle = [one for one in self._plan.services if one.publish and not _alive(one.name, live)]
        taken = [f"{address} ({service.name})" for service in idle for address in _taken(service.publish or "")]
        if taken:
            what = f"taken by another program: {', '.join(taken)}"
            raise ActionError(f"{what}: stop it, or publish another in the profile; nothing was started")

    def down(self, *, volumes: bool) -> None:
        """Stop and remove all containers and networks of the project, each service within its own grace period.

        Engines sometimes take a network for used after its last container has gone: that is tried again for a while.
        """
        for pause in (*_DOWN_PAUSES, None):
            problem = self._down_once(volumes=volumes)
            left = self._docker.leftovers(self._plan.name, volumes=volumes)
            if problem is None and not left:
                return
            what = f"docker compose down left {', '.join(left)}: see what else uses it, then remove it by hand"
            if not left or not all(item.startswith("network ") for item in left):
                raise problem or ActionError(what)
            if pause is None:
                raise ActionError(f"{what}; where nothing does the engine has miscounted: restart it first")
            self._docker.drop_ghosts(self._plan.name)
            time.sleep(pause)

    def _down_once(self, *, volumes: bool) -> ActionError | None:
        """One attempt, and what Compose had to say against it."""
        options = ("--remove-orphans", *(["--volumes"] if volumes else ()))
        grace = sum(service.stop_grace_seconds for service in self._plan.services)
        try:
            self._compose("down", *options, seconds=_DOWN_SECONDS + grace)
        except ActionError as error:
            return error
        return None

    def replicas(self) -> tuple[Replica, ...]:
        """Every container of the plan's services; a member, a service of its own to Compose, is a replica of what it is of."""
        owner = self._plan.parts
        ports = {name: service.port for name, service in owner.items()}
        found = self._docker.replicas(self._plan.name, ports, (f"{self._plan.name}_{_SHARED_NETWORK}",))
        return tuple(replace(one, service=owner[one.service].name) if one.service in owner else one for one in found)

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """Usage since the previous call. One that is paused or has no process is left out: its zero is not idleness."""
        found: list[Usage] = []
        rest = [one for one in replicas if one.pid is not None and one.state is not ReplicaState.PAUSED]
        for read in self._readers:
            found += read(rest)
            known = {usage.replica for usage in found}
            rest = [one for one in rest if one.id not in known]
        disk = self._docker.disk_ratio() if found else None
        return tuple(replace(usage, disk_ratio=disk) for usage in found)

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count``; who runs already is not touched, no more than other services."""
        if len(_alive(service.name, self.replicas())) >= count:
            return
        options = ("-d", "--no-recreate", "--no-deps", f"--scale={service.name}={count}")
        self._compose("up", *options, service.name, seconds=_GROW_SECONDS)
        _require(service.name, count, self.replicas())

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Stop (SIGTERM, then SIGKILL after the grace period) and remove exactly these, all at once."""

        def end(victim: Replica) -> None:
            self._docker.stop(victim.id, service.stop_grace_seconds)
            self._docker.remove(victim.id)

        if victims:
            with ThreadPoolExecutor(min(len(victims), _STOPS_AT_ONCE)) as pool:
                tuple(pool.map(end, victims))
        replicas = self.replicas()
        left = sorted({victim.name for victim in victims} & {one.name for one in replicas})
        if left:
            raise ActionError(f"{service.name}: {', '.join(left)} did not go")
        _require(service.name, count, replicas)

    def _compose(self, verb: str, *options: str, seconds: float) -> None:
        """Run one command on the project. Raises UnavailableError without client, plugin or engine, else ActionError."""
        self._docker.identity()  # an engine that hangs would hang the command too
        manifest = self._folder / MANIFEST
        if verb == "down" and not manifest.exists():
            # Compose then goes by the labels of what there is; a manifest of somebody else must not be in its way
            project: tuple[str, ...] = ()
            folder = Path("/")
        elif manifest.exists():
            project, folder = ("--file", str(manifest), "--env-file", os.devnull), self._folder
        else:
            raise ActionError(f"{manifest} is missing: run 'cfscale up' to render it")
        if verb == "down":  # what an optional part started goes too
            project = ("--profile", "*", *project)
        argv = ("docker", "compose", "--ansi", "never", "--progress", "plain", "--project-name", self._plan.name)
        code, said = run((*argv, *project, verb, *options), folder, seconds, self._progress)
        if code < 0:
            raise ActionError(f"docker compose {verb} did not end within {seconds:.0f} s and was stopped")
        if code > 0:
            _require_plugin()
            self._docker.identity()
            raise ActionError(f"docker compose {verb} failed: {_who(said)}{gist(said)}")


def _moves(service: Service) -> bool:
    """Whether Compose is told its count: members are services of their own, one each."""
    return service.scaled and not service.members


def _who(said: Iterable[str]) -> str:
    """Which service Compose could get no image for: its last line does not always say."""
    found = (match[1] for line in said if (match := _FAILED_PULL.match(line)))
    return next((f"image of {name}: " for name in found), "")


def _taken(published: str) -> Iterator[str]:
    """Those of ``host:port`` or ``host:first-last`` that somebody on this machine listens at."""
    host, _, ports = published.rpartition(":")
    first, _, last = ports.partition("-")
    host = host.strip("[]")
    for port in range(int(first), int(last or first) + 1):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:  # what else is wrong the engine says better
                    yield f"{published.rpartition(':')[0]}:{port}"


def _alive(service: str, replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    return tuple(one for one in replicas if one.service == service and one.state is not ReplicaState.STOPPED)


def _require(service: str, count: int, replicas: Iterable[Replica]) -> None:
    alive = len(_alive(service, replicas))
    if alive != count:
        raise ActionError(f"{service}: {alive} of {count} replicas run: see 'docker compose logs {service}'")


def _require_plugin() -> None:
    code, _ = run(("docker", "compose", "version"), Path("/"), 10.0)
    if code != 0:
        raise UnavailableError("the Docker client has no compose plugin: install docker-compose-plugin (Compose v2)")
