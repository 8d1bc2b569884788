"""Which engine runs a deployment, and how its parts are joined: the only place that wires adapters together."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from cfscale.adapters.state import State, state_folder
from cfscale.cli import console
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState
from cfscale.core.swarm import EVERYWHERE
from cfscale.errors import InputError, RefusedError, UnavailableError
from cfscale.runtime.ports import Balancer, Engine

if TYPE_CHECKING:
    from cfscale.adapters.docker_engine import DockerEngine

ENGINES = ("process", "compose", "swarm", "kubernetes", "host")
# what these run is rendered first, for the target beside them
RENDERED = {"compose": "compose", "swarm": "swarm", "kubernetes": "helm"}
_ALIVE = (ReplicaState.READY, ReplicaState.STARTING)


class Deployment(Struct, frozen=True):
    """A plan, where its state is, and what runs it. ``balancer`` is None where the engine drains by itself.

    ``nodes`` tells how many machines there are where each takes one replica's port; None where one machine takes all.
    ``owner`` names what scales a service already, where something else than cfscale does. ``idle`` gives the backends, of
    the services it is asked about, for which a balancer that can be asked has no healthy server.
    """

    plan: DeploymentPlan
    state: State
    engine: Engine
    balancer: Balancer | None
    manifests: Path
    notes: Callable[[], tuple[str, ...]]
    nodes: Callable[[], int] | None = None
    owner: Callable[[str], str | None] = lambda _: None
    idle: Callable[[Sequence[str]], tuple[str, ...]] = lambda _: ()

    @property
    def rendered(self) -> bool:
        """Whether the engine runs manifests, and so every service of the plan."""
        return self.engine.name in RENDERED

    def require_own(self) -> None:
        """Raise RefusedError where another engine was recorded: its replicas would be left behind, or run twice."""
        recorded = self.state.engine()
        if recorded not in (None, self.engine.name):
            raise RefusedError(
                f"{self.plan.name} runs on engine {recorded}: stop it with 'cfscale down --engine {recorded}' before you use {self.engine.name}"
            )

    def require_replicas(self) -> None:
        """Raise InputError for the host engine: it assumes the planned replicas and knows of none."""
        if self.engine.name == "host":
            raise InputError(
                "--engine host only recommends (scale): it runs no replicas; choose process, compose or swarm"
            )

    def require_unowned(self, services: Iterable[Service]) -> None:
        """Raise RefusedError where something of the engine's own scales one of these: two hands on one count fight."""
        for service in services:
            if owner := self.owner(service.name):
                raise RefusedError(
                    f"{service.name} is scaled by {owner}: leave it to that, or install with autoscaling.engine=none"
                )

    def hurry(self, asked: Callable[[], bool]) -> None:
        """Let the engine know whether this process was asked to stop, where it can make use of that."""
        if hasattr(self.engine, "hurried"):
            self.engine.hurried = asked

    def prepare(self, *, force: bool) -> None:
        """Render what the engine needs before it starts; raises RefusedError for files edited by hand."""
        if self.rendered:
            from cfscale.cli.render import write_manifests

            write_manifests(self.plan, RENDERED[self.engine.name], self.manifests, force=force)

    def fitting(self, counts: dict[str, int]) -> dict[str, int]:
        """The counts that there are machines for; what is left out is said."""
        if self.nodes is None:
            return counts
        from cfscale.core.swarm import fitting

        found = fitting(self.plan, counts, self.nodes())
        for name, count in found.items():
            if count < counts[name]:
                console.warn(f"{name}: {count} of {counts[name]} replicas: each takes the port of a node of its own")
        return found

    @property
    def queue_password(self) -> Path:
        """The file with the queue's password; there is none before the first ``up``."""
        return self.manifests / "secrets" / "queue_password" if self.rendered else self.state.folder / "queue_password"

    def endpoint(self, replicas: Iterable[Replica]) -> str | None:
        """Where requests are taken, ``host:port`` of the first published port, if a replica behind it is running."""
        if self.engine.name == "kubernetes":
            return None  # what is published on a host means nothing in a cluster
        running = {item.service for item in replicas if item.state in _ALIVE}
        for service in self.plan.services:
            if service.publish is not None and service.name in running:
                return service.publish.split("-")[0].replace(EVERYWHERE, "127.0.0.1")
        return None


def state_of(plan: DeploymentPlan) -> State:
    """The state folder of a deployment; nothing is created."""
    return State(state_folder(plan.name, os.environ))


def manifests_of(state: State, engine: str = "compose") -> Path:
    """Where ``up`` renders the manifests of a deployment."""
    return state.folder / engine


def open_deployment(plan: DeploymentPlan, wanted: str, profile: str | None, out: Path | None = None) -> Deployment:
    """Join a plan to the engine that is asked for, recorded, or found; raises UnavailableError where there is none."""
    state = state_of(plan)
    if state.folder.exists() and not state.folder.is_dir():
        raise InputError(f"{state.folder}: not a directory, so no state can be kept there: set CFSCALE_STATE_DIR")
    name = _choose(plan, wanted, state)
    if name == "host":
        from cfscale.adapters.host import HostEngine

        return Deployment(plan, state, HostEngine(plan), None, state.folder, lambda: ())
    if name == "process":
        from cfscale.adapters.process import ProcessEngine

        process = ProcessEngine(plan, state.folder, _base(profile))
        return Deployment(plan, state, process, None, state.folder, lambda: process.notes)
    join = {"swarm": _swarm, "kubernetes": _kubernetes}.get(name, _compose)
    return join(plan, state, out or manifests_of(state, name))


