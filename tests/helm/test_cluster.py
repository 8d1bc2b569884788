"""The chart and the engine against a real API server with its controllers; its nodes only say that they run pods."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.render.helm.fill import carried, copies
from tests.conftest import Result
from tests.helm.cluster import Lab, control_plane
from tests.helm.lab import HOME, PLANS, TIERS, chart

pytestmark = pytest.mark.cluster

METRICS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "PodMetrics", "plural": "pods", "singular": "pod"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
OWN = Path("own.yaml")  # values of the operator's own, over those of the plan
PROFILE = """
name: acme
users: 4
agents: 20
tasks: 20
scaling:
  scale_up: {stabilization_window: 0s, cooldown: 1s}
  scale_down: {stabilization_window: 0s, cooldown: 1s}
  services: {agents: {min: 1, max: 5}}
"""


class Cluster(Struct, frozen=True):
    """The lab, and what helm said of it before there were operators."""

    lab: Lab
    bare: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with control_plane(tmp_path_factory.mktemp("lab")) as lab:
        folder = chart(tmp_path_factory.mktemp("team"), PLANS["team"])
        refused = lab.helm(4, "install", "acme", str(folder), "--namespace", lab.namespace("bare"), "--dry-run=server")
        lab.operators()
        lab.volumes(80)
        yield Cluster(lab, refused.stderr)


def test_a_missing_operator_is_named_with_the_command_that_installs_it(cluster: Cluster) -> None:
    assert "postgresql.cnpg.io/v1" in cluster.bare
    assert "helm upgrade --install cnpg cloudnative-pg --repo" in cluster.bare


def warnings(said: str) -> list[str]:
    """What the server warned of; that a watch which helm itself ended has ended is its client's own news."""
    return [line for line in said.splitlines() if "Warning" in line and "watch ended with error" not in line]


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_installs_where_only_restricted_pods_are_let_in(
    tier: str, major: int, cluster: Cluster, tmp_path: Path
) -> None:
    lab, namespace = cluster.lab, cluster.lab.namespace(f"{tier}-{major}")
    folder = chart(tmp_path, PLANS[tier])
    where = ("--namespace", namespace)

    done = lab.helm(major, "install", "acme", str(folder), *where, "--wait", "--timeout", "150s")
    assert done.returncode == 0, done.stderr
    assert warnings(done.stderr) == []  # the server warns of pods that are not restricted, and of unknown fields
    running, wanted = counts(lab, namespace), workloads(PLANS[tier])
    assert running.keys() == wanted.keys()
    assert {name: count for name, count in running.items() if not wanted[name].scaled} == {
        name: copies(service)[0] for name, service in wanted.items() if not service.scaled
    }
    assert 1 <= running["agents"] <= wanted["agents"].max_replicas
    assert lab.helm(major, "test", "acme", *where, "--timeout", "60s").returncode == 0

    changed = ("--set", "availability.minReadySeconds=1", "--set", "commonLabels.team=a")
    again = lab.helm(major, "upgrade", "acme", str(folder), *where, *changed, "--wait", "--timeout", "150s")
    assert again.returncode == 0, again.stderr
    assert warnings(again.stderr) == []
    items = json.loads(lab.kubectl("get", "deployments,statefulsets", *where, "-o", "json"))["items"]
    assert {(item["spec"]["minReadySeconds"], item["metadata"]["labels"]["team"]) for item in items} == {(1, "a")}

    gone = lab.helm(major, "uninstall", "acme", *where, "--wait", "--timeout", "150s")
    assert gone.returncode == 0, gone.stderr

    kept = json.loads(lab.kubectl("get", "pvc", *where, "-o", "json"))["items"]
    assert {claim["status"]["phase"] for claim in kept} == {"Bound"}
    # pods have their time to end
    lab.kubectl("wait", "--for=delete", "pods", "--all", *where, "--timeout=50s")
    left = lab.kubectl("get", "all,ingress,networkpolicy,configmap,cluster,pooler,scaledobject", *where, "-o", "name")
    assert left.split() == ["configmap/kube-root-ca.crt"]


def counts(lab: Lab, namespace: str) -> dict[str, int]:
    """Ready replicas of every workload, as its controller counts them."""
    found = json.loads(lab.kubectl("get", "deployments,statefulsets", f"--namespace={namespace}", "-o", "json"))
    names = {item["metadata"]["name"].removeprefix("acme-cfscale-"): item for item in found["items"]}
    return {name: item["status"].get("readyReplicas", 0) for name, item in names.items()}


