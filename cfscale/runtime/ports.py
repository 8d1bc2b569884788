"""The Protocols through which the loops reach the outside. Adapters satisfy them; nothing here imports one."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from cfscale.core.plan import Health, Service
from cfscale.core.samples import Replica, Usage


class Engine(Protocol):
    """Something that runs replicas: ``process`` or ``compose``.

    Every method may raise UnavailableError (out of reach) or ActionError (did not take effect). Counts are
    absolute; asking twice for the same count changes nothing.
    """

    @property
    def name(self) -> str:
        """The engine's word on the command line, such as ``compose``."""
        ...

    @property
    def target(self) -> str:
        """What a lock must be keyed on: the engine's own id and the project's name."""
        ...

    def up(self, counts: Mapping[str, int]) -> None:
        """Start every service of the plan with these replica counts and return when they run; idempotent."""
        ...

    def down(self, *, volumes: bool) -> None:
        """Stop and remove everything of this deployment; named volumes are kept unless ``volumes``."""
        ...

    def replicas(self) -> tuple[Replica, ...]:
        """Every replica of the deployment, of all services, stopped ones included."""
        ...

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        """The usage of these replicas since the previous call; a replica that is gone is left out, never zero."""
        ...

    def grow(self, service: Service, count: int) -> None:
        """Bring the service up to ``count`` replicas and return when they run (not yet: are healthy)."""
        ...

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        """Drain and stop exactly these replicas, least harm first, leaving ``count``."""
        ...


class Balancer(Protocol):
    """The runtime side of a load balancer, used to take replicas out of rotation before they stop."""

    def drain(self, addresses: Sequence[str]) -> None:
        """Send no new requests to these ``host:port`` addresses; those in flight are finished."""
        ...

    def sessions(self, addresses: Sequence[str]) -> int:
        """How many requests and sessions these addresses still hold."""
        ...

    def ready(self, addresses: Sequence[str]) -> None:
        """Return the slots of these addresses to service, for whoever gets them next."""
        ...

    def weigh(self, weights: Mapping[str, int]) -> None:
        """Send requests that start agents to these addresses in proportion to their weights, 1 to 100."""
        ...


class Prober(Protocol):
    """Asks one address one health question."""

    def __call__(self, address: str, health: Health) -> tuple[bool, float, str]:
        """(healthy, latency in seconds, reason)."""
        ...
