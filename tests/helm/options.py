"""Options of the chart, as sets that together reach every branch of its templates, and in every pair."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

DIGEST = "sha256:" + "a" * 64
_SSO = ("sso.enabled=true", "sso.issuerUrl=https://id.example", "sso.existingSecret=sso")
_AFFINITY = (
    "services.agents.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
    ".nodeSelectorTerms[0].matchExpressions[0]"
)
# name of a parameter, and its values: what `--set` takes
PARAMETERS: Mapping[str, Sequence[Sequence[str]]] = {
    "tier": (("single-user",), ("team",), ("department",), ("enterprise",)),
    "autoscaling": ((), ("autoscaling.engine=none",), ("autoscaling.engine=keda",), ("autoscaling.engine=hpa",)),
    "forecast": ((), ("autoscaling.predictive=true", "autoscaling.scaleDown.pods=2", "autoscaling.scaleUp.pods=0")),
    "database": (
        (),
        ("database.mode=external", "database.external.secret=db"),
        (
            "database.backup.destinationPath=s3://b/a",
            "database.backup.credentialsSecret=s3",
            "database.backup.endpointUrl=https://s3.example",
            "database.backup.retention=30d",
            "database.backup.schedule=0 0 0 * * *",
            "database.walSize=5Gi",
            "database.image=registry.example/postgresql:17",
            "database.parameters.work_mem=8MB",
        ),
        ("database.backup.destinationPath=s3://b/a", "database.backup.retention=30d", "database.backup.schedule=0 0 0 * * *"),
    ),
    "exposure": (
        (),
        ("exposure.serviceType=LoadBalancer", "security.requireEncryption=false", "sso.required=false"),
        ("exposure.ingress.enabled=true", "exposure.ingress.className=nginx", "exposure.ingress.host=a.example",
         "exposure.ingress.tlsSecret=tls", "exposure.ingress.annotations.a=b", *_SSO),
        ("exposure.httpRoute.enabled=true", "exposure.httpRoute.parentRefs[0].name=gateway",
         "exposure.httpRoute.hosts[0]=a.example", *_SSO, "sso.emailDomains[0]=example.org"),
        ("exposure.httpRoute.enabled=true", "exposure.ingress.enabled=true", "security.requireEncryption=false",
         "sso.required=false", "sso.replicas=1", *_SSO),
    ),
    "auth": (
        (),
        ("auth.existingSecret=mine",),
        ("auth.externalSecret.store=vault", "auth.externalSecret.key=cfscale/queue"),
    ),
    "network": ((), ("networkPolicy.enabled=false",), ("networkPolicy.clients[0].podSelector.matchLabels.a=b",)),
    "mesh": ((), ("security.mesh=linkerd", "security.hostUsers=false"), ("security.mesh=istio", "storage.className=encrypted")),
    "monitoring": (
        (),
        ("monitoring.rules.enabled=false", "monitoring.serviceMonitor.enabled=false", "monitoring.dashboards=false"),
        ("monitoring.prometheus.enabled=true", "monitoring.prometheus.serviceAccountName=prometheus",
         "monitoring.rules.labels.a=b", "monitoring.serviceMonitor.labels.a=b", "monitoring.dashboards=true",
         "services.agents.metrics.port=3000", "services.coordinator.metrics.port=9100"),
    ),
    "names": (
        (),
        ("fullnameOverride=other", "commonLabels.team=a", "commonAnnotations.owner=b", "global.imagePullSecrets[0]=pull",
         "global.imageRegistry=mirror.example", f"services.queue.image.digest={DIGEST}", "services.agents.image.tag=",
         "serviceAccount.annotations.role=a", "nameOverride=platform"),
        ("nameOverride=acme", "serviceAccount.create=false", "serviceAccount.name=mine"),
    ),
    "placement": (
        (),
        ("availability.zones.required=true", "availability.zones.minDomains=3", "availability.hosts.required=true",
         "availability.regions=true", "services.agents.nodeSelector.disk=ssd", "services.agents.tolerations[0].key=gpu",
         "services.agents.priorityClassName=high", f"{_AFFINITY}.key=disk", f"{_AFFINITY}.operator=Exists", "cpuLimits.enabled=true"),
        ("availability.podDisruptionBudgets=false", "availability.regions=false"),
    ),
    "services": (
        (),
        ("services.agents.args[0]=serve", "services.agents.env.A=b", "services.agents.envFromSecret=keys",
         "services.agents.podLabels.a=b", "services.agents.podAnnotations.a=b", "services.agents.serviceAnnotations.a=b",
         "services.agents.routing.stickyHeader=X-Session", "services.queue.image.repository=redis",
         "services.agents.resources.limits.memory=", "valkey.cacheBytes=0"),
        ("services.coordinator.storage.existingClaim=mine", "services.agents.health.kind=tcp", "services.queue.storage.size=",
         "services.coordinator.health.kind=none", "services.cache.enabled=false", "services.agents.health.kind=none"),
        ("services.coordinator.storage.size=", "test.enabled=false", "rbac.create=true", "rbac.viewers[0].kind=Group",
         "rbac.viewers[0].name=team", "rbac.viewers[0].apiGroup=rbac.authorization.k8s.io",
         "extraObjects[0].apiVersion=v1", "extraObjects[0].kind=ConfigMap", "extraObjects[0].metadata.name=more"),
    ),
}  # fmt: skip


# what no pair of parameters shows, or not every tier has: a tier, and more values that it takes
MORE: Sequence[tuple[str, Sequence[str]]] = (
    *((tier, ()) for tier in ("single-user", "team", "department", "enterprise")),
    ("team", ("services.agents.routing.prefixes={/,/api}", "services.agents.routing.connections=0")),
    ("team", ("services.loadbalancer.enabled=false", "services.pooler.enabled=false", "services.database.enabled=false")),
    ("team", ("services.pooler.enabled=false",)),
    # Helm's way to take a part of the values away
    ("team", ("services.cache=null", "services.pooler=null")),
    ("team", ("database.readPool=false", "monitoring.prometheus.enabled=true")),
    ("team", ("database.maxConnections=0", "database.synchronous=0", "plan.cells=2")),
    ("team", ("services.database.nodeSelector.disk=ssd", "services.database.tolerations[0].key=database",
              "services.database.priorityClassName=high", "services.pooler.priorityClassName=high")),
    ("department", ("services.memory.enabled=false", "services.cache.enabled=false", "services.queue.enabled=false")),
    ("department", ("services.memory.replicas=1",)),
)  # fmt: skip
# what the chart refuses, with a word of its reason
REFUSED: Sequence[tuple[str, Sequence[str], str]] = (
    ("team", ("exposure.ingress.enabled=true", "sso.required=true"), "promises single sign-on"),
    ("team", ("exposure.ingress.enabled=true", "security.requireEncryption=true"), "promises encryption in transit"),
)


def rows() -> Iterator[dict[str, Sequence[str]]]:
    """As few combinations as a greedy search finds that hold every pair of two parameters' values."""
    names = list(PARAMETERS)
    left = {
        (a, i, b, j)
        for a, b in combinations(names, 2)
        for i, j in product(range(len(PARAMETERS[a])), range(len(PARAMETERS[b])))
    }
    while left:
        row: dict[str, int] = {}
        first = min(left)
        row[first[0]], row[first[2]] = first[1], first[3]
        for name in names:
            if name not in row:
                row[name] = max(range(len(PARAMETERS[name])), key=lambda i: _gain(left, row, name, i))
        left -= {(a, row[a], b, row[b]) for a, b in combinations(names, 2)}
        yield {name: PARAMETERS[name][index] for name, index in row.items()}


def _gain(left: set[tuple[str, int, str, int]], row: Mapping[str, int], name: str, index: int) -> int:
    forward = sum((name, index, other, value) in left for other, value in row.items())
    return forward + sum((other, value, name, index) in left for other, value in row.items())


def flags(row: Mapping[str, Sequence[str]]) -> list[str]:
    """What helm is given for a combination; the tier is the chart's."""
    return assigned([one for name, sets in row.items() if name != "tier" for one in sets])


def assigned(values: Sequence[str]) -> list[str]:
    """Values as flags of helm."""
    return [word for value in values for word in ("--set", value)]
