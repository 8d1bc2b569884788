"""What is asked of the API server, through lightkube: pods, their usage, who scales what, the scale subresource."""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.errors import ActionError, UnavailableError

_TIMEOUT_SECONDS = 10.0
_COST = "controller.kubernetes.io/pod-deletion-cost"
_NOT_FOUND, _FORBIDDEN = 404, 403
_BUSY = (429, 503)
_POLL_SECONDS = 0.2
_INSTANCE, _COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"
_SMALL = {"n": 1e-9, "u": 1e-6}
T = TypeVar("T")


class Cluster:
    """The cluster of the current context, in its namespace; raises UnavailableError where there is none."""

    def __init__(self) -> None:
        try:
            import lightkube
            from httpx2 import Timeout
            from yaml import YAMLError
        except ImportError as exc:
            raise UnavailableError(
                "engine kubernetes needs a client library: pip install 'cfscale[kubernetes]'"
            ) from exc
        try:
            config = lightkube.KubeConfig.from_env().get()
        except lightkube.ConfigError as exc:
            raise UnavailableError(f"no cluster: {exc}; set KUBECONFIG, or choose a context with kubectl") from exc
        except (YAMLError, LookupError, TypeError, AttributeError, ValueError) as exc:
            raise UnavailableError("no cluster: the kubeconfig cannot be read; look at it with kubectl") from exc
        if config is None:
            raise UnavailableError("no cluster: the kubeconfig has no current context; choose one with kubectl")
        # its overloads tell kinds apart that are chosen here at run time
        self._client: Any = lightkube.Client(config, timeout=Timeout(_TIMEOUT_SECONDS), trust_env=False)
        weakref.finalize(self, self._client.close)  # connections end with whoever asked
        self.namespace: str = self._client.namespace

    def identity(self) -> str:
        """The cluster's own id: that of the namespace which no cluster is without."""
        from lightkube.resources.core_v1 import Namespace

        found = self._ask(lambda: self._client.get(Namespace, "kube-system"))
        return str(found.metadata.uid)

    def pods(self, release: str, ports: Mapping[str, int]) -> tuple[Replica, ...]:
        """The pods of the services in ``ports``, in the order of their names."""
        from lightkube.resources.core_v1 import Pod

        found = self._ask(lambda: list(self._client.list(Pod, labels={_INSTANCE: release})))
        replicas = [_replica(pod, ports) for pod in found if _component(pod) in ports]
        return tuple(sorted(replicas, key=lambda one: one.name))

    def usage(self, release: str) -> tuple[Usage, ...]:
        """What the pods use, by the metrics API; raises UnavailableError where the cluster has none."""
        from lightkube.generic_resource import create_namespaced_resource
        from lightkube.resources.core_v1 import Pod

        metrics = create_namespaced_resource("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")
        measured = self._maybe(lambda: list(self._client.list(metrics, labels={_INSTANCE: release})))
        if measured is None:
            raise UnavailableError("the cluster has no metrics API: install metrics-server")
        pods = {
            pod.metadata.name: pod
            for pod in self._ask(lambda: list(self._client.list(Pod, labels={_INSTANCE: release})))
        }
        return tuple(_usage(item, pods[name]) for item in measured if (name := item["metadata"]["name"]) in pods)

    def owner(self, release: str, service: str) -> str | None:
        """The autoscaler whose target the service's workload is."""
        kind, name = self._workload(release, service)
        for what, targets in self._targets():
            if (kind, name) in targets:
                return f"the cluster's {what}"
        return None

    def _targets(self) -> Iterator[tuple[str, set[tuple[str, str]]]]:
        """ScaledObjects before the HPAs that they make, so that the one that is in charge is named."""
        from lightkube.generic_resource import create_namespaced_resource
        from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler

        keda = create_namespaced_resource("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
        for item in self._maybe(lambda: list(self._client.list(keda))) or ():
            named = item["spec"]["scaleTargetRef"]
            yield f"ScaledObject {item['metadata']['name']}", {(named.get("kind", "Deployment"), named["name"])}
        for hpa in self._ask(lambda: list(self._client.list(HorizontalPodAutoscaler))):
            target = hpa.spec.scaleTargetRef
            yield f"HorizontalPodAutoscaler {hpa.metadata.name}", {(target.kind, target.name)}

    def _workload(self, release: str, service: str) -> tuple[str, str]:
        from lightkube.resources.apps_v1 import Deployment, StatefulSet

        labels = {_INSTANCE: release, _COMPONENT: service}
        for kind in (Deployment, StatefulSet):
            for item in self._ask(partial(self._listed, kind, labels)):
                return kind.__name__, str(item.metadata.name)
        raise UnavailableError(f"nothing of {service} is in namespace {self.namespace}: start it with 'cfscale up'")

    def _listed(self, kind: type, labels: Mapping[str, str]) -> list[Any]:
        return list(self._client.list(kind, labels=labels))

    def scale(self, release: str, service: str, count: int) -> None:
        """Set the count by the scale subresource."""
        from lightkube.resources.apps_v1 import Deployment, StatefulSet

        kind, name = self._workload(release, service)
        scale = {"Deployment": Deployment.Scale, "StatefulSet": StatefulSet.Scale}[kind]
        self._ask(lambda: self._client.patch(scale, name, {"spec": {"replicas": count}}))

    def mark(self, pods: Sequence[str], cost: int) -> None:
        """Say how dear these pods are; one that has gone meanwhile needs no mark."""
        from lightkube.resources.core_v1 import Pod

        patch = {"metadata": {"annotations": {_COST: str(cost)}}}
        for name in pods:
            self._maybe(partial(self._client.patch, Pod, name, patch))

    def remove_claims(self, release: str) -> None:
        """Remove the volumes of a release."""
        from lightkube.resources.core_v1 import PersistentVolumeClaim

        claims = self._ask(lambda: list(self._client.list(PersistentVolumeClaim, labels={_INSTANCE: release})))
        for claim in claims:
            self._maybe(partial(self._client.delete, PersistentVolumeClaim, claim.metadata.name))

    def _maybe(self, call: Callable[[], T]) -> T | None:
        """The answer, None where there is no such thing."""
        from lightkube import ApiError

        try:
            return self._ask(call)
        except ActionError as error:
            if isinstance(error.__cause__, ApiError) and error.__cause__.status.code == _NOT_FOUND:
                return None
            raise

    def _ask(self, call: Callable[[], T]) -> T:
        """The answer; a server that is busy, or has just been told of a new kind, is asked again for a while."""
        import httpx2
        from lightkube import ApiError

        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                return call()
            except ApiError as exc:
                if exc.status.code not in _BUSY:
                    raise _refusal(exc) from exc
                if time.monotonic() > deadline:
                    raise UnavailableError(f"the cluster is busy: {exc.status.message}") from exc
            except httpx2.HTTPError as exc:
                raise UnavailableError(f"the cluster does not answer: {exc}") from exc
            time.sleep(_POLL_SECONDS)


def _refusal(error: Any) -> ActionError | UnavailableError:
    if error.status.code == _FORBIDDEN:
        return UnavailableError(f"the cluster forbids it: {error.status.message}")
    return ActionError(f"the cluster refused: {error.status.message}")


def _component(pod: Any) -> str:
    return str((pod.metadata.labels or {}).get(_COMPONENT, ""))


def _replica(pod: Any, ports: Mapping[str, int]) -> Replica:
    service, status = _component(pod), pod.status
    state, reason = _state(pod)
    started = pod.metadata.creationTimestamp
    return Replica(
        id=pod.metadata.name,
        name=pod.metadata.name,
        service=service,
        state=state,
        started_at=started.timestamp() if started else 0.0,
        address=f"{status.podIP}:{ports[service]}" if status and status.podIP else None,
        restarts=sum(one.restartCount for one in (status.containerStatuses or ())) if status else 0,
        reason=reason,
    )


def _state(pod: Any) -> tuple[ReplicaState, str]:
    """The state of a pod, and why it is not ready."""
    status = pod.status
    if pod.metadata.deletionTimestamp is not None:
        return ReplicaState.DRAINING, ""
    if status is None or status.phase in ("Succeeded", "Failed"):
        return ReplicaState.STOPPED, getattr(status, "reason", None) or ""
    conditions = {one.type: one for one in status.conditions or ()}
    ready = conditions.get("Ready")
    if ready is not None and ready.status == "True":
        return ReplicaState.READY, ""
    containers = status.containerStatuses or ()
    waiting = [one.state.waiting.reason for one in containers if one.state and one.state.waiting]
    placed = conditions.get("PodScheduled")
    unplaced = placed.message if placed is not None and placed.status == "False" else None
    reason = next((word for word in (*waiting, unplaced) if word), "")
    starting = status.phase == "Pending" or not all(one.started for one in containers)
    return (ReplicaState.STARTING if starting else ReplicaState.UNHEALTHY), reason


def _usage(item: Mapping[str, Any], pod: Any) -> Usage:
    """One line of the metrics API, with what the pod may take."""
    used = [container["usage"] for container in item["containers"]]
    return Usage(
        replica=item["metadata"]["name"],
        source="metrics.k8s.io",
        taken_at=datetime.fromisoformat(item["timestamp"]).timestamp(),
        window_seconds=_seconds(item["window"]),
        quality=Quality.OK,
        cpu_cores=sum(_amount(one["cpu"]) for one in used),
        memory_bytes=int(sum(_amount(one["memory"]) for one in used)),
        cpu_limit_cores=_allowed(pod, "cpu"),
        memory_limit_bytes=None if (memory := _allowed(pod, "memory")) is None else int(memory),
    )


def _allowed(pod: Any, resource: str) -> float | None:
    """The limit of a pod's containers, or where there is none what they have reserved."""
    amounts = []
    for container in pod.spec.containers:
        resources = container.resources
        limit = (resources.limits or {}).get(resource) if resources else None
        request = (resources.requests or {}).get(resource) if resources else None
        amount = limit or request
        if amount is None:
            return None
        amounts.append(_amount(amount))
    return sum(amounts)


def _amount(text: str) -> float:
    """A quantity as the API writes it: ``250m``, ``1Gi``, ``12345678n``."""
    from lightkube.utils.quantity import parse_quantity

    # metrics-server writes CPU in billionths, which lightkube does not know
    if (unit := _SMALL.get(text[-1:])) is not None:
        return float(text[:-1]) * unit
    return float(parse_quantity(text) or 0)


def _seconds(text: str) -> float:
    """``15.2s`` or ``1m0s`` in seconds."""
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest.removesuffix("s") or 0)
