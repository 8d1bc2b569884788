"""The one neutral model: everything that renderers, the scaler and the prober may know about a deployment.

Amounts are in base units and named so: millicores, bytes, seconds. Replica counts and node counts are per cell;
``totals`` and ``demand`` span all cells. The JSON form of ``DeploymentPlan`` is the document ``cfscale/plan/v1``.
"""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from cfscale.core.promises import Promises

PLAN_SCHEMA = "cfscale/plan/v1"
SPAWN = "spawn"  # behind a service's name: the balancer's backend for requests that start agents


class HealthKind(StrEnum):
    """The protocol in which a service is asked for its health."""

    HTTP = "http"
    TCP = "tcp"
    REDIS = "redis"
    POSTGRES = "postgres"
    JSONRPC = "jsonrpc"
    NONE = "none"


class Health(Struct, frozen=True):
    """How a replica is asked for its health, and how many answers change the verdict (HAProxy's rise and fall).

    ``path`` is the cheap question (balancer, container health check); ``rpc_path`` is where the deep one goes when
    ``kind`` is jsonrpc. ``json`` lists top-level members that the answer's body must have with these values.
    """

    kind: HealthKind
    path: str = "/"
    status: int = 200
    json: Mapping[str, str] = field(default_factory=dict)
    rpc_path: str = "/rpc"
    interval_seconds: float = 10.0
    timeout_seconds: float = 2.0
    start_period_seconds: float = 30.0
    rise: int = 2
    fall: int = 3


class Drain(Struct, frozen=True):
    """How a replica out of rotation may finish its work before SIGTERM: until ``done`` says so, at most ``seconds``.

    ``done`` is a question whose expected answer means that nothing is at work; None: there is no such question.
    """

    seconds: float
    done: Health | None = None


class Service(Struct, frozen=True):
    """One service of a cell. Limits of None mean: no limit.

    ``command`` empty means the image's own; ``env`` values are literal. ``publish`` is ``host:port`` or
    ``host:first-last`` on the machine that runs it. ``routes`` are the path prefixes the balancer sends here.
    ``members`` says that each replica is somebody of its own: it keeps its name and its volume, and the others know it by them.
    ``one_writer`` says that the replicas share files which only one of them may write: the balancer sends everything
    to one of them, and to another once that one is down. ``build`` says that the image is ours and its Dockerfile is rendered under ``images/NAME/``.
    """

    name: str
    image: str
    replicas: int
    min_replicas: int
    max_replicas: int
    cpu_request_millicores: int
    cpu_limit_millicores: int | None
    memory_request_bytes: int
    memory_limit_bytes: int | None
    storage_bytes: int
    driver: str
    rules: tuple[str, ...]
    port: int
    health: Health
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    publish: str | None = None
    routes: tuple[str, ...] = ()
    sticky_header: str | None = None
    one_writer: bool = False
    members: bool = False
    stop_grace_seconds: float = 10.0
    build: bool = False
    drain: Drain | None = None

    @property
    def drain_limit_seconds(self) -> float:
        """How long a replica may stay out of rotation before it is told to stop: its grace period unless given."""
        return self.stop_grace_seconds if self.drain is None else self.drain.seconds

    @property
    def names(self) -> tuple[str, ...]:
        """What its replicas are called where each has a name of its own: NAME-1 and so on, or NAME where it is alone."""
        if not self.members or self.replicas == 1:
            return (self.name,)
        return tuple(f"{self.name}-{number}" for number in range(1, self.replicas + 1))

    @property
    def scaled(self) -> bool:
        """Whether the replica count may move while the deployment runs."""
        return self.min_replicas < self.max_replicas


class Amounts(Struct, frozen=True):
    """Total amounts over all cells; network is None where the tier makes no claim."""

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int


class Demand(Struct, frozen=True):
    """What the sizing rules ask for, over all cells."""

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    network_bits_per_second: int | None


class Nodes(Struct, frozen=True):
    """Count and shape of the machines of one cell, the spare for a lost machine included."""

    count: int
    cpu_millicores: int
    memory_bytes: int


class LedgerEntry(Struct, frozen=True):
    """One number of the plan and the rule that gave it.

    ``field`` is where the number stands in the plan's document, empty for a step on the way. ``source`` is
    ``founding:LINE``, a measurement, a document, ``design``, ``assumption`` or ``profile``.
    """

    rule: str
    value: float | int | str
    unit: str
    formula: str
    source: str
    field: str = ""


class Conflict(Struct, frozen=True):
    """Something the sources say twice and differently: both values, the one chosen, and why.

    ``changed`` says whether this very plan would be another one with the value that was not chosen.
    """

    id: str
    values: tuple[str, ...]
    chosen: str
    why: str
    changed: bool


class Damping(Struct, frozen=True):
    """How far and how often the replica count may move in one direction (names of the Kubernetes HPA)."""

    stabilization_window_seconds: float
    cooldown_seconds: float
    max_percent: int
    max_replicas: int | None


class Band(Struct, frozen=True):
    """The dead band of one resource as ratios: above ``scale_up`` grow, below ``scale_down`` shrink."""

    scale_up_ratio: float
    scale_down_ratio: float


