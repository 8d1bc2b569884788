"""What one host with Compose cannot do of what a plan or its tier promises, what there is instead, and what would do it.

The model survives where it can; where it cannot, the loss has a line here, told to every plan that it concerns.
"""

from collections.abc import Callable

from cfscale.core.losses import Loss
from cfscale.core.plan import DeploymentPlan

TARGET = "compose"


def losses(plan: DeploymentPlan) -> tuple[Loss, ...]:
    """The losses that concern this plan."""
    return tuple(loss for concerns, loss in _LOSSES if concerns(plan))


def _loss(what: str, carried: str, why: str) -> Loss:
    return Loss(TARGET, (), what, "promised by the tier", carried, why)


def _copied(plan: DeploymentPlan) -> bool:
    return plan.settings.replication_factor > 1


def _always(_plan: DeploymentPlan) -> bool:
    return True


def _failover(*words: str) -> Callable[[DeploymentPlan], bool]:
    return lambda plan: plan.settings.failover in words


def _has(service: str) -> Callable[[DeploymentPlan], bool]:
    return lambda plan: plan.find(service) is not None


def _tier(name: str) -> Callable[[DeploymentPlan], bool]:
    return lambda plan: plan.tier == name


_LOSSES: tuple[tuple[Callable[[DeploymentPlan], bool], Loss], ...] = (
    (
        _copied,
        _loss(
            "machines of their own",
            "all replicas stand on one host, and its loss is the loss of all",
            "swarm spreads them over hosts, helm over nodes and zones",
        ),
    ),
    (
        lambda plan: plan.cells > 1,
        _loss("cells", "one project is one cell", "run it once in each; nothing routes users to their cell"),
    ),
    (
        _failover("cross_region", "global"),
        _loss(
            "failover across regions",
            "a replica takes over on the same host",
            "helm with a cluster in each region and replica clusters of CloudNativePG",
        ),
    ),
    (
        _tier("enterprise"),
        _loss("geographic distribution", "one place", "helm: a cluster a region, topology keys, weighted DNS records"),
    ),
    (
        _tier("enterprise"),
        _loss("content delivery network", "none", "a provider's, before the balancer of either target"),
    ),
    (
        _tier("enterprise"),
        _loss(
            "multi-master database",
            "one primary takes all writes, the others answer reads",
            "a distributed database in the place of PostgreSQL, such as YugabyteDB or CockroachDB",
        ),
    ),
    (
        _tier("enterprise"),
        _loss("encryption at rest and between services", "none", "an encrypted disk; helm with a service mesh"),
    ),
    (
        _has("database"),
        _loss(
            "backups of the database",
            "none is scheduled",
            "helm with ScheduledBackup of CloudNativePG; pgBackRest by hand",
        ),
    ),
    (
        _has("memory"),
        _loss(
            "sharding of the database",
            "one database holds all; the shared memory is sharded",
            "cells, each with its own database",
        ),
    ),
    (
        _has("etcd"),
        _loss(
            "votes of etcd and Sentinel",
            "they are processes of one host",
            "helm and swarm place them on different hosts",
        ),
    ),
    (
        _has("sentinel"),
        _loss(
            "a queue whose primary died and never came back before everything was stopped",
            "the next start may take the older copy for the newer",
            "start it again before 'cfscale down'; an operator in helm keeps the role outside",
        ),
    ),
    (
        _always,
        _loss(
            "batches of ten messages", "nothing here sends messages", "the platform's own client batches, by pipelining"
        ),
    ),
    (
        _always,
        _loss(
            "weights by free resources",
            "kind agent-spawn goes by them while 'cfscale scale --watch --apply' runs, else round robin or by the last ones",
            "an agent that answers HAProxy's agent-check",
        ),
    ),
    (
        _always,
        _loss(
            "an update that is rolled back", "Compose ignores update_config", "swarm and helm roll back by themselves"
        ),
    ),
)
