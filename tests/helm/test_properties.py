"""What an operator expects of a chart, each a property of every tier's objects."""

import re
from pathlib import Path
from typing import Any

import pytest

from cfscale.core.graph import edges
from cfscale.render.helm.fill import CLUSTERS_OWN
from tests.helm.lab import PLANS, TIERS, chart, helm, manifests, named, pods

pytestmark = pytest.mark.helm
Objects = list[dict[str, Any]]
EXPOSED = ("--set", "exposure.ingress.enabled=true", "--set", "exposure.ingress.host=agents.example")
SSO = ("--set", "sso.enabled=true", "--set", "sso.issuerUrl=https://id.example", "--set", "sso.existingSecret=sso")
BACKUP = ("--set", "database.backup.destinationPath=s3://backups/acme")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {tier: chart(tmp_path_factory.mktemp(tier), PLANS[tier]) for tier in TIERS}


@pytest.fixture(scope="module", params=TIERS)
def objects(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Objects:
    return manifests(folders[request.param])


@pytest.fixture(scope="module")
def enterprise(folders: dict[str, Path]) -> Objects:
    return manifests(folders["enterprise"], *BACKUP)


def test_every_pod_is_restricted(objects: Objects) -> None:
    for name, _, spec in pods(objects):
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]["type"]) == (True, "RuntimeDefault"), name
        assert min(security["runAsUser"], security["runAsGroup"], security["fsGroup"]) >= 10000, name
        assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False), name
        for container in spec["containers"]:
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True), name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert all("sizeLimit" in volume["emptyDir"] for volume in spec.get("volumes", ()) if "emptyDir" in volume), (
            name
        )


def test_the_three_probes_ask_differently_and_leave_time_to_drain(objects: Objects) -> None:
    for item in objects:
        if item["kind"] not in ("Deployment", "StatefulSet"):
            continue
        spec = item["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        probes = [container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")]
        assert probes[0] != probes[1] != probes[2] != probes[0]
        assert "tcpSocket" in probes[2]
        wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        service = next(one for one in PLANS["enterprise"].services if one.name == container["name"])
        assert spec["terminationGracePeriodSeconds"] > wait + service.stop_grace_seconds


def test_requests_are_the_plans_and_memory_limits_equal_them(objects: Objects) -> None:
    for name, _, spec in pods(objects):
        for container in spec["containers"]:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert {"cpu", "memory", "ephemeral-storage"} <= requests.keys(), name
            assert "cpu" not in limits, name
            if not name.endswith(("-password", "-test", "-join")):
                assert limits["memory"] == requests["memory"], name


def test_cpu_limits_are_there_when_they_are_asked_for(folders: dict[str, Path]) -> None:
    capped = manifests(folders["team"], "--set", "cpuLimits.enabled=true")
    agents = named(capped, "Deployment", "acme-cfscale-agents")["spec"]["template"]["spec"]["containers"][0]

    assert agents["resources"]["limits"]["cpu"] == "1"


def test_who_runs_several_replicas_has_a_budget_that_lets_one_go(objects: Objects) -> None:
    budgets = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "PodDisruptionBudget"}
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            least = item["spec"].get("replicas") or _scaler(objects, item["metadata"]["name"])[0]
            assert (item["metadata"]["name"] in budgets) == (least > 1)
    for spec in budgets.values():
        assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def _scaler(objects: Objects, name: str) -> tuple[int, int]:
    """(fewest, most) replicas of what scales a workload."""
    for item in objects:
        if item["kind"] == "HorizontalPodAutoscaler" and item["metadata"]["name"] == name:
            return item["spec"]["minReplicas"], item["spec"]["maxReplicas"]
        if item["kind"] == "ScaledObject" and item["metadata"]["name"] == name:
            return item["spec"]["minReplicaCount"], item["spec"]["maxReplicaCount"]
    raise AssertionError(f"nothing scales {name}")


def test_what_is_scaled_has_one_scaler_and_no_count_of_its_own(objects: Objects) -> None:
    scaled = [item["spec"]["scaleTargetRef"]["name"] for item in objects if "scaleTargetRef" in item.get("spec", {})]
    counts = {
        item["metadata"]["name"]: item["spec"].get("replicas") for item in objects if item["kind"] == "Deployment"
    }

    assert scaled == ["acme-cfscale-agents"]
    assert [name for name, count in counts.items() if count is None] == scaled


def test_pods_are_spread_by_zone_and_host_and_of_one_rollout(objects: Objects) -> None:
    for item in objects:
        if item["kind"] in ("Deployment", "StatefulSet"):
            spreads = item["spec"]["template"]["spec"]["topologySpreadConstraints"]
            keys = [one["topologyKey"] for one in spreads]
            assert keys[-2:] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
            assert all(one["matchLabelKeys"] for one in spreads)
            assert "podAntiAffinity" in item["spec"]["template"]["spec"]["affinity"]