class Safety(Struct, frozen=True):
    """When ``scale`` distrusts what it sees or does.

    A usage counts for ``stale_after_intervals``, and for ``stale_at_least_seconds`` where these are shorter; a shrink
    needs ``min_reporting_ratio`` of the replicas to report; of ``panic_replicas`` or more no larger share than
    ``panic_ratio`` may turn unhealthy in one round; after ``breaker_failures`` actions in a row without effect the next
    one waits ``breaker_open_seconds``.
    """

    stale_after_intervals: int
    stale_at_least_seconds: float
    min_reporting_ratio: float
    panic_ratio: float
    panic_replicas: int
    breaker_failures: int
    breaker_open_seconds: float


class Forecasting(Struct, frozen=True):
    """How the load is forecast, and what is made of it (``core/forecast.py`` says how each is used).

    ``goal_ratio`` is the share of minutes in which replicas may be short of the load.
    """

    goal_ratio: float
    startup_seconds: float
    least_history_seconds: float
    memory_seconds: float
    recent_seconds: float
    volatility_seconds: float
    weight_power: float
    floor_ratio: float
    cap_ratio: float
    worth_ratio: float
    least_factor: float
    most_factor: float
    steering: float
    hidden_ratio: float
    hidden_most_ratio: float
    worse_ratio: float


class Pool(Struct, frozen=True):
    """The pool policy: grow above, shrink below, and by what part of the idle."""

    scale_up_ratio: float
    scale_down_ratio: float
    idle_divisor: int


class Predictive(Struct, frozen=True):
    """The predictive policy: grow above, shrink to a part once the load was low for so long."""

    scale_up_ratio: float
    scale_down_ratio: float
    after_seconds: float
    scale_down_factor: float


class Policy(Struct, frozen=True):
    """One scaling policy in force: its kind, and its options as the profile writes them."""

    kind: str
    options: Mapping[str, str] = {}


class Scaling(Struct, frozen=True):
    """What ``scale`` obeys: the policies in force, the dead bands, the damping of both directions, the safety."""

    interval_seconds: float
    policies: tuple[Policy, ...]
    tolerance_ratio: float
    scale_up: Damping
    scale_down: Damping
    cpu: Band
    memory: Band
    disk: Band
    critical_ratio: float
    target_ratio: float
    pool: Pool
    predictive: Predictive
    forecast: Forecasting
    safety: Safety


class Limits(Struct, frozen=True):
    """What one replica may take, whatever its tier; the percentages are of its memory."""

    queue_memory_percent: int
    database_buffers_percent: int
    heap_percent: int
    connections: int
    processes: int


class Database(Struct, frozen=True):
    """Connections between the pools and the database: it must accept all that full pools hold, and ``reserved`` more."""

    pools: int
    pool_min: int
    pool_max: int
    reserved: int
    max_connections: int


class Memory(Struct, frozen=True):
    """The platform's shared memory: ``shards`` primaries, and ``backups`` of each one's keys on other replicas."""

    shards: int
    backups: int


class Gates(Struct, frozen=True):
    """Ports of the balancer for what is not HTTP.

    They lead to the queue's primary, the first cache that is up, the database's primary (write) and its replicas (read).
    """

    queue: int
    cache: int
    write: int
    read: int


class Monitoring(Struct, frozen=True):
    """How often metrics are collected, and what collects them where an operator asks for it."""

    interval_seconds: int
    image: str = ""


class Settings(Struct, frozen=True):
    """Settings that component configuration needs. None: the tier does not ask for it."""

    strategy: str
    failover: str | None
    log_level: str
    session_timeout_seconds: int
    cache_bytes: int
    metrics_retention_seconds: int
    replication_factor: int
    max_concurrent_tasks: int
    compress_from_bytes: int
    cache_l3_ttl_factor: int
    limits: Limits
    gates: Gates
    monitoring: Monitoring
    database: Database | None = None
    memory: Memory | None = None


class Alternative(Struct, frozen=True):
    """Other machines that carry the same replicas, how many in all cells, and their price a month."""

    machine: str
    cpu_millicores: int
    memory_bytes: int
    nodes: int
    nodes_month: float


class Cost(Struct, frozen=True):
    """What the plan costs a month, in one currency, by the prices of one region and day.

    ``machine`` is the cheapest that is as large as the planned node; ``agent_month`` shares ``month`` among the admitted
    agents, None where there is none. ``cheapest`` is None where no other machines cost less.
    """

    currency: str
    region: str
    prices_date: str
    machine: str
    node_month: float
    nodes_month: float
    storage_month: float
    month: float
    agent_month: float | None
    cheapest: Alternative | None


class DeploymentPlan(Struct, frozen=True):
    """A sized deployment. Equal inputs give equal plans, byte for byte."""

    schema: str
    name: str
    environment: str
    tier: str
    phase: str
    cells: int
    users: int
    agents: int
    tasks: int
    admitted_agents: int
    demand: Demand
    totals: Amounts
    nodes: Nodes
    services: tuple[Service, ...]
    settings: Settings
    scaling: Scaling
    ledger: tuple[LedgerEntry, ...]
    conflicts: tuple[Conflict, ...]
    warnings: tuple[str, ...]
    agent_class: str = "process"
    cost: Cost | None = None
    promises: Promises | None = None

    @property
    def parts(self) -> dict[str, Service]:
        """Every name under which something runs, and the service that it is of: a member has a name of its own."""
        return {name: service for service in self.services for name in service.names}

    def service(self, name: str) -> Service:
        """The service of this name; raises KeyError."""
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def find(self, name: str) -> Service | None:
        """The service of this name, None where the tier does without."""
        return next((service for service in self.services if service.name == name), None)
