"""What one release of the chart cannot do of what a plan or its tier promises, and what would do it."""

from cfscale.core.losses import Concerns, Loss, always, concerning, fails_over, has, of_tier
from cfscale.core.plan import DeploymentPlan


def losses(plan: DeploymentPlan) -> tuple[Loss, ...]:
    """The losses of the deployment that concern this plan."""
    return tuple(concerning(plan, _LOSSES))


def _loss(what: str, carried: str, why: str) -> Loss:
    return Loss("helm", (), what, "promised by the tier", carried, why)


_LOSSES: tuple[tuple[Concerns, Loss], ...] = (
    (
        lambda plan: plan.cells > 1,
        _loss("cells", "one release is one cell", "install it once in each; nothing routes users to their cell"),
    ),
    (
        fails_over("cross_region", "global"),
        _loss(
            "failover across regions",
            "within one cluster, over its regions where it has several",
            "a cluster in each region, and replica clusters of CloudNativePG",
        ),
    ),
    (
        of_tier("enterprise"),
        _loss(
            "geographic distribution", "one cluster", "a release in each region and weighted DNS records before them"
        ),
    ),
    (
        of_tier("enterprise"),
        _loss("content delivery network", "none", "a provider's, before the Ingress or the Gateway"),
    ),
    (
        of_tier("enterprise"),
        _loss(
            "multi-master database",
            "one primary takes all writes, the others answer reads",
            "a distributed database by database.mode=external, such as YugabyteDB or CockroachDB",
        ),
    ),
    (
        of_tier("enterprise"),
        _loss(
            "encryption at rest and between services",
            "what the cluster brings",
            "name an encrypted class in storage.className and a mesh in security.mesh",
        ),
    ),
    (
        has("database"),
        _loss(
            "backups of the database",
            "scheduled once there is a place for them",
            "set database.backup.destinationPath: the chart knows no bucket of yours",
        ),
    ),
    (
        has("memory"),
        _loss(
            "sharding of the database",
            "one database holds all; the shared memory is sharded",
            "cells, each with its own database",
        ),
    ),
    (
        always,
        _loss(
            "batches of ten messages", "nothing here sends messages", "the platform's own client batches, by pipelining"
        ),
    ),
    (
        has("loadbalancer"),
        _loss(
            "weights by free resources",
            "kind agent-spawn goes round robin",
            "replicas come and go by DNS here, and nothing tells the balancer their weights",
        ),
    ),
)