@pytest.mark.parametrize("tier", TIERS)
def test_the_network_lets_through_the_dependency_graph_and_no_more(tier: str, folders: dict[str, Path]) -> None:
    plan, policies = PLANS[tier], [item for item in manifests(folders[tier]) if item["kind"] == "NetworkPolicy"]
    graph = {(source, target) for source, targets in edges(plan).items() for target in targets}
    planned = {edge for edge in graph if not set(edge) & set(CLUSTERS_OWN)}

    assert _reached(policies, "ingress", "from") == planned
    assert _reached(policies, "egress", "to") == planned
    deny = named(policies, "NetworkPolicy", "acme-cfscale-deny")["spec"]
    assert (deny["policyTypes"], deny.keys() & {"ingress", "egress"}) == (["Ingress", "Egress"], set())


def _reached(policies: Objects, direction: str, peers: str) -> set[tuple[str, str]]:
    found = set()
    for item in policies:
        own = item["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for rule in item["spec"].get(direction, ()):
            for peer in rule.get(peers, ()):
                other = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
                if own and other and other != "test":
                    found.add((other, own) if direction == "ingress" else (own, other))
    return {edge for edge in found if not {"test", "password", "memory-join"} & set(edge)}


def test_a_changed_configuration_replaces_the_pods(folders: dict[str, Path]) -> None:
    name = "acme-cfscale-loadbalancer"
    sums = [
        named(manifests(folders["team"], *options), "Deployment", name)["spec"]["template"]["metadata"]["annotations"]
        for options in ((), ("--set", "balancing.connections=5000"))
    ]

    assert sums[0]["checksum/config"] != sums[1]["checksum/config"]


def test_no_secret_is_rendered_and_none_is_made_up_by_the_templates(folders: dict[str, Path], objects: Objects) -> None:
    text = "".join(path.read_text() for path in (folders["team"] / "templates").rglob("*") if path.is_file())

    assert [item for item in objects if item["kind"] == "Secret"] == []
    assert (
        re.findall(r"\b(lookup|rand\w+|genCA|genSigned\w+|genPrivateKey|now|uuidv4|htpasswd|bcrypt)\b +[\"$(]", text)
        == []
    )


def test_it_renders_the_same_bytes_each_time(folders: dict[str, Path]) -> None:
    first, second = (helm(4, "template", "acme", str(folders["enterprise"])).stdout for _ in range(2))

    assert first == second != ""


def test_images_can_be_mirrored_and_pinned(folders: dict[str, Path]) -> None:
    digest = "sha256:" + "a" * 64
    options = ("--set", "global.imageRegistry=mirror.example", "--set", f"services.queue.image.digest={digest}")
    images = {
        container["image"]
        for _, _, spec in pods(manifests(folders["team"], *options))
        for container in spec["containers"]
    }

    assert all(image.startswith("mirror.example/") for image in images)
    assert f"mirror.example/valkey/valkey@{digest}" in images


def test_metrics_are_scraped_every_ten_seconds(objects: Objects) -> None:
    monitors = [item for item in objects if item["kind"] in ("ServiceMonitor", "PodMonitor")]
    endpoints = [
        one for item in monitors for key in ("endpoints", "podMetricsEndpoints") for one in item["spec"].get(key, ())
    ]

    assert {one["interval"] for one in endpoints} <= {"10s"}


def test_the_dead_bands_of_the_hpa_are_the_founding_ones(folders: dict[str, Path]) -> None:
    for minor, tolerant in (("1.34", False), ("1.35", True)):
        hpa = named(manifests(folders["department"], minor=minor), "HorizontalPodAutoscaler", "acme-cfscale-agents")
        targets = {
            one["resource"]["name"]: one["resource"]["target"]["averageUtilization"] for one in hpa["spec"]["metrics"]
        }
        behavior = hpa["spec"]["behavior"]

        assert targets == {"cpu": 80, "memory": 85}
        assert [behavior[key].get("tolerance") for key in ("scaleUp", "scaleDown")] == (
            [0, 0.625] if tolerant else [None] * 2
        )
        assert behavior["scaleDown"]["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 300}]
    assert 80 * (1 - 0.625) == 30


def test_the_enterprise_scales_by_forecast_and_halves_after_ten_calm_minutes(enterprise: Objects) -> None:
    spec = named(enterprise, "ScaledObject", "acme-cfscale-agents")["spec"]
    advanced = spec["advanced"]

    assert (spec["pollingInterval"], [one["name"] for one in spec["triggers"]]) == (10, ["cpu", "memory", "forecast"])
    assert advanced["scalingModifiers"]["formula"] == (
        "max(cpu / 0.8, memory / 0.85, forecast / 0.7) > 1 || (cpu < 0.3 && memory < 0.4 && forecast < 0.3)"
        " ? max(cpu / 0.8, memory / 0.85, forecast / 0.7) : 1"
    )
    down = advanced["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 600
    assert down["policies"] == [{"type": "Percent", "value": 50, "periodSeconds": 600}]


@pytest.mark.parametrize(
    ("tier", "cron", "kept"), [("department", "0 0 */6 * * *", "90d"), ("enterprise", "0 0 * * * *", "2557d")]
)
def test_backups_follow_the_tier(tier: str, cron: str, kept: str, folders: dict[str, Path]) -> None:
    found = manifests(folders[tier], *BACKUP)

    assert named(found, "ScheduledBackup", "acme-cfscale-database")["spec"]["schedule"] == cron
    assert named(found, "ObjectStore", "acme-cfscale-database")["spec"]["retentionPolicy"] == kept
    assert named(found, "Cluster", "acme-cfscale-database")["spec"]["plugins"][0]["isWALArchiver"] is True


def test_pools_and_replication_of_the_database_are_the_plans(enterprise: Objects) -> None:
    cluster = named(enterprise, "Cluster", "acme-cfscale-database")["spec"]
    pooler = named(enterprise, "Pooler", "acme-cfscale-pooler")["spec"]
    database = PLANS["enterprise"].settings.database
    assert database is not None

    assert cluster["instances"] == 5
    assert cluster["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert cluster["postgresql"]["parameters"]["max_connections"] == str(database.max_connections)
    assert cluster["postgresql"]["parameters"]["pgaudit.log"] == "all, -misc"
    assert (
        pooler["pgbouncer"]["parameters"]["min_pool_size"],
        pooler["pgbouncer"]["parameters"]["max_db_connections"],
    ) == (
        "5",
        "100",
    )
    assert named(enterprise, "Pooler", "acme-cfscale-pooler-read")["spec"]["type"] == "ro"


@pytest.mark.parametrize(
    ("tier", "retention"),
    [("single-user", 86_400), ("team", 604_800), ("department", 2_592_000), ("enterprise", 31_536_000)],
)
def test_metrics_are_kept_as_long_as_the_tier_says(tier: str, retention: int, folders: dict[str, Path]) -> None:
    found = manifests(folders[tier], "--set", "monitoring.prometheus.enabled=true")

    assert named(found, "Prometheus", "acme-cfscale")["spec"]["retention"] == f"{retention}s"


def test_the_enterprise_is_not_exposed_without_single_sign_on_and_encryption(folders: dict[str, Path]) -> None:
    without = helm(4, "template", "acme", str(folders["enterprise"]), *EXPOSED)
    plain = helm(4, "template", "acme", str(folders["enterprise"]), *EXPOSED, *SSO)
    found = manifests(folders["enterprise"], *EXPOSED, *SSO, "--set", "exposure.ingress.tlsSecret=tls")

    assert "single sign-on" in without.stderr
    assert "encryption in transit" in plain.stderr
    backend = named(found, "Ingress", "acme-cfscale")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "acme-cfscale-sso", "port": {"number": 4180}}


def test_a_wrong_value_is_refused_by_the_schema(folders: dict[str, Path]) -> None:
    for wrong in (
        "services.agents.replica=3",
        "services.agnets.replicas=3",
        "autoscaling.engine=keta",
        "autoscalling.x=1",
    ):
        done = helm(4, "template", "acme", str(folders["team"]), "--set", wrong)
        assert done.returncode != 0, wrong
        assert "values don't meet the specifications of the schema" in done.stderr, wrong


def test_a_braced_text_of_the_plan_stays_as_it_is(tmp_path: Path) -> None:
    from msgspec.structs import replace

    plan = PLANS["team"]
    services = [
        replace(s, env={"TEXT": "{{ .Release.Name }} $HOME"}) if s.name == "agents" else s for s in plan.services
    ]
    found = manifests(chart(tmp_path, replace(plan, services=tuple(services))))
    env = named(found, "Deployment", "acme-cfscale-agents")["spec"]["template"]["spec"]["containers"][0]["env"]

    assert {"name": "TEXT", "value": "{{ .Release.Name }} $HOME"} in env


def test_more_manifests_may_be_added_and_are_filled_in(folders: dict[str, Path]) -> None:
    extra = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ .Release.Name }}-more"}}'
    found = manifests(folders["team"], "--set-json", f"extraObjects=[{extra}]")

    assert named(found, "ConfigMap", "acme-more")
