"""The swarm engine against a manager of a few lines; against a real one it is tested end to end."""
# ruff: noqa: ARG002 - the fake has one stack, whatever it is asked for

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from cfscale.adapters import swarm
from cfscale.adapters.swarm import SwarmEngine
from cfscale.core.plan import DeploymentPlan
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.sizing import size
from cfscale.core.stack import Patience, StackService, Task, Update
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import ActionError, UnavailableError


class FakeManager:
    """A stack that does what is scripted: ``command`` tells it what the client was run with."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.problem: UnavailableError | None = None
        self.refuses: tuple[str, str] | None = None  # a service whose tasks are rejected, and why
        self.homeless: tuple[str, str] | None = None  # one whose further tasks find no place, and why
        self.update = Update()
        self.labels: dict[str, frozenset[str]] = {"n1": frozenset()}
        self.remains: tuple[str, ...] = ()
        self.volumes_removed = self.cleaned = 0
        self.listed: tuple[Replica, ...] = ()

    def cluster(self) -> str:
        if self.problem:
            raise self.problem
        return "CLUSTER"

    def services(self, stack: str) -> dict[str, StackService]:
        return {name: self._service(name, count) for name, count in self.counts.items()}

    def _service(self, name: str, count: int) -> StackService:
        if self.refuses and self.refuses[0] == name:
            ended = (
                Task(f"{name}-{n}", 1, "rejected", "shutdown", float(n), trouble=self.refuses[1]) for n in range(3)
            )
            return StackService(name, count, tuple(ended), self.update)
        tasks = [Task(f"{name}-{n}", n, "running", "running", 0.0, container="c") for n in range(count)]
        if self.homeless and self.homeless[0] == name and count > 2:
            tasks[2:] = [replace(one, state="pending", container="", trouble=self.homeless[1]) for one in tasks[2:]]
        return StackService(name, count, tuple(tasks), self.update)

    def tasks(self, stack: str, ports: Mapping[str, int]) -> tuple[Replica, ...]:
        return self.listed

    def nodes(self) -> dict[str, frozenset[str]]:
        return self.labels

    def label(self, node: str, label: str, value: str | None) -> None:
        self.labels[node] = self.labels[node] - {label} if value is None else self.labels[node] | {label}

    def left(self, stack: str, *, volumes: bool) -> tuple[str, ...]:
        return self.remains

    def remove_volumes(self, stack: str) -> None:
        self.volumes_removed += 1

    def drop_unused(self, stack: str) -> None:
        self.cleaned += 1


@pytest.fixture
def planned(catalogue: Catalogue) -> DeploymentPlan:
    return size(Profile(name="acme", users=6, agents=10, tasks=10), catalogue)


@pytest.fixture
def manager() -> FakeManager:
    return FakeManager()


Client = Callable[[str], Path]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Puts a ``docker`` of a few shell lines on the PATH; its words, and the counts it is given, are kept in files."""

    def write(body: str) -> Path:
        script, said = tmp_path / "bin" / "docker", tmp_path / "said"
        script.parent.mkdir(exist_ok=True)
        keep = f'for word; do echo "$word" >> {said}; case "$word" in */cfscale-*.yaml) cat "$word" > {tmp_path}/counts;; esac; done'
        script.write_text(f'#!/bin/sh\n{keep}\necho "$CFSCALE_SECRETS" > {tmp_path}/checksum\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        (tmp_path / "stack.yaml").write_text("services: {}\n")
        return said

    return write


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "_PATIENCE", Patience(placing_seconds=0.0, most_refused=2, most_failed=5))
    for name in ("_UP_SECONDS", "_GROW_SECONDS", "_DOWN_SECONDS"):
        monkeypatch.setattr(swarm, name, 0.3)


def test_the_target_is_the_swarm_and_the_stack(planned: DeploymentPlan, manager: FakeManager, tmp_path: Path) -> None:
    engine = SwarmEngine(planned, tmp_path, manager)

    assert (engine.name, engine.target, engine.nodes) == ("swarm", "swarm:CLUSTER:acme", 1)


