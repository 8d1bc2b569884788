"""What was observed of running replicas: who there is, in what state, and what each uses.

A measurement never travels alone: it carries its source, its age and its quality, so that a stale, paused or
restarted replica can never be mistaken for an idle one.
"""

from enum import StrEnum

from msgspec import Struct


class ReplicaState(StrEnum):
    """The state of one replica as its engine and its health check report it."""

    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"
    PAUSED = "paused"
    STOPPED = "stopped"


class Quality(StrEnum):
    """How far a sample may be trusted; only ``ok`` and ``approx`` may lead to a shrink."""

    OK = "ok"
    WARMING = "warming"
    PARTIAL = "partial"
    STALE = "stale"
    APPROX = "approx"


class Replica(Struct, frozen=True, gc=False):
    """One running instance. ``id`` is the engine's own (container id, ``pid@start``); addresses are ``host:port``.

    ``reason`` says in words why the state is what it is, where the engine knows more than the state. ``oom_killed_at``
    is when its last life was ended for lack of memory, as nearly as the engine tells. ``vouched``: the engine asks for
    its health all the time and replaces what fails, so that its word counts where nobody else reaches it. ``by_hand``: it is
    stopped because somebody wanted it so, for the engine would start again what ended by itself.
    """

    id: str
    name: str
    service: str
    state: ReplicaState
    started_at: float
    address: str | None = None
    pid: int | None = None
    restarts: int = 0
    reason: str = ""
    oom_killed_at: float | None = None
    vouched: bool = False
    by_hand: bool = False


class Usage(Struct, frozen=True, gc=False):
    """Raw usage of one replica over one window.

    ``cpu_cores`` is None until two readings exist. ``memory_bytes`` is the working set, of which
    ``reclaimable_bytes`` is page cache in active use. Limits of None mean: none set.
    """

    replica: str
    source: str
    taken_at: float
    window_seconds: float
    quality: Quality
    cpu_cores: float | None
    memory_bytes: int | None
    reclaimable_bytes: int = 0
    cpu_limit_cores: float | None = None
    memory_limit_bytes: int | None = None
    throttled_ratio: float = 0.0
    oom_kills: int = 0
    disk_ratio: float | None = None


class Sample(Struct, frozen=True, gc=False):
    """One resource of a whole service, as a policy sees it: the mean ratio of its ready replicas, 0..1 and above.

    ``age_seconds`` is that of its oldest measurement, ``window_seconds`` the longest time that one is the mean of.
    """

    resource: str
    value_ratio: float
    source: str
    age_seconds: float
    quality: Quality
    window_seconds: float = 0.0
