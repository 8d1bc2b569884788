"""Values by which a deployment is kept running: autoscaling, availability, monitoring."""

from typing import Annotated, Literal

from msgspec import Meta

from cfscale.render.helm.base import Model, Natural, Positive, Texts

Ratio = Annotated[float, Meta(ge=0, le=1)]


class DeadBand(Model, frozen=True, kw_only=True):
    """Between the two nothing moves."""

    scale_up: Annotated[Ratio, Meta(description="Above this share of the request replicas are added.")]
    scale_down: Annotated[Ratio, Meta(description="Below this share of the request replicas are taken away.")]


class Damping(Model, frozen=True, kw_only=True):
    """How far and how often the count may move in one direction."""

    stabilization_window_seconds: Annotated[
        int, Meta(ge=0, le=3600, description="The most cautious proposal of so long is taken.")
    ]
    period_seconds: Annotated[int, Meta(ge=1, le=1800, description="Time in which the count may move once.")]
    percent: Annotated[Positive, Meta(description="How far it may move, in percent.")]
    pods: Annotated[Natural, Meta(description="How far it may move, in replicas; 0: by percent alone.")] = 0


class Prometheus(Model, frozen=True, kw_only=True):
    """Where KEDA asks for the load."""

    server_address: Annotated[str, Meta(description="Address of the Prometheus that evaluates the chart's rules.")] = (
        "http://prometheus-operated.monitoring.svc:9090"
    )


class Autoscaling(Model, frozen=True, kw_only=True):
    """What scales the services whose minReplicas are below their maxReplicas."""

    engine: Annotated[
        Literal["hpa", "keda", "none"],
        Meta(
            description="The cluster's HPA; KEDA, for prediction or where the HPA has no tolerance of its own "
            "(before Kubernetes 1.35); or none, for `cfscale scale --engine kubernetes`."
        ),
    ]
    cpu: DeadBand
    memory: DeadBand
    tolerance: Annotated[Ratio, Meta(description="Distance from a threshold below which growing waits.")]
    scale_up: Damping
    scale_down: Damping
    predictive: Annotated[bool, Meta(description="KEDA: act on the load that is forecast as well.")]
    forecast: DeadBand
    forecast_seconds: Annotated[Positive, Meta(description="How far ahead the forecast looks.")]
    polling_seconds: Annotated[Positive, Meta(description="KEDA: time between two looks.")]
    prometheus: Prometheus = Prometheus()


class Spread(Model, frozen=True, kw_only=True):
    """Over what the replicas of a service are spread."""

    required: Annotated[bool, Meta(description="Rather leave a replica waiting than place it unevenly.")] = False
    min_domains: Annotated[
        Natural, Meta(description="Where required: how many there must be at least; 0: as many as there are.")
    ] = 0


class Availability(Model, frozen=True, kw_only=True):
    """How much may go away at once."""

    pod_disruption_budgets: Annotated[bool, Meta(description="Drain one replica of a service at a time.")] = True
    max_unavailable: Annotated[Positive, Meta(description="How many may be drained at once.")] = 1
    zones: Spread = Spread()
    hosts: Spread = Spread()
    regions: Annotated[bool, Meta(description="Spread over regions as well.")] = False
    pre_stop_seconds: Annotated[
        Positive, Meta(description="Time for balancers to hear that a replica goes, before it is told to.")
    ] = 5
    min_ready_seconds: Annotated[Natural, Meta(description="How long a new replica has to be ready to count.")] = 5


class Monitor(Model, frozen=True, kw_only=True):
    """What the Prometheus Operator scrapes."""

    enabled: Annotated[bool, Meta(description="Where the cluster has the Prometheus Operator.")] = True
    interval_seconds: Annotated[Positive, Meta(description="Time between two scrapes.")]
    labels: Annotated[Texts, Meta(description="Labels by which your Prometheus finds it.")] = {}


class Rules(Model, frozen=True, kw_only=True):
    """Alerts and recorded series."""

    enabled: Annotated[bool, Meta(description="Where the cluster has the Prometheus Operator.")] = True
    labels: Annotated[Texts, Meta(description="Labels by which your Prometheus finds them.")] = {}
    runbook_url: Annotated[str, Meta(description="Page of the runbooks; the alert's name is its anchor.")]
    disk_ratio: Annotated[Ratio, Meta(description="Volumes fuller than this alert; replicas add no disk.")]
    critical_ratio: Annotated[Ratio, Meta(description="Usage above this is critical.")]
    backup_seconds: Annotated[Natural, Meta(description="A latest backup older than this is critical.")]


class PrometheusServer(Model, frozen=True, kw_only=True):
    """A Prometheus of the deployment's own, run by the operator."""

    enabled: Annotated[bool, Meta(description="Off where the cluster has one already.")] = False
    retention_seconds: Annotated[Positive, Meta(description="How long metrics are kept, also by the plan.")]
    storage_size: Annotated[str, Meta(description="Its volume.")] = "50Gi"
    service_account_name: Annotated[str, Meta(description="An account of yours that may list pods and endpoints.")] = ""


class Monitoring(Model, frozen=True, kw_only=True):
    """Metrics, alerts and dashboards."""

    service_monitor: Monitor
    rules: Rules
    dashboards: Annotated[bool, Meta(description="A dashboard for Grafana's sidecar.")]
    prometheus: PrometheusServer
