"""The Docker Engine API of a Swarm manager, as far as cfscale reads and acts through it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from cfscale.adapters.docker_engine import DockerEngine
from cfscale.adapters.docker_engine.connection import GoneError, answering
from cfscale.adapters.docker_engine.containers import Listed
from cfscale.adapters.docker_engine.tasks import (
    STACK,
    TASK,
    ListedService,
    ListedTask,
    Local,
    stack_services,
    task_replicas,
)
from cfscale.core.samples import Replica
from cfscale.core.stack import StackService
from cfscale.errors import ActionError, UnavailableError

# the bridge on which a node reaches its own tasks: overlay networks are none of the node's
_BRIDGE = "docker_gwbridge"


class Cluster(msgspec.Struct, rename="pascal"):
    """The swarm that a manager belongs to."""

    id: str = msgspec.field(default="", name="ID")


class Membership(msgspec.Struct, rename="pascal"):
    """A node's part in a swarm."""

    local_node_state: str = "inactive"
    control_available: bool = False
    cluster: Cluster | None = None


class NodeState(msgspec.Struct, rename="pascal"):
    """Whether a node answers."""

    state: str = ""


class NodeSpec(msgspec.Struct, rename="pascal"):
    """What an operator says of a node."""

    availability: str = "active"
    labels: dict[str, str] = {}


class Node(msgspec.Struct, rename="pascal"):
    """A node as the manager lists it."""

    id: str = msgspec.field(name="ID")
    spec: NodeSpec
    status: NodeState

    @property
    def usable(self) -> bool:
        """Whether tasks may be placed on it."""
        return self.spec.availability == "active" and self.status.state == "ready"


class DockerSwarm(DockerEngine):
    """The engine as a manager of a swarm."""

    def cluster(self) -> str:
        """The swarm's own id, always asked for anew. Raises UnavailableError where this engine is no manager."""
        client = self._client()
        with answering():
            member = msgspec.convert(client.info().get("Swarm") or {}, type=Membership)
        if not member.control_available or member.cluster is None:
            state = "a worker" if member.local_node_state == "active" else f"in no swarm ({member.local_node_state})"
            raise UnavailableError(
                f"the Docker engine is {state}: run 'docker swarm init', or point DOCKER_HOST at a manager"
            )
        return member.cluster.id

    def services(self, stack: str) -> dict[str, StackService]:
        """The services of a stack by their names within it, with their tasks."""
        client, label = self._client(), {"label": f"{STACK}={stack}"}
        with answering():
            found: object = client.services(filters=label)  # type: ignore[no-untyped-call]
            listed = msgspec.convert(found, type=list[ListedService])
            found = client.tasks(filters=label)  # type: ignore[no-untyped-call]
            tasks = msgspec.convert(found, type=list[ListedTask])
        return stack_services(stack, listed, tasks)

    def tasks(self, stack: str, ports: Mapping[str, int]) -> tuple[Replica, ...]:
        """The tasks of the services that ``ports`` names; those of this node with an address, a port of the bridge."""
        services, containers = self.services(stack), self._containers(stack)
        return tuple(
            replica
            for name, service in services.items()
            if name in ports
            for replica in task_replicas(stack, service, containers, ports[name])
        )

    def nodes(self) -> dict[str, frozenset[str]]:
        """The nodes on which tasks may be placed, with the names of their labels."""
        client = self._client()
        with answering():
            found = msgspec.convert(client.nodes(), type=list[Node])
        return {node.id: frozenset(node.spec.labels) for node in found if node.usable}

    def label(self, node: str, label: str, value: str | None) -> None:
        """Put a label on a node, or take it off (None)."""
        client = self._client()
        with answering(ActionError):
            found = client.inspect_node(node)
            labels = {name: text for name, text in (found["Spec"].get("Labels") or {}).items() if name != label}
            added = {} if value is None else {label: value}
            spec: Any = {**found["Spec"], "Labels": {**labels, **added}}
            client.update_node(node, found["Version"]["Index"], spec)

    def left(self, stack: str, *, volumes: bool) -> tuple[str, ...]:
        """What there still is of a stack, as far as this node can see it, in words."""
        return tuple(f"{kind} {name}" for kind, name, _ in self._objects(stack, volumes=volumes))

    def remove_volumes(self, stack: str) -> None:
        """Remove the stack's volumes on this node, once nothing uses them any more."""
        client = self._client()
        with suppress(GoneError), answering(ActionError):
            for kind, name, _ in self._objects(stack, volumes=True):
                if kind == "volume":
                    client.remove_volume(name)

    def drop_unused(self, stack: str) -> None:
        """Remove configs and secrets of the stack that no service uses any more; the manager refuses the others."""
        client = self._client()
        removers = {"config": client.remove_config, "secret": client.remove_secret}
        for kind, _, identity in self._objects(stack, volumes=False):
            if kind in removers:
                with suppress(GoneError, ActionError), answering(ActionError):
                    removers[kind](identity)

    def _objects(self, stack: str, *, volumes: bool) -> Iterator[tuple[str, str, str]]:
        """Kind, name and id of everything of a stack."""
        client, label = self._client(), {"label": f"{STACK}={stack}"}
        with answering():
            found = []
            for kind, listing in (("service", client.services), ("config", client.configs), ("secret", client.secrets)):
                found += [(kind, one["Spec"]["Name"], one["ID"]) for one in listing(filters=label)]
            found += [("network", one["Name"], one["Id"]) for one in client.networks(filters=label)]
            containers = client.containers(all=True, filters=label)
            found += [("container", one["Names"][0].lstrip("/"), one["Id"]) for one in containers]
            if volumes:
                held = client.volumes(filters=label)["Volumes"] or ()
                found += [("volume", one["Name"], one["Name"]) for one in held]
        return iter(found)

    def _containers(self, stack: str) -> dict[str, Local]:
        """The stack's containers on this node."""
        client = self._client()
        with answering():
            raw = client.containers(all=True, filters={"label": [f"{STACK}={stack}", TASK]})
            listed = msgspec.convert(raw, type=list[Listed])
        details, addresses = self._register.details(listed), self._addresses() if listed else {}
        return {one.id: Local(one, details[one.id], addresses.get(one.id)) for one in listed if one.id in details}

    def _addresses(self) -> dict[str, str]:
        """Addresses by container on the node's own bridge; a container of internal networks alone has none."""
        client = self._client()
        try:
            with answering():
                attached = client.inspect_network(_BRIDGE).get("Containers") or {}
        except GoneError:
            return {}
        return {container: str(one["IPv4Address"]).partition("/")[0] for container, one in attached.items()}