def workloads(plan: DeploymentPlan) -> dict[str, Service]:
    """What the chart starts of a plan, without what operators run: they are not there."""
    kept = [service for service in plan.services if carried(service) and service.name not in ("database", "pooler")]
    return {service.name: service for service in kept}


@pytest.fixture
def deployed(
    cluster: Cluster, cfscale: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    """cfscale on the lab, scaling by itself, with usage that the test states."""
    lab = cluster.lab
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").symlink_to(HOME / "helm4")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    lab.kubectl("apply", "-f", "-", text=json.dumps(METRICS))
    lab.kubectl("wait", "--for=condition=Established", "crd/pods.metrics.k8s.io", "--timeout=30s")
    (tmp_path / "acme.yaml").write_text(PROFILE)
    monkeypatch.setenv("CFSCALE_HELM_VALUES", str(tmp_path / OWN))
    yield lambda *words: cfscale(*words, "acme.yaml", "--engine", "kubernetes")
    lab.helm(4, "uninstall", "acme", "--ignore-not-found", "--wait")


def pods(lab: Lab) -> dict[str, dict[str, dict[str, str]]]:
    selector = "app.kubernetes.io/instance=acme,app.kubernetes.io/component=agents"
    found = json.loads(lab.kubectl("get", "pods", "--selector", selector, "-o", "json"))["items"]
    return {item["metadata"]["name"]: item for item in found if "deletionTimestamp" not in item["metadata"]}


def use(lab: Lab, cores: dict[str, str]) -> None:
    """State what each pod uses, as metrics-server would."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, cpu in cores.items():
        usage = [{"name": "agents", "usage": {"cpu": cpu, "memory": "64Mi"}}]
        labels = {"app.kubernetes.io/instance": "acme"}
        item = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "timestamp": now, "window": "15s"}
        made = {**item, "metadata": {"name": name, "labels": labels}, "containers": usage}
        lab.kubectl("apply", "-f", "-", text=json.dumps(made))


def decision(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(("engine", "owner"), [("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")])
def test_a_count_that_an_autoscaler_of_the_cluster_owns_is_left_to_it(
    engine: str, owner: str, cluster: Cluster, deployed: Callable[..., Result]
) -> None:
    OWN.write_text(f"autoscaling: {{engine: {engine}}}\n")
    up = deployed("up")
    assert up.code == 0, up.stderr

    refused = deployed("scale", "--apply")
    assert refused.code == 1
    assert f"scaled by the cluster's {owner} acme-cfscale-agents" in refused.stderr
    assert deployed("status").code == 0
    assert deployed("down").code == 0
    assert pods(cluster.lab) == {}


def test_cfscale_grows_and_shrinks_by_the_scale_subresource_and_chooses_who_goes(
    cluster: Cluster, deployed: Callable[..., Result]
) -> None:
    lab = cluster.lab
    OWN.write_text("autoscaling: {engine: none}\n")
    up = deployed("up")
    assert up.code == 0, up.stderr
    before = pods(lab)

    use(lab, dict.fromkeys(before, "5"))
    grown = decision(deployed("scale", "--apply", "-o", "json"))
    assert (grown["action"], grown["applied"]) == ("scale_up", True), grown
    after = pods(lab)
    assert len(after) == grown["desired"] > len(before)
    assert before.keys() < after.keys()
    lab.kubectl(
        "wait", "--for=condition=Ready", "pod", "--selector=app.kubernetes.io/component=agents", "--timeout=60s"
    )

    busiest, *others = sorted(after)
    use(lab, {busiest: "200m", **dict.fromkeys(others, "1m")})
    shrunk = decision(deployed("scale", "--apply", "-o", "json"))
    assert (shrunk["action"], shrunk["applied"]) == ("scale_down", True), shrunk
    assert busiest in pods(lab)
    assert len(pods(lab)) == shrunk["desired"] < len(after)

    assert deployed("down").code == 0
    assert lab.kubectl("get", "pvc", "-o", "name").strip() != ""
    assert deployed("down", "--volumes", "--yes").code == 0
    lab.kubectl("wait", "--for=delete", "pvc", "--selector=app.kubernetes.io/instance=acme", "--timeout=30s")
