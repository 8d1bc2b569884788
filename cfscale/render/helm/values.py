"""The model of ``values.yaml``: what a chart can be told, with the words that explain it.

From these classes come the values file with its comments, ``values.schema.json`` and the table of the README, so that
none of the three can say something else than the others. Names are those of Kubernetes, hence camel case on paper.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from cfscale.render.helm.base import Model, Natural, Object, Port, Positive, Texts
from cfscale.render.helm.database import Database
from cfscale.render.helm.exposure import Exposure, Sso
from cfscale.render.helm.guard import Auth, NetworkPolicy, Rbac, Security, ServiceAccount
from cfscale.render.helm.operate import Autoscaling, Availability, Monitoring


class Image(Model, frozen=True, kw_only=True):
    """Where an image comes from."""

    registry: Annotated[
        str, Meta(description="Host of the registry; empty: global.imageRegistry, or the runtime's default.")
    ] = ""
    repository: Annotated[str, Meta(min_length=1, description="Name of the image.")]
    tag: Annotated[str, Meta(description="Version, where there is no digest.")] = ""
    digest: Annotated[
        str, Meta(pattern="^(sha256:[0-9a-f]{64})?$", description="sha256:... pins the image to the byte.")
    ] = ""
    pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"], Meta(description="When a node asks the registry.")
    ] = "IfNotPresent"


class Requests(Model, frozen=True, kw_only=True):
    """What is reserved for one replica."""

    cpu: Annotated[str, Meta(description="CPU that is reserved.")]
    memory: Annotated[
        str, Meta(description="Memory that is reserved: all that the limit allows, since machines are sized by it.")
    ]
    ephemeral_storage: Annotated[str, Meta(description="Disk for logs and temporary files.")] = field(
        default="64Mi", name="ephemeral-storage"
    )


class Caps(Model, frozen=True, kw_only=True):
    """What one replica may take at most."""

    cpu: Annotated[str, Meta(description="Enforced only with cpuLimits.enabled; empty: no limit.")] = ""
    memory: Annotated[str, Meta(description="More than that ends the process; empty: no limit.")] = ""
    ephemeral_storage: Annotated[str, Meta(description="More than that evicts the pod.")] = field(
        default="1Gi", name="ephemeral-storage"
    )


class Resources(Model, frozen=True, kw_only=True):
    """The size of one replica."""

    requests: Requests
    limits: Caps


class Health(Model, frozen=True, kw_only=True):
    """How a replica is asked for its health."""

    kind: Annotated[
        Literal["http", "jsonrpc", "tcp", "redis", "postgres", "none"], Meta(description="Protocol of the question.")
    ]
    path: Annotated[str, Meta(description="What is asked over HTTP.")] = "/"
    period_seconds: Annotated[Positive, Meta(description="Time between two questions.")]
    timeout_seconds: Annotated[Positive, Meta(description="How long an answer may take.")]
    rise: Annotated[Positive, Meta(description="Good answers until a replica gets traffic.")]
    fall: Annotated[Positive, Meta(description="Bad answers until it gets none.")]
    liveness_failures: Annotated[Positive, Meta(description="Refused connections until it is started again.")]
    startup_failures: Annotated[Positive, Meta(description="Bad answers that it may give while it starts.")]


class Storage(Model, frozen=True, kw_only=True):
    """What a service keeps on disk."""

    size: Annotated[str, Meta(description="Size of a volume; empty: nothing is kept.")] = ""
    class_name: Annotated[str, Meta(description="Storage class; empty: storage.className.")] = ""
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"],
        Meta(description="ReadWriteMany where several replicas share the volume."),
    ] = "ReadWriteOnce"
    existing_claim: Annotated[str, Meta(description="A claim of yours instead of a new one.")] = ""


class Metrics(Model, frozen=True, kw_only=True):
    """Where a service can be asked for Prometheus metrics."""

    port: Annotated[Natural, Meta(description="Port of the metrics; 0: it has none.")] = 0
    path: Annotated[str, Meta(description="Path of the metrics.")] = "/metrics"


class Routing(Model, frozen=True, kw_only=True):
    """What the load balancer sends to a service, and how."""

    prefixes: Annotated[list[str], Meta(description="Path prefixes that lead here; the longest wins.")] = []
    one_writer: Annotated[
        bool, Meta(description="All requests go to one replica, and to another once that one is down.")
    ] = False
    sticky_header: Annotated[str, Meta(description="Header that keeps a session on its replica.")] = ""
    connections: Annotated[
        Natural, Meta(description="Connections that a replica gets at a time, so that it takes none of others; 0: any.")
    ] = 0


class Service(Model, frozen=True, kw_only=True):
    """One service of the plan."""

    enabled: Annotated[bool, Meta(description="Whether it is deployed.")] = True
    image: Image
    replicas: Annotated[Natural, Meta(description="Replicas of the plan; not set where something scales them.")]
    min_replicas: Annotated[Natural, Meta(description="Fewest replicas.")]
    max_replicas: Annotated[Natural, Meta(description="Most replicas; above minReplicas something scales them.")]
    resources: Resources
    port: Annotated[Port, Meta(description="Port that it listens on.")]
    health: Health
    args: Annotated[list[str], Meta(description="Arguments instead of the image's own.")] = []
    env: Annotated[Texts, Meta(description="Variables with their values; never secrets.")] = {}
    env_from_secret: Annotated[str, Meta(description="A Secret of yours that becomes variables, such as API keys.")] = (
        ""
    )
    platform: Annotated[bool, Meta(description="It is told where queue, memory, cache and database are.")] = False
    routing: Routing = Routing()
    storage: Storage = Storage()
    metrics: Metrics = Metrics()
    run_as_user: Annotated[int, Meta(ge=10000, description="Its user; never one of the machine.")] = 10001
    stop_grace_seconds: Annotated[Natural, Meta(description="Time to finish what is in hand.")]
    priority_class_name: Annotated[str, Meta(description="Who goes first where machines are full.")] = ""
    service_annotations: Annotated[Texts, Meta(description="Annotations of its Service.")] = {}
    pod_annotations: Annotated[Texts, Meta(description="Annotations of its pods.")] = {}
    pod_labels: Annotated[Texts, Meta(description="Labels of its pods.")] = {}
    node_selector: Annotated[Texts, Meta(description="Labels that its machines must have.")] = {}
    tolerations: Annotated[list[Object], Meta(description="Taints that it puts up with.")] = []
    affinity: Annotated[Object, Meta(description="Instead of the chart's soft anti-affinity.")] = {}


class Plan(Model, frozen=True, kw_only=True):
    """What the plan was made for; shown after an installation, and labels."""

    name: Annotated[str, Meta(description="Name of the deployment.")]
    tier: Annotated[str, Meta(description="Size class.")]
    environment: Annotated[str, Meta(description="development, staging or production.")]
    cells: Annotated[Positive, Meta(description="Install the chart once in each of these cells.")]
    users: Annotated[Natural, Meta(description="Concurrent users, of all cells.")]
    agents: Annotated[Natural, Meta(description="Agents, of all cells.")]
    tasks: Annotated[Natural, Meta(description="Concurrent tasks, of all cells.")]
    nodes: Annotated[Natural, Meta(description="Machines of one cell, with one to spare where failover is promised.")]
    node_cpu: Annotated[str, Meta(description="Cores of such a machine.")]
    node_memory: Annotated[str, Meta(description="Memory of such a machine.")]


class Global(Model, frozen=True, kw_only=True):
    """What charts that hold this one as a part share."""

    image_registry: Annotated[str, Meta(description="Registry of all images; theirs where they have one.")] = ""
    image_pull_secrets: Annotated[list[str], Meta(description="Secrets by which nodes pull images.")] = []


class Balancing(Model, frozen=True, kw_only=True):
    """The configuration of the load balancer."""

    algorithm: Annotated[Literal["roundrobin", "leastconn"], Meta(description="Who gets the next request.")]
    log_level: Annotated[Literal["debug", "info", "warning", "err"], Meta(description="What its log holds.")]
    threads: Annotated[Positive, Meta(description="Threads, one for each core.")]
    connections: Annotated[Positive, Meta(description="Connections that it takes.")]
    session_seconds: Annotated[Positive, Meta(description="How long a session stays on its replica.")]
    compress_from_bytes: Annotated[Positive, Meta(description="Answers of this size and more are compressed.")]
    audit: Annotated[bool, Meta(description="Log who asked for what, as JSON.")] = False


class Valkey(Model, frozen=True, kw_only=True):
    """The configuration of queue, memory and cache."""

    memory_percent: Annotated[
        int, Meta(ge=1, le=100, description="Share of the memory limit for data; the rest is for buffers.")
    ]
    connections: Annotated[Positive, Meta(description="Connections that one of them takes.")]
    cluster_replicas: Annotated[Natural, Meta(description="Copies of each shard of the memory.")] = 0
    cache_bytes: Annotated[Natural, Meta(description="What all of the cache holds, in bytes.")] = 0


class CpuLimits(Model, frozen=True, kw_only=True):
    """Whether CPU limits are enforced."""

    enabled: Annotated[bool, Meta(description="Limits throttle even where the machine is idle, so they are off.")] = (
        False
    )


class StorageDefaults(Model, frozen=True, kw_only=True):
    """What holds for all volumes."""

    class_name: Annotated[
        str, Meta(description="Storage class of all volumes; name an encrypted one for encryption at rest.")
    ] = ""


class HelmTest(Model, frozen=True, kw_only=True):
    """The pod that `helm test` runs."""

    enabled: Annotated[bool, Meta(description="Whether there is one.")] = True


class Values(Model, frozen=True, kw_only=True):
    """The whole file."""

    global_: Global = field(default=Global(), name="global")
    name_override: Annotated[str, Meta(max_length=63, description="Instead of the chart's name.")] = ""
    fullname_override: Annotated[
        str, Meta(max_length=53, description="Instead of the release's and chart's names.")
    ] = ""
    common_labels: Annotated[Texts, Meta(description="Labels of everything.")] = {}
    common_annotations: Annotated[Texts, Meta(description="Annotations of everything.")] = {}
    cluster_domain: Annotated[str, Meta(description="Domain of the cluster's DNS.")] = "cluster.local"
    plan: Plan
    services: Annotated[dict[str, Service], Meta(description="The services of the plan, by name.")]
    balancing: Balancing
    valkey: Valkey
    database: Database
    cpu_limits: CpuLimits = CpuLimits()
    storage: StorageDefaults = StorageDefaults()
    autoscaling: Autoscaling
    availability: Availability
    monitoring: Monitoring
    network_policy: NetworkPolicy
    auth: Auth = Auth()
    security: Security = Security()
    rbac: Rbac = Rbac()
    service_account: ServiceAccount = ServiceAccount()
    exposure: Exposure = Exposure()
    sso: Sso = Sso()
    test: HelmTest = HelmTest()
    extra_objects: Annotated[list[Object | str], Meta(description="More manifests; templates are filled in.")] = []
