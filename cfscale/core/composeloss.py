"""What one host with Compose cannot do of what a plan or its tier promises, what there is instead, and what would do it.

The model survives where it can; where it cannot, the loss has a line here, told to every plan that it concerns.
"""

from collections.abc import Callable, Iterator

from cfscale.core.losses import Concerns, Loss, always, concerning, fails_over, has, of_tier
from cfscale.core.plan import DeploymentPlan, HealthKind, Service

TARGET = "compose"


def losses(plan: DeploymentPlan) -> tuple[Loss, ...]:
    """The losses that concern this plan."""
    return (*concerning(plan, _LOSSES), *_of_services(plan))


def _of_services(plan: DeploymentPlan) -> Iterator[Loss]:
    """What no key of a service carries."""
    for touched, field, *words in _FIELDS:
        if names := tuple(service.name for service in plan.services if touched(plan, service)):
            yield Loss(TARGET, names, field, *words)


def _settled(plan: DeploymentPlan, service: Service) -> bool:
    """Whether one good answer is enough: the engine asks alone, and knows no second one."""
    balanced = bool(service.routes) and plan.find("loadbalancer") is not None
    return service.health.rise > 1 and service.health.kind is not HealthKind.NONE and not balanced


_FIELDS: tuple[tuple[Callable[[DeploymentPlan, Service], bool], str, str, str, str], ...] = (
    (
        lambda _, service: service.storage_bytes > 0,
        "storage",
        "the plan's",
        "a volume grows until its disk is full",
        "a local volume has no size: watch the disk; helm claims what the plan says",
    ),
    (
        _settled,
        "health.rise",
        "several good answers",
        "the first makes it healthy",
        "the engine counts bad answers only; 'cfscale probe' counts both",
    ),
    (
        lambda _, service: bool(service.health.json),
        "health.json",
        "what the answer's body says",
        "its status alone",
        "neither engine nor balancer reads it; 'cfscale probe' does",
    ),
)


def _loss(what: str, carried: str, why: str) -> Loss:
    return Loss(TARGET, (), what, "promised by the tier", carried, why)


def _copied(plan: DeploymentPlan) -> bool:
    return plan.settings.replication_factor > 1


_LOSSES: tuple[tuple[Concerns, Loss], ...] = (
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
        fails_over("cross_region", "global"),
        _loss(
            "failover across regions",
            "a replica takes over on the same host",
            "helm with a cluster in each region and replica clusters of CloudNativePG",
        ),
    ),
    (
        of_tier("enterprise"),
        _loss("geographic distribution", "one place", "helm: a cluster a region, topology keys, weighted DNS records"),
    ),
    (
        of_tier("enterprise"),
        _loss("content delivery network", "none", "a provider's, before the balancer of either target"),
    ),
    (
        of_tier("enterprise"),
        _loss(
            "multi-master database",
            "one primary takes all writes, the others answer reads",
            "a distributed database in the place of PostgreSQL, such as YugabyteDB or CockroachDB",
        ),
    ),
    (
        of_tier("enterprise"),
        _loss("encryption at rest and between services", "none", "an encrypted disk; helm with a service mesh"),
    ),
    (
        has("database"),
        _loss(
            "backups of the database",
            "none is scheduled",
            "helm with ScheduledBackup of CloudNativePG; pgBackRest by hand",
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
        has("etcd"),
        _loss(
            "votes of etcd and Sentinel",
            "they are processes of one host",
            "helm and swarm place them on different hosts",
        ),
    ),
    (
        has("sentinel"),
        _loss(
            "a queue whose primary died and never came back before everything was stopped",
            "the next start may take the older copy for the newer",
            "start it again before 'cfscale down'; an operator in helm keeps the role outside",
        ),
    ),
    (
        lambda plan: plan.find("loadbalancer") is None,
        _loss(
            "metrics and their retention",
            "nothing collects any",
            "add the load balancer to the services of the profile, or collect them with a Prometheus of your own",
        ),
    ),
    (
        always,
        _loss(
            "batches of ten messages", "nothing here sends messages", "the platform's own client batches, by pipelining"
        ),
    ),
    (
        always,
        _loss(
            "weights by free resources",
            "kind agent-spawn goes by them while 'cfscale scale --watch --apply' runs, else round robin or by the last ones",
            "an agent that answers HAProxy's agent-check",
        ),
    ),
    (
        always,
        _loss(
            "an update that is rolled back", "Compose ignores update_config", "swarm and helm roll back by themselves"
        ),
    ),
)
