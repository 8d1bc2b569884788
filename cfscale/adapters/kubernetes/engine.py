"""The engine: helm for what is installed, the cluster for what runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cfscale.adapters.command import gist, run
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.errors import ActionError

CHART = "Chart.yaml"
_UP_SECONDS = 1800
_DOWN_SECONDS = 600
_SCALE_SECONDS = 300.0
_POLL_SECONDS = 0.2
_GONE = (ReplicaState.STOPPED, ReplicaState.DRAINING)


class Api(Protocol):
    """What is asked of the API server."""

    namespace: str

    def identity(self) -> str:
        """The cluster's own id; raises UnavailableError soon where it does not answer."""
        ...

    def pods(self, release: str, ports: Mapping[str, int]) -> tuple[Replica, ...]:
        """The pods of the services in ``ports``."""
        ...

    def usage(self, release: str) -> tuple[Usage, ...]:
        """What the pods use, by the metrics API."""
        ...

    def owner(self, release: str, service: str) -> str | None:
        """What in the cluster scales a service, in words."""
        ...

    def scale(self, release: str, service: str, count: int) -> None:
        """Set the count by the scale subresource."""
        ...

    def mark(self, pods: Sequence[str], cost: int) -> None:
        """Say how dear these pods are: the cheapest go first."""
        ...

    def remove_claims(self, release: str) -> None:
        """Remove the volumes."""
        ...


class KubernetesEngine:
    """Runs a plan as the Helm release of its name, from the chart in ``folder``, in the namespace of the context."""

    def __init__(
        self,
        plan: DeploymentPlan,
        folder: Path,
        api: Api,
        *,
        options: Sequence[str] = (),
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._api = api
        self._options = tuple(options)
        self._progress = progress
        self._target = ""

    @property
    def name(self) -> str:
        """The engine's word on the command line."""
        return "kubernetes"

    @property
    def target(self) -> str:
        """The cluster's own id, namespace and release: what a lock must be keyed on."""
        place = f"{self._api.namespace}/{self._plan.name}"
        self._target = self._target or f"kubernetes:{self._api.identity()}:{place}"
        return self._target

    def up(self, counts: Mapping[str, int]) -> None:
        """Install or upgrade and wait until all is ready. Counts that an autoscaler owns stay as they are."""
        chart = self._folder / CHART
        if not chart.exists():
            raise ActionError(f"{chart} is missing: run 'cfscale up' to render it")
        counted = [
            f"--set=services.{service.name}.replicas={counts[service.name]}"
            for service in self._plan.services
            if service.scaled and service.name in counts
        ]
        options = ("--install", "--wait", f"--timeout={_UP_SECONDS}s", *self._options, *counted)
        self._helm("upgrade", *options, self._plan.name, str(self._folder), seconds=_UP_SECONDS)

    def down(self, *, volumes: bool) -> None:
        """Uninstall the release and return when its pods are gone; its volumes are kept unless ``volumes``."""
        self._helm("uninstall", "--ignore-not-found", "--wait", f"--timeout={_DOWN_SECONDS}s", self._plan.name)
        grace = max(service.stop_grace_seconds for service in self._plan.services)
        deadline = time.monotonic() + _DOWN_SECONDS + grace
        while left := self.replicas():  # the release is gone at once, its pods within their grace periods
            if time.monotonic() > deadline:
                raise ActionError(f"helm uninstall left {len(left)} pods: see 'kubectl describe pods'")
            time.sleep(_POLL_SECONDS)
        if volumes:
            self._api.remove_claims(self._plan.name)

    def replicas(self) -> tuple[Replica, ...]:
        """Every pod of the plan's services."""
        return self._api.pods(self._plan.name, {service.name: service.port for service in self._plan.services})

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """What the metrics API says of these pods; one that it does not know is left out."""
        known = {replica.id for replica in replicas}
        return tuple(usage for usage in self._api.usage(self._plan.name) if usage.replica in known)

    def owner(self, service: str) -> str | None:
        """What in the cluster scales a service already, in words."""
        return self._api.owner(self._plan.name, service)

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count`` pods and return when there are as many."""
        self._require_free(service)
        self._api.scale(self._plan.name, service.name, count)
        self._await(service, lambda alive: len(alive) == count, count)

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Leave ``count`` pods: the victims are made the cheapest, so that the cluster takes exactly these."""
        self._require_free(service)
        names = [victim.id for victim in victims]
        self._api.mark(names, -len(names))
        self._api.scale(self._plan.name, service.name, count)
        self._await(service, lambda alive: len(alive) == count, count)
        left = sorted(set(names) & {replica.id for replica in self._alive(service)})
        if left:
            raise ActionError(f"{service.name}: {', '.join(left)} did not go, others went")

    def _require_free(self, service: Service) -> None:
        if owner := self.owner(service.name):
            raise ActionError(
                f"{service.name} is scaled by {owner}: leave it to that, or install with autoscaling.engine=none"
            )

    def _alive(self, service: Service) -> list[Replica]:
        return [one for one in self.replicas() if one.service == service.name and one.state not in _GONE]

    def _await(self, service: Service, done: Callable[[list[Replica]], bool], count: int) -> None:
        deadline = time.monotonic() + _SCALE_SECONDS
        while not done(alive := self._alive(service)):
            if time.monotonic() > deadline:
                raise ActionError(f"{service.name}: {len(alive)} of {count} replicas: see 'kubectl describe pods'")
            time.sleep(_POLL_SECONDS)

    def _helm(self, verb: str, *options: str, seconds: float = _DOWN_SECONDS) -> None:
        """Run one command; raises UnavailableError without helm or cluster, else ActionError."""
        self._api.identity()  # a cluster that hangs would hang the command too
        folder = self._folder if self._folder.is_dir() else Path("/")
        argv = ("helm", verb, f"--namespace={self._api.namespace}", *options)
        code, said = run(argv, folder, seconds + _SCALE_SECONDS, self._progress)
        if code < 0:
            raise ActionError(f"helm {verb} did not end within {seconds:.0f} s and was stopped")
        if code > 0:
            self._api.identity()
            raise ActionError(f"helm {verb} failed: {gist(said)}")
