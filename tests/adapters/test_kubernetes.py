"""The engine on an API server that only pretends: what it asks, what it makes of the answers, and what it refuses."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfscale.adapters.kubernetes import Cluster, KubernetesEngine
from cfscale.core.samples import Quality, Replica, ReplicaState
from cfscale.errors import ActionError, UnavailableError
from tests.adapters.fake_cluster import COST, FakeCluster, pod, served
from tests.helm.lab import PLANS

PLAN = PLANS["single-user"]
AGENTS = PLAN.service("agents")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    cluster = FakeCluster()
    with served(cluster, tmp_path) as path:
        monkeypatch.setenv("KUBECONFIG", str(path))
        yield cluster


@pytest.fixture
def engine(fake: FakeCluster, tmp_path: Path) -> KubernetesEngine:
    return KubernetesEngine(PLAN, tmp_path, Cluster())


def test_the_lock_is_keyed_on_cluster_namespace_and_release(engine: KubernetesEngine) -> None:
    assert engine.target == "kubernetes:of-the-cluster:work/acme"
    assert engine.name == "kubernetes"


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ({}, ReplicaState.READY, ""),
        ({"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": []}, ReplicaState.UNHEALTHY, ""),
        ({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}, ReplicaState.STARTING, "0/3 nodes"),
        ({"conditions": [], "containerStatuses": [
            {"name": "agents", "image": "a", "imageID": "", "ready": False, "started": False, "restartCount": 3,
             "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}, ReplicaState.STARTING, "CrashLoopBackOff"),
        ({"phase": "Failed", "reason": "Evicted"}, ReplicaState.STOPPED, "Evicted"),
    ],
    ids=["ready", "not ready", "not placed", "crashing", "evicted"],
)  # fmt: skip
def test_a_pod_is_in_the_state_that_its_conditions_say_and_tells_why(
    status: dict[str, object], state: ReplicaState, reason: str, fake: FakeCluster, engine: KubernetesEngine
) -> None:
    fake.kinds["pods"] = {"one": pod("one", **status)}
    (found,) = engine.replicas()

    assert (found.service, found.state, found.reason) == ("agents", state, reason)
    assert found.address == f"10.0.0.1:{AGENTS.port}"


def test_a_pod_on_its_way_out_is_draining_and_one_of_no_service_is_not_ours(
    fake: FakeCluster, engine: KubernetesEngine
) -> None:
    leaving, other = pod("leaving"), pod("other")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    other["metadata"]["labels"] = {"app.kubernetes.io/instance": "acme"}
    fake.kinds["pods"] = {"leaving": leaving, "other": other}

    assert [(one.name, one.state) for one in engine.replicas()] == [("leaving", ReplicaState.DRAINING)]


def test_usage_is_that_of_the_metrics_api_against_what_a_pod_may_take(
    fake: FakeCluster, engine: KubernetesEngine
) -> None:
    replicas = engine.replicas()[:2]
    fake.metrics = {
        name: {
            "metadata": {"name": name, "labels": pod(name)["metadata"]["labels"]},
            "timestamp": "2026-01-01T00:00:10Z",
            "window": "1m15s",
            "containers": [{"name": "agents", "usage": {"cpu": "250000000n", "memory": "512Mi"}}],
        }
        for name in ("agents-a", "agents-c", "agents-gone")
    }
    (found,) = engine.usage(replicas)  # of c nobody asked, b has no sample yet, and one has gone

    assert (found.replica, found.cpu_cores, found.memory_bytes) == ("agents-a", 0.25, 512 * 2**20)
    assert (found.cpu_limit_cores, found.memory_limit_bytes) == (0.5, 2**30)
    assert (found.window_seconds, found.quality) == (75.0, Quality.OK)


def test_without_a_metrics_api_nobody_can_tell(engine: KubernetesEngine) -> None:
    with pytest.raises(UnavailableError, match="install metrics-server"):
        engine.usage(engine.replicas())


def test_a_count_grows_to_as_many_pods(fake: FakeCluster, engine: KubernetesEngine) -> None:
    engine.grow(AGENTS, 5)

    assert len(fake.kinds["pods"]) == 5


def test_those_go_that_were_chosen(fake: FakeCluster, engine: KubernetesEngine) -> None:
    victims = [one for one in engine.replicas() if one.name in ("agents-a", "agents-c")]
    engine.shrink(AGENTS, 1, victims)

    assert list(fake.kinds["pods"]) == ["agents-b"]


def test_it_is_an_error_when_others_go_than_were_chosen(fake: FakeCluster, engine: KubernetesEngine) -> None:
    fake.kinds["pods"]["agents-b"]["metadata"]["annotations"] = {COST: "-99"}

    with pytest.raises(ActionError, match="agents-a did not go, others went"):
        engine.shrink(AGENTS, 2, [one for one in engine.replicas() if one.name == "agents-a"])


def _hpa(fake: FakeCluster) -> None:
    target = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "acme-cfscale-agents"}}
    spec = {**target, "maxReplicas": 5}
    fake.kinds["horizontalpodautoscalers"]["keda-hpa"] = {"metadata": {"name": "keda-hpa"}, "spec": spec}


def _keda(fake: FakeCluster) -> None:
    _hpa(fake)  # KEDA makes one, and is in charge
    spec = {"scaleTargetRef": {"name": "acme-cfscale-agents"}}
    fake.kinds["scaledobjects"] = {"agents": {"metadata": {"name": "agents"}, "spec": spec}}


@pytest.mark.parametrize(
    ("make", "owner"), [(_hpa, "HorizontalPodAutoscaler keda-hpa"), (_keda, "ScaledObject agents")]
)
def test_what_an_autoscaler_owns_is_left_to_it(
    make: Callable[[FakeCluster], None], owner: str, fake: FakeCluster, engine: KubernetesEngine
) -> None:
    make(fake)
    with pytest.raises(ActionError, match=f"agents is scaled by the cluster's {owner}"):
        engine.grow(AGENTS, 5)
    with pytest.raises(ActionError, match=f"agents is scaled by the cluster's {owner}"):
        engine.shrink(AGENTS, 1, engine.replicas()[:2])

    assert len(fake.kinds["pods"]) == 3
    assert engine.owner("agents") == f"the cluster's {owner}"


def test_an_autoscaler_of_another_target_is_none_of_ours(fake: FakeCluster, engine: KubernetesEngine) -> None:
    _hpa(fake)
    fake.kinds["horizontalpodautoscalers"]["keda-hpa"]["spec"]["scaleTargetRef"]["name"] = "other"

    assert engine.owner("agents") is None


def test_a_service_that_is_not_there_is_named(engine: KubernetesEngine) -> None:
    with pytest.raises(UnavailableError, match="nothing of queue is in namespace work"):
        engine.owner("queue")


def test_what_is_forbidden_cannot_be_told_and_what_is_refused_has_failed(
    fake: FakeCluster, engine: KubernetesEngine
) -> None:
    fake.refuses = {"pods": 403}
    with pytest.raises(UnavailableError, match="the cluster forbids it: pods are not for you"):
        engine.replicas()
    fake.refuses = {"pods": 500}
    with pytest.raises(ActionError, match="the cluster refused: pods are not for you"):
        engine.replicas()


def test_a_server_that_is_busy_is_asked_again(fake: FakeCluster, engine: KubernetesEngine) -> None:
    fake.busy = 2

    assert len(engine.replicas()) == 3
    assert fake.busy == 0


def test_a_victim_that_has_gone_meanwhile_is_no_error(fake: FakeCluster, engine: KubernetesEngine) -> None:
    gone = Replica("agents-gone", "agents-gone", "agents", ReplicaState.READY, 0.0)
    (first,) = [one for one in engine.replicas() if one.name == "agents-a"]
    engine.shrink(AGENTS, 2, [gone, first])

    assert "agents-a" not in fake.kinds["pods"]


def test_no_cluster_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeCluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = (tmp_path / "kubeconfig").read_text()
    address = next(part for part in config.split('"') if part.startswith("http://127.0.0.1:"))
    (tmp_path / "kubeconfig").write_text(config.replace(address, f"http://127.0.0.1:{port}"))
    with pytest.raises(UnavailableError, match="the cluster does not answer"):
        Cluster().identity()
    for broken in ("{}", "a: [", "[1]", "clusters: 7"):
        (tmp_path / "kubeconfig").write_text(broken)
        with pytest.raises(UnavailableError, match="no cluster: the kubeconfig cannot be read"):
            Cluster()
    (tmp_path / "kubeconfig").write_text("{clusters: [], contexts: [], users: []}")
    with pytest.raises(UnavailableError, match="no cluster"):
        Cluster()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match=r"no cluster: .*choose a"):
        Cluster()


@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a helm on the path that does as a script says; what it was told lies in the file that is returned."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()

    def script(text: str) -> Path:
        (tmp_path / "bin" / "helm").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n{text}\n')
        (tmp_path / "bin" / "helm").chmod(0o755)
        return tmp_path / "told"

    return script


def test_it_installs_with_the_counts_of_the_moment_and_no_others(
    engine: KubernetesEngine, helm: Callable[[str], Path], tmp_path: Path
) -> None:
    told = helm("exit 0")
    with pytest.raises(ActionError, match=r"Chart\.yaml is missing: run 'cfscale up'"):
        engine.up({})
    (tmp_path / "Chart.yaml").write_text("")
    engine.up({"agents": 3, "queue": 1})

    assert told.read_text() == (
        f"upgrade --namespace=work --install --wait --timeout=1800s --set=services.agents.replicas=3 acme {tmp_path}\n"
    )


def test_what_helm_says_last_is_the_reason(
    engine: KubernetesEngine, helm: Callable[[str], Path], tmp_path: Path
) -> None:
    helm("echo pulling; echo 'Error: no room'; exit 1")
    (tmp_path / "Chart.yaml").write_text("")

    with pytest.raises(ActionError, match="helm upgrade failed: Error: no room"):
        engine.up({})


def test_volumes_are_kept_unless_they_are_to_go_and_pods_are_waited_for(
    fake: FakeCluster, engine: KubernetesEngine, helm: Callable[[str], Path]
) -> None:
    told = helm("exit 0")
    fake.kinds["pods"] = {}
    engine.down(volumes=False)
    assert list(fake.kinds["persistentvolumeclaims"]) == ["data"]
    engine.down(volumes=True)

    assert fake.kinds["persistentvolumeclaims"] == {}
    assert (
        told.read_text().splitlines()
        == ["uninstall --namespace=work --ignore-not-found --wait --timeout=600s acme"] * 2
    )