def test_up_deploys_the_manifest_with_the_live_counts_beside_it(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("echo Creating service acme_agents; echo 'Since --detach=false was not specified'")
    manager.counts = dict.fromkeys(planned.parts, 1) | {
        "agents": 5,
        "coordinator": 2,
        "pooler": 2,
        "loadbalancer": 1,
    }
    lines: list[str] = []
    SwarmEngine(planned, tmp_path, manager, progress=lines.append).up({"agents": 5, "loadbalancer": 1})
    words = said.read_text().split()
    counts = json.loads((tmp_path / "counts").read_text())["services"]

    assert words[:4] == ["stack", "deploy", "--prune", "--with-registry-auth"]
    assert words[5] == str(tmp_path / "stack.yaml")
    assert words[-1] == "acme"
    assert counts["agents"] == {"deploy": {"replicas": 5}}
    assert counts["queue-2"] == {"deploy": {"replicas": 1}}
    assert counts.keys() == planned.parts.keys()
    assert manager.cleaned == 1
    assert lines[-1] == "Creating service acme_agents"


def test_what_keeps_data_gets_a_node_once(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    client("true")
    manager.counts = {name: 1 if service.members else service.replicas for name, service in planned.parts.items()}
    manager.labels = {"n1": frozenset({"cfscale.acme.queue-1"}), "n2": frozenset()}
    SwarmEngine(planned, tmp_path, manager).up({})
    first = dict(manager.labels)
    SwarmEngine(planned, tmp_path, manager).up({})

    assert manager.labels == first
    assert "cfscale.acme.queue-1" not in first["n2"]
    assert abs(len(first["n1"]) - len(first["n2"])) <= 1


def test_another_secret_is_another_checksum_and_an_operator_s_file_is_none(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    client("true")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    manager.counts, found = {"agents": 0}, []
    for name, text in (("queue_password", "a"), ("agents.env", "KEY=1"), ("queue_password", "b")):
        (secrets / name).write_text(text)
        SwarmEngine(planned, tmp_path, manager).grow(planned.service("agents"), 0)
        found.append((tmp_path / "checksum").read_text())

    assert found[0] == found[1] != found[2]


def test_without_a_manifest_nothing_is_deployed(planned: DeploymentPlan, manager: FakeManager, tmp_path: Path) -> None:
    with pytest.raises(ActionError, match=r"stack\.yaml is missing: run 'cfscale up'"):
        SwarmEngine(planned, tmp_path, manager).up({})


def test_a_first_start_that_cannot_be_had_leaves_nothing(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("true")
    manager.refuses = ("agents", "No such image: acme/agents:1")
    engine = SwarmEngine(planned, tmp_path, manager)
    before = manager.services
    manager.services = lambda stack: {} if not said.exists() else before(stack)  # type: ignore[method-assign]
    manager.counts = {"agents": 3}

    with pytest.raises(
        ActionError, match=r"^agents: 0 of 3 replicas run: No such image: acme/agents:1; nothing was left running$"
    ):
        engine.up({"agents": 3})
    assert said.read_text().split()[-3:] == ["stack", "rm", "acme"]


def test_an_update_that_was_taken_back_leaves_what_runs(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("true")
    manager.counts = {name: 1 if service.members else service.replicas for name, service in planned.parts.items()}
    before = manager.services
    manager.services = lambda stack: {  # type: ignore[method-assign]
        name: replace(one, update=Update("rollback_completed", "now", "rolled back")) if said.exists() else one
        for name, one in before(stack).items()
    }

    with pytest.raises(ActionError, match=r"the update was taken back: rolled back: see 'docker stack ps acme'$"):
        SwarmEngine(planned, tmp_path, manager).up({})
    assert "rm" not in said.read_text().split()


@pytest.mark.parametrize("verb", ["deploy", "scale"])
def test_what_the_client_refuses_is_said_in_one_line(
    verb: str, planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    client("echo noise; echo 'Error response from daemon: no' >&2; exit 1")
    engine = SwarmEngine(planned, tmp_path, manager)

    with pytest.raises(ActionError, match=rf"^docker \w+ {verb} failed: Error response from daemon: no$"):
        engine.up({}) if verb == "deploy" else engine.grow(planned.service("agents"), 2)


def test_a_count_that_finds_no_place_is_taken_back_to_what_runs(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("true")
    manager.counts, manager.homeless = {"agents": 6}, ("agents", "no suitable node (insufficient resources on 1 node)")

    with pytest.raises(ActionError, match=r"^agents: 2 of 6 replicas run: no suitable node \(insufficient.*; 2 stay$"):
        SwarmEngine(planned, tmp_path, manager).grow(planned.service("agents"), 6)
    assert [word for word in said.read_text().split() if "=" in word] == ["acme_agents=6", "acme_agents=2"]


def test_a_shrink_is_an_absolute_count_and_waits_until_they_are_gone(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("true")
    manager.counts = {"agents": 2}
    SwarmEngine(planned, tmp_path, manager).shrink(planned.service("agents"), 2, ())

    assert said.read_text().split() == ["service", "scale", "--detach", "acme_agents=2"]


def test_down_keeps_volumes_and_labels_unless_told_otherwise(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    client("true")
    manager.labels = {"n1": frozenset({"cfscale.acme.queue-1", "zone"})}
    engine = SwarmEngine(planned, tmp_path, manager)
    engine.down(volumes=False)
    kept, removed = sorted(manager.labels["n1"]), manager.volumes_removed
    engine.down(volumes=True)

    assert (kept, removed) == (["cfscale.acme.queue-1", "zone"], 0)
    assert (sorted(manager.labels["n1"]), manager.volumes_removed) == (["zone"], 1)


def test_what_does_not_go_is_named(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client("true")
    manager.remains = ("network acme_app",)
    light = replace(planned, services=tuple(replace(one, stop_grace_seconds=0.0) for one in planned.services))

    with pytest.raises(ActionError, match="docker stack rm left network acme_app"):
        SwarmEngine(light, tmp_path, manager).down(volumes=False)


def test_fault_2_an_engine_that_does_not_answer_is_found_out_before_the_client_is_run(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    said = client("sleep 60")
    manager.problem = UnavailableError("the Docker engine does not answer in time")
    engine = SwarmEngine(planned, tmp_path, manager)

    for act in (engine.replicas, lambda: engine.down(volumes=False)):
        with pytest.raises(UnavailableError):
            act()
    assert not said.exists()


def test_a_member_is_a_replica_of_what_it_is_of(planned: DeploymentPlan, manager: FakeManager, tmp_path: Path) -> None:
    manager.listed = (Replica("1", "acme_queue-2.1.x", "queue-2", ReplicaState.READY, 0.0),)

    assert [one.service for one in SwarmEngine(planned, tmp_path, manager).replicas()] == ["queue"]


def test_a_paused_task_has_no_usage_and_each_reader_is_asked_for_the_rest(
    planned: DeploymentPlan, manager: FakeManager, tmp_path: Path
) -> None:
    def reader(known: str) -> Callable[[Sequence[Replica]], tuple[Usage, ...]]:
        def read(replicas: Sequence[Replica]) -> tuple[Usage, ...]:
            asked.append([one.id for one in replicas])
            return tuple(Usage(one.id, "x", 0.0, 1.0, Quality.OK, 0.0, 0) for one in replicas if one.id == known)

        return read

    asked: list[list[str]] = []
    states = {"a": ReplicaState.READY, "b": ReplicaState.READY, "c": ReplicaState.PAUSED}
    engine = SwarmEngine(planned, tmp_path, manager, readers=[reader("a"), reader("b")])
    elsewhere = Replica("d", "d", "agents", ReplicaState.READY, 0.0, pid=None)
    here = [Replica(name, name, "agents", state, 0.0, pid=1) for name, state in states.items()]
    found = engine.usage([*here, elsewhere])

    assert [usage.replica for usage in found] == ["a", "b"]
    assert asked == [["a", "b"], ["b"]]


@pytest.mark.parametrize("state", ["complete", "failed"])
def test_a_job_must_have_ended_well_before_a_start_is_done(
    state: str, catalogue: Catalogue, manager: FakeManager, tmp_path: Path, client: Client
) -> None:
    client("true")
    department = size(Profile(name="acme", users=40, agents=10, tasks=10), catalogue)
    manager.counts = {name: 1 if one.members else one.replicas for name, one in department.parts.items()}
    before, job = manager.services, Task("job", 1, state, "shutdown", 0.0, trouble="non-zero exit (1)")
    manager.services = lambda stack: {**before(stack), "memory-form": StackService("memory-form", 1, (job,))}  # type: ignore[method-assign]
    engine = SwarmEngine(department, tmp_path, manager)

    if state == "complete":
        engine.up({})
        assert manager.cleaned == 1
    else:
        with pytest.raises(ActionError, match=r"memory-form: 0 of 1 replicas run: non-zero exit \(1\), after"):
            engine.up({})
