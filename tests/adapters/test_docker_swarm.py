from collections.abc import Iterator
from pathlib import Path

import pytest

from cfscale.adapters.docker_engine.swarm import DockerSwarm
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import UnavailableError
from tests.adapters.fake_docker import ID, Answer, details, json_answer, not_found, serving

TASK_ID = "t0123456789abcdef"
PORTS = {"agents": 8080}
MANAGER = {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True, "Cluster": {"ID": "cluster"}}}
TEMPLATE = {"ContainerSpec": {"Image": "acme/agents:1"}, "Resources": {"Limits": {"Pids": 9}}, "Runtime": "container"}
SERVICE = {
    "ID": "s1",
    "Spec": {"Name": "acme_agents", "TaskTemplate": TEMPLATE, "Mode": {"Replicated": {"Replicas": 2}}},
    "UpdateStatus": {"State": "completed", "StartedAt": "then", "Message": "update completed"},
}


def task(state: str = "running", desired: str = "running", **more: object) -> dict[str, object]:
    return {
        "ID": TASK_ID,
        "ServiceID": "s1",
        "Slot": 1,
        "DesiredState": desired,
        "Spec": {name: TEMPLATE[name] for name in ("ContainerSpec", "Resources")},
        "Status": {
            "Timestamp": "2026-11-23T22:41:25.465282195Z",
            "State": state,
            "ContainerStatus": {"ContainerID": ID},
            "Err": more.pop("err", ""),
        },
        **more,
    }


def container(state: str = "running") -> dict[str, object]:
    return {
        "Id": ID,
        "Names": ["/acme_agents.1.t0"],
        "Created": 1_700_000_000,
        "State": state,
        "Status": "Up 2 seconds (healthy)",
        "Labels": {"com.docker.stack.namespace": "acme"},
        "NetworkSettings": {"Networks": {"acme_app": {"EndpointID": "e", "IPAddress": "10.0.2.5"}}},
    }


def answers(*tasks: object, containers: object = (), bridge: Answer = not_found) -> dict[str, Answer]:
    return {
        "/services": json_answer([SERVICE]),
        "/tasks": json_answer(tasks),
        "/containers/json": json_answer(containers),
        f"{ID}/json": json_answer(details()),
        "/networks/docker_gwbridge": bridge,
        "/info": json_answer(MANAGER),
    }


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return path


@pytest.fixture
def engine() -> Iterator[DockerSwarm]:
    engine = DockerSwarm(timeout_seconds=2.0)
    yield engine
    engine.close()


def only(engine: DockerSwarm) -> Replica:
    (replica,) = engine.tasks("acme", PORTS)
    return replica


def test_a_task_of_this_node_is_a_replica_with_an_address_that_is_reached_from_here(
    path: Path, engine: DockerSwarm
) -> None:
    bridge = json_answer({"Containers": {ID: {"IPv4Address": "172.18.0.7/16"}, "ingress-sbox": {"IPv4Address": "x"}}})
    with serving(path, answers(task(), containers=[container()], bridge=bridge)):
        replica = only(engine)

    assert (replica.id, replica.name, replica.service) == (ID, f"acme_agents.1.{TASK_ID[:12]}", "agents")
    assert (replica.state, replica.address, replica.pid) == (ReplicaState.READY, "172.18.0.7:8080", 4242)


def test_of_a_task_on_another_node_its_state_is_all_there_is(path: Path, engine: DockerSwarm) -> None:
    with serving(path, answers(task())):
        replica = only(engine)

    assert (replica.state, replica.address, replica.pid, replica.vouched) == (ReplicaState.READY, None, None, True)


def test_a_node_without_a_bridge_gives_no_addresses(path: Path, engine: DockerSwarm) -> None:
    with serving(path, answers(task(), containers=[container()])):
        assert only(engine).address is None