def _choose(plan: DeploymentPlan, wanted: str, state: State) -> str:
    if wanted != "auto":
        if wanted not in ENGINES:
            raise InputError(f"--engine '{wanted}': choose auto, {', '.join(ENGINES)}")
        return wanted
    if recorded := state.engine():
        if recorded not in ENGINES:
            raise UnavailableError(
                f"{state.folder}: engine '{recorded}' is not one of this version ({', '.join(ENGINES)}): give --engine"
            )
        return recorded
    if docker_answers():
        return "compose"
    if plan.environment == "production":
        raise UnavailableError(
            "no Docker engine answers and production does not fall back to local processes: start Docker, or give --engine process"
        )
    console.note("no Docker engine answers: using local processes (--engine process)")
    return "process"


def docker_answers() -> bool:
    """Whether a Docker engine answers at all."""
    from cfscale.adapters.docker_engine import DockerEngine

    docker = DockerEngine()
    try:
        docker.identity()
    except UnavailableError:
        return False
    finally:
        docker.close()
    return True


def _base(profile: str | None) -> Path:
    """Where local processes work: the profile's directory."""
    return Path(profile).resolve().parent if profile else Path.cwd()


def _compose(plan: DeploymentPlan, state: State, manifests: Path) -> Deployment:
    """Compose acts; usage comes from cgroup files and, for what they do not tell, from the Engine API."""
    from cfscale.adapters.cgroup import CgroupReader
    from cfscale.adapters.compose import ComposeEngine
    from cfscale.adapters.docker_engine import DockerEngine, Statistics, StatsReader
    from cfscale.adapters.haproxy import HaproxyBalancer

    docker = DockerEngine()
    statistics = Statistics(docker.measure, docker.follow)
    readers = (CgroupReader().read, StatsReader(statistics.measure, keep=statistics.keep).read)
    engine = ComposeEngine(plan, manifests, docker, readers=readers, progress=console.note)
    balancer = HaproxyBalancer(lambda: _balancers(docker, engine))
    return Deployment(plan, state, engine, balancer, manifests, lambda: (), idle=partial(_idle, docker, engine))


def _swarm(plan: DeploymentPlan, state: State, manifests: Path) -> Deployment:
    """Docker Swarm acts, and drains by itself: it takes no names of victims, so that no balancer is told of them.

    Only balancers on this very node can be asked whom they have found.
    """
    from cfscale.adapters.cgroup import CgroupReader
    from cfscale.adapters.docker_engine import Statistics, StatsReader
    from cfscale.adapters.docker_engine.swarm import DockerSwarm
    from cfscale.adapters.swarm import SwarmEngine
    from cfscale.core.swarm import carried

    plan, manager = carried(plan), DockerSwarm()
    statistics = Statistics(manager.measure, manager.follow)
    readers = (CgroupReader().read, StatsReader(statistics.measure, keep=statistics.keep).read)
    engine = SwarmEngine(plan, manifests, manager, readers=readers, progress=console.note)
    idle = partial(_idle, manager, engine)
    return Deployment(plan, state, engine, None, manifests, lambda: (), lambda: engine.nodes, idle=idle)


def _kubernetes(plan: DeploymentPlan, state: State, manifests: Path) -> Deployment:
    """Helm and the API server act; pods drain by themselves when they are told to end."""
    from cfscale.adapters.kubernetes import Cluster, KubernetesEngine

    engine = KubernetesEngine(plan, manifests, Cluster(), options=_helm_options(), progress=console.note)
    return Deployment(plan, state, engine, None, manifests, lambda: (), owner=engine.owner)


def _helm_options() -> tuple[str, ...]:
    """A values file of the operator's own, laid over the plan by every ``up``."""
    path = os.environ.get("CFSCALE_HELM_VALUES")
    return (f"--values={Path(path).resolve()}",) if path else ()


def _balancers(docker: "DockerEngine", engine: Engine) -> list[Callable[[str], str]]:
    """How to ask each balancer in a container of this machine that runs."""
    running = (ReplicaState.READY, ReplicaState.STARTING, ReplicaState.UNHEALTHY)
    found = [item for item in engine.replicas() if item.service == "loadbalancer" and item.state in running]
    return [partial(_runtime, docker, item.id) for item in found if item.pid is not None]


def _idle(docker: "DockerEngine", engine: Engine, services: Sequence[str]) -> tuple[str, ...]:
    """What ``Deployment.idle`` gives: of the balancers on this machine, none where there are none."""
    from cfscale.adapters.haproxy import HaproxyBalancer

    here = _balancers(docker, engine)
    return HaproxyBalancer(lambda: here).idle(services) if here else ()


def _runtime(docker: "DockerEngine", container: str, command: str) -> str:
    """One command of HAProxy's runtime API, asked on the loopback of its own container: no network can reach it."""
    from cfscale.adapters.haproxy import runtime_api_argv

    return docker.execute(container, runtime_api_argv(command))
