from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from cfscale.core.plan import Health, HealthKind
from cfscale.errors import ActionError
from cfscale.render import check, compose
from tests.render.plans import TIERS, changed, plan_for

PART = "compose/parts/service.yaml.j2"


@pytest.mark.parametrize(
    ("template", "old", "new", "message"),
    [
        (PART, "container.replicas", "7", "services.coordinator: deploy.replicas is 7, planned 2"),
        (PART, "container.replicas | yaml", "'2' | yaml", "deploy.replicas is '2', planned 2"),
        (PART, "container.image", "'x'", "image is 'x', planned 'cfscale/coordinator:3.43.0'"),
        (PART, "container.memory |", "'1G' |", "limits.memory is 1073741824, planned 2147483648"),
        (PART, "container.cpus |", "'lots' |", "limits.cpus is 'lots', planned 1000"),
        (PART, "container.reserved_cpus", "'3'", "reservations.cpus is 3000, planned 1000"),
        (PART, "container.reserved_memory", "'1G'", "reservations.memory is 1073741824"),
        (PART, "container.health.interval", "'1h'", "healthcheck.interval is 3600.0, planned 10.0"),
        (PART, "container.health.retries", "1", "healthcheck.retries is 1, planned 3"),
        (PART, "container.health.start_period", "'1s'", "healthcheck.start_period is 1.0, planned 30.0"),
        (PART, "container.stop_grace", "'1s'", "stop_grace_period is 1.0, planned 30.0"),
        (PART, "container.port.published", "'1'", "ports is [{'host_ip': '127.0.0.1', 'published': '1'"),
        (PART, "    <<: *common\n", "    <<: *common\n    privileged: true\n", "the key 'privileged' is not ours"),
        (PART, "    <<: *common\n", "    <<: [\n", "do not give YAML"),
        ("compose/base.yaml.j2", "name: ", "version: '3'\nname: ", "compose.yaml: the key 'version' is not ours"),
        ("compose/base.yaml.j2", "services:\n", "services: []\n", "do not give YAML"),
        ("compose/parts/agents.yaml.j2", "container.name |", "'agent' |", "compose.yaml: services is ['agent', "),
        ("config/haproxy.cfg.j2", "backend.slots", "1", "haproxy.cfg: coordinator: slots is '1', planned '2'"),
        ("config/haproxy.cfg.j2", "backend.fall", "9", "fall is '9', planned '3'"),
        ("config/haproxy.cfg.j2", "backend.check_path |", "'/x' |", "uri is '/x', planned '/health'"),
        ("config/haproxy.cfg.j2", "route.prefix |", "'/' |", "haproxy.cfg: agents: / is 'coordinator', planned 'agents'"),
        ("config/haproxy.cfg.j2", "balancer.compress_from |", "1 |", "haproxy.cfg: compress from is '1', planned '1024'"),
        ("config/haproxy.cfg.j2", "gate.port |", "9 |", "haproxy.cfg: listen queue: bind is [':9'], planned [':6379']"),
        ("config/patroni.yml.j2", "{{ connections |", "{{ 7 |", "patroni.yml: max_connections is 7, planned 203"),
        ("config/patroni.yml.j2", "synchronous_mode: true", "synchronous_mode: false", "patroni.yml: synchronous_mode is False"),
        ("config/pgbouncer.ini.j2", "{{ database.pool_max |", "{{ 101 |", "pgbouncer.ini"),
        ("config/cache.conf.j2", "allkeys-lru", "noeviction", "cache's configuration: maxmemory-policy is 'noeviction'"),
        ("config/haproxy.cfg.j2", "server-template ", "server ", "slots is '', planned '2'"),
        ("config/valkey.conf.j2", "noeviction", "allkeys-lru", "maxmemory-policy is 'allkeys-lru'"),
        ("config/valkey.conf.j2", "appendonly yes\n", "", "queue's configuration: appendonly is None, planned 'yes'"),
    ],
)  # fmt: skip
def test_a_template_that_says_something_else_is_caught(
    template: str, old: str, new: str, message: str, templates: Mapping[str, str]
) -> None:
    assert old in templates[template]
    broken = {**templates, template: templates[template].replace(old, new)}

    with pytest.raises(ActionError) as caught:
        compose.render(plan_for("team"), broken)

    assert message in str(caught.value)
    assert "nothing was written" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value | yaml", "'x' | yaml", "services.agents: environment.TOKEN differs"),
        ("container.command |", "'x' |", "services.agents: command differs"),
    ],
)
def test_a_difference_that_may_be_secret_is_named_but_not_shown(
    old: str, new: str, message: str, templates: Mapping[str, str]
) -> None:
    plan = changed(plan_for("team"), "agents", env={"TOKEN": "canary"}, command=("run", "canary"))
    broken = {**templates, PART: templates[PART].replace(old, new)}

    with pytest.raises(ActionError) as caught:
        compose.render(plan, broken)

    assert message in str(caught.value)
    assert "canary" not in str(caught.value)


def test_only_the_first_differences_are_named(templates: Mapping[str, str]) -> None:
    files = compose.render(plan_for("team"), templates)

    with pytest.raises(ActionError, match=r" and \d+ more$"):
        check.compare(plan_for("enterprise"), files)


@pytest.mark.parametrize("tier", TIERS)
def test_files_of_another_tier_never_pass(tier: str, templates: Mapping[str, str]) -> None:
    other = TIERS[(TIERS.index(tier) + 1) % len(TIERS)]

    with pytest.raises(ActionError):
        check.compare(plan_for(other), compose.render(plan_for(tier), templates))


def test_a_document_that_is_no_mapping_is_caught(templates: Mapping[str, str]) -> None:
    files = compose.render(plan_for("team"), templates)

    with pytest.raises(ActionError, match="name is None, planned 'acme'"):
        check.compare(plan_for("team"), {**files, "compose.yaml": "- a\n"})


def test_durations_are_compared_to_the_millisecond(templates: Mapping[str, str]) -> None:
    health = Health(HealthKind.HTTP, path="/x", interval_seconds=0.0001, timeout_seconds=1.23456)

    compose.render(changed(plan_for("team"), "agents", health=health, stop_grace_seconds=0.0), templates)


def test_a_plan_that_was_renamed_is_caught(templates: Mapping[str, str]) -> None:
    files = compose.render(plan_for("team"), templates)

    with pytest.raises(ActionError, match="name is 'acme', planned 'other'"):
        check.compare(replace(plan_for("team"), name="other"), files)