@pytest.mark.parametrize(
    ("state", "desired", "seen"),
    [
        ("pending", "running", ReplicaState.STARTING),
        ("preparing", "ready", ReplicaState.STARTING),
        ("starting", "running", ReplicaState.STARTING),
        ("running", "running", ReplicaState.READY),
        ("running", "shutdown", ReplicaState.DRAINING),
        ("running", "remove", ReplicaState.DRAINING),
    ],
)
def test_the_state_is_the_manager_s(
    state: str, desired: str, seen: ReplicaState, path: Path, engine: DockerSwarm
) -> None:
    with serving(path, answers(task(state, desired))):
        assert only(engine).state is seen


def test_a_paused_container_is_paused_whatever_the_manager_thinks(path: Path, engine: DockerSwarm) -> None:
    with serving(path, answers(task(), containers=[container("paused")])):
        assert only(engine).state is ReplicaState.PAUSED


def test_tries_that_ended_are_no_replicas_but_count_as_restarts(path: Path, engine: DockerSwarm) -> None:
    ended = [task("failed", "shutdown", ID=f"old{number}") for number in range(2)]
    with serving(path, answers(*ended, task())):
        assert only(engine).restarts == 2


def test_why_a_task_does_not_run_is_its_reason(path: Path, engine: DockerSwarm) -> None:
    with serving(path, answers(task("pending", err="no suitable node\x1b[31m (insufficient resources on 1 node)"))):
        reason = only(engine).reason

    assert reason == "no suitable node[31m (insufficient resources on 1 node)"


def test_of_a_long_trouble_the_step_and_the_end_are_kept(path: Path, engine: DockerSwarm) -> None:
    long = f"starting container failed: {'endpoint join on network ' * 20}: bind: address already in use"
    with serving(path, answers(task("failed", "shutdown", err=long))):
        (one,) = engine.services("acme")["agents"].tasks

    assert one.refused
    assert one.trouble.startswith("starting container failed: ...")
    assert one.trouble.endswith("bind: address already in use")
    assert len(one.trouble) < 200


def test_a_task_of_the_old_definition_is_told_from_one_of_the_new(path: Path, engine: DockerSwarm) -> None:
    old = task(Spec={"ContainerSpec": {"Image": "acme/agents:0"}, "Resources": TEMPLATE["Resources"]}, ID="old")
    with serving(path, answers(task(), old)):
        service = engine.services("acme")["agents"]

    assert [one.current for one in service.tasks] == [True, False]
    assert (service.replicas, service.update.state, service.update.started) == (2, "completed", "then")


@pytest.mark.parametrize(
    ("swarm", "said"),
    [
        ({"LocalNodeState": "inactive"}, r"in no swarm \(inactive\): run 'docker swarm init'"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "is a worker: .*point DOCKER_HOST at a manager"),
        (None, "in no swarm"),
    ],
    ids=["inactive", "worker", "unknown"],
)
def test_an_engine_that_is_no_manager_is_said_with_its_remedy(
    swarm: object, said: str, path: Path, engine: DockerSwarm
) -> None:
    with serving(path, {"/info": json_answer({"Swarm": swarm})}), pytest.raises(UnavailableError, match=said):
        engine.cluster()


def test_a_manager_names_its_swarm(path: Path, engine: DockerSwarm) -> None:
    with serving(path, answers()):
        assert engine.cluster() == "cluster"


def test_only_nodes_that_take_tasks_count(path: Path, engine: DockerSwarm) -> None:
    def node(name: str, availability: str, state: str) -> dict[str, object]:
        return {"ID": name, "Spec": {"Availability": availability, "Labels": {"zone": "a"}}, "Status": {"State": state}}

    nodes = [node("good", "active", "ready"), node("drained", "drain", "ready"), node("gone", "active", "down")]
    with serving(path, {"/nodes": json_answer(nodes)}):
        assert engine.nodes() == {"good": frozenset({"zone"})}


def test_half_an_answer_is_no_state(path: Path, engine: DockerSwarm) -> None:
    with serving(path, {**answers(), "/tasks": json_answer([{"ID": "x"}])}), pytest.raises(UnavailableError):
        engine.services("acme")
