"""Where requests that start agents go: each ready replica gets them by what it has free of the scarcer of CPU and memory.

The weights are told with every tick. A balancer that was restarted, and a server that points to another replica, have lost
theirs; the adapter says only what differs.
"""

from collections.abc import Callable, Iterable, Iterator

from cfscale.core.agent import free_percent
from cfscale.core.policy import Observation
from cfscale.core.samples import ReplicaState
from cfscale.errors import UnavailableError
from cfscale.runtime.act import Hands


def weigh(hands: Hands, observations: Iterable[Observation], warn: Callable[[str], None]) -> None:
    """Tell the balancer what the replicas have free; raises LockedError where another scaler may tell it by now."""
    weights = dict(_weights(observations)) if hands.balancer is not None else {}
    if hands.balancer is None or not weights:
        return
    hands.lock.check()
    try:
        hands.balancer.weigh(weights)
    except UnavailableError as error:
        warn(f"new agents go by the weights of before: {error}")


def _weights(observations: Iterable[Observation]) -> Iterator[tuple[str, int]]:
    """Address and percent; who was not measured keeps what it had."""
    for observation in observations:
        if not observation.service.routes or observation.service.one_writer:
            continue
        usages = {usage.replica: usage for usage in observation.usages}
        for replica in observation.replicas:
            free = free_percent(usages.get(replica.id))
            if replica.address and replica.state is ReplicaState.READY and free is not None:
                yield replica.address, free
