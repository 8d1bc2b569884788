"""The department tier on the real engine: the shared memory over its shards, and pools of agents by kind of task."""

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack, docker, report, started, until
from tests.e2e.test_team import WORKER_SERVICE
from tests.ports import free_ports

pytestmark = pytest.mark.engine

NAME = f"cfscale-e2e-department-{os.getpid()}"
PORT = free_ports(3)
QUICK = {"interval": "4s", "start_period": "120s"}
WORKER = {**WORKER_SERVICE, "health": {**WORKER_SERVICE["health"], **QUICK}}  # type: ignore[dict-item]
SMALL = {"cpu": "1", "memory": "64M"}
# The department tier in the size of a small machine: limits are smaller, what there is and how it is joined is not.
PROFILE = json.dumps(
    {
        "name": NAME,
        "tier": "department",
        "users": 1,
        "agents": 1,
        "tasks": 1,
        "services": {
            "coordinator": {**WORKER, "routes": ["/coordinator"]},
            "agents": WORKER,
            "agents-expert": WORKER,
            "agents-parallel": WORKER,
            "loadbalancer": {"publish": f"127.0.0.1:{PORT}", "health": QUICK},
            "queue": {"health": QUICK, "resources": SMALL},
            "memory": {"health": {**QUICK, "interval": "2s"}, "resources": SMALL},
            "cache": {"health": QUICK},
            "database": {"health": QUICK, "resources": {"cpu": "1", "memory": "256M"}},
            "pooler": {"health": QUICK},
            "sentinel": {"health": QUICK},
            "etcd": {"health": {**QUICK, "interval": "2s"}},
        },
        "scaling": {
            "interval": "1s",
            "services": {name: {"min": 3, "max": 5} for name in ("agents", "agents-expert", "agents-parallel")},
        },
    }
)
KEYS = 1000


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with started(PROFILE, NAME, PORT, tmp_path_factory.mktemp("department")) as stack:
        yield stack


def test_everything_of_the_tier_runs(department: Stack) -> None:
    for name, service in department.plan().items():
        assert len(department.containers(name)) == service["replicas"], name


def test_tasks_land_in_the_pool_that_is_for_them(department: Stack) -> None:
    pools = {
        pool: {
            docker("inspect", "--format", "{{.Config.Hostname}}", name).strip() for name in department.containers(pool)
        }
        for pool in ("agents", "agents-expert", "agents-parallel")
    }

    def landed(headers: dict[str, str]) -> str:
        host = department.get("/work", headers)[1]
        return next(pool for pool, hosts in pools.items() if host in hosts)

    assert {landed({"X-Task-Complexity": "high"}) for _ in range(9)} == {"agents-expert"}
    assert {landed({"X-Task-Type": "parallel"}) for _ in range(9)} == {"agents-parallel"}
    assert {landed({"X-Agent-Type": "expert"}) for _ in range(9)} == {"agents-expert"}
    assert {landed({"X-Task-Complexity": "low"}) for _ in range(9)} == {"agents"}


def test_each_pool_has_a_decision_of_its_own(department: Stack) -> None:
    lines = department.cfscale("scale", "-o", "json").stdout.splitlines()
    decided = {decision["service"]: decision["current"] for line in lines if (decision := json.loads(line))}

    assert {"agents", "agents-expert", "agents-parallel"} <= decided.keys()
    assert all(decided[name] == 3 for name in ("agents", "agents-expert", "agents-parallel"))


def test_pools_grow_independently(department: Stack) -> None:
    compose = ("compose", "--project-name", NAME, "--file", str(department.folder / "compose.yaml"))
    docker(*compose, "up", "-d", "--no-recreate", "--no-deps", "--scale", "agents-expert=4", "agents-expert")
    try:
        counts = {pool: len(department.containers(pool)) for pool in ("agents", "agents-expert", "agents-parallel")}
        hosts = until(lambda: four(department), 40, "the fourth expert is used")
    finally:
        docker(*compose, "up", "-d", "--no-recreate", "--no-deps", "--scale", "agents-expert=3", "agents-expert")

    assert counts == {"agents": 3, "agents-expert": 4, "agents-parallel": 3}
    assert hosts == 4


def four(department: Stack) -> int | None:
    hosts = {department.get("/work", {"X-Agent-Type": "expert"})[1] for _ in range(20)}
    return len(hosts) if len(hosts) == 4 else None


def say(department: Stack, commands: str, *, seconds: int = 60) -> list[str]:
    """The answers of the cluster to commands, one a line, asked by a client that follows it about."""
    env = {"REDISCLI_AUTH": department.secret("memory_password")}
    script = f"{commands} | timeout {seconds} valkey-cli -c -h memory-1"
    said = department.run(f"{NAME}-cache-1-1", "sh", "-c", script, env=env, check=False)
    return [line for line in said.splitlines() if line and not line.startswith("->")]


def test_no_key_that_a_backup_has_is_lost_with_any_primary(department: Stack) -> None:
    """A thousand keys, each waited for until one backup has it; then a primary is killed."""
    loop = f"i=0; while [ $i -lt {KEYS} ]"
    answers = say(department, f"{loop}; do echo SET k$i v$i; echo WAIT 1 60000; i=$((i + 1)); done", seconds=100)
    kept = sum(int(answer) >= 1 for answer in answers if answer.isdigit())
    primary = primary_of(department)
    docker("kill", primary)
    began = time.monotonic()
    try:
        until(lambda: all_writable(department) or None, 60, "every shard takes writes again")
        seconds = round(time.monotonic() - began, 1)
        values = say(department, f"{loop}; do echo GET k$i; i=$((i + 1)); done")
    finally:
        docker("start", primary)
    report("primary of the shared memory killed", keys=KEYS, acknowledged=kept, seconds_until_written=seconds)

    assert kept == KEYS
    assert values == [f"v{number}" for number in range(KEYS)]


@pytest.mark.matrix
def test_what_is_lost_without_waiting_is_measured(department: Stack) -> None:
    until(lambda: all_writable(department) or None, 60, "every shard takes writes")
    loop = f"i=0; while [ $i -lt {KEYS} ]"
    answers = say(department, f"{loop}; do echo SET u$i v$i; i=$((i + 1)); done")
    written = answers.count("OK")
    primary = primary_of(department)
    docker("kill", primary)
    try:
        until(lambda: all_writable(department) or None, 60, "every shard takes writes again")
        values = say(department, f"{loop}; do echo GET u$i; i=$((i + 1)); done")
    finally:
        docker("start", primary)
    found = sum(value.startswith("v") for value in values)
    report("the same without WAIT", written=written, lost=written - found)

    assert written == KEYS
    assert found <= written


def all_writable(department: Stack) -> bool:
    """Whether keys of all shards are taken: thirty keys hit each of three, but for one time in a hundred thousand."""
    answers = say(department, "i=0; while [ $i -lt 30 ]; do echo SET w$i 1; i=$((i + 1)); done", seconds=15)
    return answers == ["OK"] * 30


def primary_of(department: Stack) -> str:
    """A primary that is not the node which clients ask first."""
    env = {"REDISCLI_AUTH": department.secret("memory_password")}
    for container in department.containers("memory")[1:]:
        if department.run(container, "valkey-cli", "role", env=env, check=False).startswith("master"):
            return container
    raise AssertionError("no primary but the first")
