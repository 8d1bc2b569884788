"""The team tier on the real engine: each part of its data plane is started, used and broken."""

import http.client
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stack import WORKER, Stack, docker, report, started, until
from tests.ports import free_ports

pytestmark = pytest.mark.engine

NAME = f"cfscale-e2e-team-{os.getpid()}"
PORT = free_ports(2)
WORKER_SERVICE = {
    "image": "cfscale/demo-worker:1",
    "command": ["python3", "-c", WORKER],
    "port": 8080,
    "health": {"kind": "http", "path": "/health", "interval": "2s", "start_period": "60s"},
    "resources": {"cpu": "0.5", "memory": "128M"},
    "stop_grace": "3s",
}
QUICK = {"interval": "2s", "start_period": "90s"}
# The team tier in the size of a small machine: limits are smaller, what there is and how it is joined is not.
PROFILE = json.dumps(
    {
        "name": NAME,
        "tier": "team",
        "users": 1,
        "agents": 1,
        "tasks": 1,
        "services": {
            "coordinator": {**WORKER_SERVICE, "routes": ["/coordinator"]},
            "agents": WORKER_SERVICE,
            "loadbalancer": {"publish": f"127.0.0.1:{PORT}", "health": QUICK},
            "queue": {"health": QUICK, "resources": {"memory": "64M"}},
            "cache": {"health": QUICK},
            "database": {"health": QUICK, "resources": {"cpu": "1", "memory": "512M"}},
            "pooler": {"health": QUICK},
            "sentinel": {"health": QUICK},
            "etcd": {"health": QUICK},
        },
        "scaling": {
            "interval": "1s",
            "scale_down": {"stabilization_window": "0s", "cooldown": "0s"},
            "services": {"agents": {"min": 3, "max": 6}},
        },
    }
)
BALANCERS = (1, 2)
CLIENTS = 200
QUEUED = 500


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with started(PROFILE, NAME, PORT, tmp_path_factory.mktemp("team")) as stack:
        until(lambda: settled(stack), 60, "all agents at their full share")
        yield stack


def settled(stack: Stack) -> bool | None:
    """Whether both balancers have all agents: which of them a published port leads to is the engine's choice."""
    states = [stack.servers(f"agents{kind}", one) for kind in ("", ".task", ".swarm") for one in BALANCERS]
    return all(list(found.values()).count("UP") == 3 for found in states) or None


def test_the_limits_are_what_the_engine_enforces(team: Stack) -> None:
    for name, service in team.plan().items():
        containers = team.containers(name)
        assert len(containers) == service["replicas"], name
        for container in containers:
            form = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}"
            memory, cpus, pids = docker("inspect", "--format", form, container).split()

            assert int(memory) == service["memory_limit_bytes"]
            assert int(cpus) == int(str(service["cpu_limit_millicores"])) * 10**6
            assert int(pids) == 1024


def test_requests_of_no_kind_go_round_as_the_tier_says(team: Stack) -> None:
    hosts = until(lambda: rotation(team), 30, "all have their full share, and their turns")

    assert Counter(hosts).most_common()[-1][1] == 10


def rotation(team: Stack) -> list[str] | None:
    """Who answered thirty requests, if it was three in turn; a balancer gives a new one less for its first ten seconds."""
    hosts = [team.get("/work")[1] for _ in range(30)]
    return hosts if len(set(hosts)) == 3 and hosts[3:] == hosts[:-3] else None


def test_tasks_go_to_whoever_has_the_fewest(team: Stack) -> None:
    """Two of three replicas hold long tasks; the short ones that come meanwhile go past them."""
    header = {"X-Request-Type": "task-execution"}
    long = [threading.Thread(target=team.get, args=("/work?ms=6000", header)) for _ in range(2)]
    for thread in long:
        thread.start()
    until(lambda: in_hand(team) == len(long) or None, 30, "the balancers have them in hand")
    hits = Counter(team.get("/work", header)[1] for _ in range(20))
    for thread in long:
        thread.join()

    assert len(hits) == 1


def in_hand(team: Stack) -> int:
    """How many tasks the balancers have given to somebody who is not done with them."""
    rows = [row for one in BALANCERS for row in team.statistics("agents.task", one).values()]
    return sum(int(row["scur"]) for row in rows)


def test_new_agents_go_where_most_is_free(team: Stack) -> None:
    """One replica fills most of its memory, which no machine denies it; ``scale`` measures that and tells both balancers."""
    busy, header = team.containers("agents")[0], {"X-Request-Type": "agent-spawn"}
    host = docker("inspect", "--format", "{{.Config.Hostname}}", busy).strip()
    team.told("pause", "agents")  # it is weighed all the same
    team.run(busy, "touch", "/tmp/busy")
    size = int(str(team.plan()["agents"]["memory_limit_bytes"])) * 72 // 100
    fill = f"import os, time\nx = b'x' * {size}\nwhile os.path.exists('/tmp/busy'): time.sleep(0.2)"
    docker("exec", "--detach", busy, "python3", "-c", fill)
    try:
        until(lambda: weighed(team, host), 60, "the busy one has the least weight")
        spawned = Counter(team.get("/work", header, balancer=turn % 2)[1] for turn in range(60))
    finally:
        team.run(busy, "rm", "/tmp/busy")
        team.told("resume", "agents")
    report("requests that start agents", busy=spawned[host], others=spawned.total() - spawned[host])

    others = [count for name, count in spawned.items() if name != host]

    assert len(others) == 2
    assert 2 * spawned[host] < min(others)


def weighed(team: Stack, host: str) -> bool | None:
    """Whether few of thirty requests go to a replica after one more evaluation."""
    team.cfscale("scale", "--apply", check=False)
    hosts = [team.get("/work", {"X-Request-Type": "agent-spawn"})[1] for _ in range(30)]
    return hosts.count(host) <= 4 or None


def test_a_swarm_meets_at_one_replica_through_every_balancer(team: Stack) -> None:
    def hosts(swarm: str, balancer: int) -> set[str]:
        headers = {"X-Request-Type": "swarm-coordination", "X-Swarm-Id": swarm}
        return {team.get("/work", headers, balancer=balancer)[1] for _ in range(3)}

    met = {swarm: hosts(swarm, 0) | hosts(swarm, 1) for swarm in (f"swarm-{number}" for number in range(12))}

    assert all(len(found) == 1 for found in met.values()), met
    assert len(set.union(*met.values())) > 1


def test_an_answer_of_two_kib_is_compressed_and_one_of_half_is_not(team: Stack) -> None:
    asking = {"Accept-Encoding": "gzip"}

    assert team.get("/size?n=2048", asking)[2].get("content-encoding") == "gzip"
    assert "content-encoding" not in team.get("/size?n=512", asking)[2]


def test_a_replica_that_answers_with_errors_is_taken_out_and_comes_back(team: Stack) -> None:
    broken = team.containers("agents")[0]
    team.run(broken, "touch", "/tmp/broken")
    try:
        statuses = until(lambda: ejected(team), 30, "the broken replica is taken out")
    finally:
        team.run(broken, "rm", "/tmp/broken")
    until(lambda: settled(team), 30, "it is taken in again")

    report("ejection of a replica that answers 500", requests_until_ejected=statuses)


def ejected(team: Stack) -> int | None:
    """How many of thirty requests failed before none did."""
    statuses = [team.get("/work")[0] for _ in range(60)]
    return statuses.count(500) if set(statuses[-10:]) == {200} and 500 in statuses else None


def test_a_replica_that_hangs_is_taken_out_and_comes_back(team: Stack) -> None:
    hung = team.containers("agents")[1]
    docker("pause", hung)
    try:
        until(lambda: without_one(team), 30, "the hung replica is taken out")
        statuses = {team.get("/work")[0] for _ in range(12)}
    finally:
        docker("unpause", hung)
    until(lambda: settled(team), 30, "it is taken in again")

    assert statuses == {200}


def without_one(team: Stack) -> bool | None:
    """Whether both balancers have taken somebody out."""
    return all("DOWN" in team.servers("agents", one).values() for one in BALANCERS) or None


def test_new_replicas_are_used_without_a_reload(team: Stack) -> None:
    compose = ("compose", "--project-name", NAME, "--file", str(team.folder / "compose.yaml"))
    before = docker("inspect", "--format", "{{.State.StartedAt}}", f"{NAME}-loadbalancer-1")
    docker(*compose, "up", "-d", "--no-recreate", "--no-deps", "--scale", "agents=5", "agents")
    began = time.monotonic()
    until(lambda: len({team.get("/work")[1] for _ in range(15)}) == 5 or None, 40, "five replicas answer")
    report("new replicas in use", seconds=round(time.monotonic() - began, 1))
    docker(*compose, "up", "-d", "--no-recreate", "--no-deps", "--scale", "agents=3", "agents")

    assert docker("inspect", "--format", "{{.State.StartedAt}}", f"{NAME}-loadbalancer-1") == before
    until(lambda: settled(team), 30, "three again")


def test_replicas_that_are_drained_lose_nothing(team: Stack) -> None:
    """Two of five are taken out by ``scale`` while clients that never pause have tasks at all of them."""
    compose = ("compose", "--project-name", NAME, "--file", str(team.folder / "compose.yaml"))
    docker(*compose, "up", "-d", "--no-recreate", "--no-deps", "--scale", "agents=5", "agents")
    until(lambda: len({team.get("/work")[1] for _ in range(15)}) == 5 or None, 40, "five replicas answer")
    statuses: Counter[int] = Counter()
    over = threading.Event()

    def work(task: str) -> None:
        while not over.is_set():
            statuses[asked(team, task)] += 1

    tasks = ["/work?ms=20", "/work?ms=300", "/work?ms=300", "/work?ms=2000", "/work?ms=2000", "/work?ms=2000"]
    clients = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for client in clients:
        client.start()
    try:
        until(lambda: shrunk(team), 60, "scale takes two away")
    finally:
        over.set()
        for client in clients:
            client.join()
    report("two of five drained under load", answered=statuses[200], lost=sum(statuses.values()) - statuses[200])

    assert statuses.keys() == {200}
    until(lambda: settled(team), 30, "three again")


def asked(team: Stack, task: str) -> int:
    """The status of one task, 0 where the connection broke."""
    try:
        return team.get(task)[0]
    except (OSError, http.client.HTTPException):
        return 0


def shrunk(team: Stack) -> bool | None:
    """Whether one evaluation, acted on, has left three."""
    team.cfscale("scale", "--apply", check=False)
    return len(team.containers("agents")) == 3 or None


def test_the_cache_has_the_tiers_size_and_evicts(team: Stack) -> None:
    assert team.valkey("cache", "config", "get", "maxmemory").split() == ["maxmemory", str(500 * 2**20)]
    assert team.valkey("cache", "config", "get", "maxmemory-policy").split()[-1] == "allkeys-lru"
    assert team.valkey("queue", "config", "get", "maxmemory-policy").split()[-1] == "noeviction"
    assert team.valkey("queue", "config", "get", "appendonly").split()[-1] == "yes"


def test_the_third_level_of_the_cache_keeps_ten_times_as_long(team: Stack) -> None:
    team.sql("select cache_set('key', 'value', 60)")

    assert team.sql("select convert_from(cache_get('key'), 'UTF8')") == "value"
    assert 590 < float(team.sql("select extract(epoch from expires_at - now()) from cache where key = 'key'")) <= 600
    team.sql("update cache set expires_at = now() - interval '1 second'")
    assert team.sql("select cache_get('key') is null") == "t"


def test_what_is_written_is_read_on_the_read_port(team: Stack) -> None:
    team.sql("create table if not exists written (id int primary key); insert into written values (1)")

    assert team.sql("select pg_is_in_recovery()", database="app_ro") == "t"
    until(lambda: team.sql("select id from written", database="app_ro", check=False) or None, 10, "the replica has it")


def test_prometheus_reaches_all_that_it_is_told_to_watch(team: Stack) -> None:
    """Started by the profile that the manifest gives it; taking the deployment down at the end removes it too."""
    docker(
        "compose", "--project-name", NAME, "--file", str(team.folder / "compose.yaml"),
        "--profile", "monitoring", "up", "-d", "--no-deps", "prometheus",
    )  # fmt: skip
    found = until(lambda: watched(team), 60, "all targets are up")
    rules = asked_prometheus(team, "rules")

    assert set(found) == {"prometheus", "loadbalancer", "database", "etcd"}
    assert found["loadbalancer"] == 2
    assert [rule for group in rules["groups"] for rule in group["rules"] if rule["health"] == "err"] == []


def watched(team: Stack) -> Counter[str] | None:
    """How many targets of each job are up, once all of them are."""
    targets = asked_prometheus(team, "targets?state=active").get("activeTargets", [])
    jobs = Counter(target["labels"]["job"] for target in targets if target["health"] == "up")
    return jobs if len(jobs) >= 4 and jobs.total() == len(targets) else None


def asked_prometheus(team: Stack, question: str) -> dict[str, Any]:
    """What its API answers, asked on the port that the manifest publishes."""
    connection = http.client.HTTPConnection("127.0.0.1", 9090, timeout=10)
    try:
        connection.request("GET", f"/api/v1/{question}")
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        answer = {"data": {}}  # it is not there yet
    finally:
        connection.close()
    found: dict[str, Any] = answer["data"]
    return found


def test_the_pool_keeps_five_connections_and_never_passes_a_hundred(team: Stack) -> None:
    """Two hundred clients at once through one pooler; ``SHOW POOLS`` is asked all the while."""
    network = f"{NAME}_data"
    address = docker(
        "inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}', f"{NAME}-pooler-1"
    ).strip()
    script = f"echo 'select pg_sleep(2);' >/tmp/ask && exec pgbench -n -h {address} -p 6432 -U app -c {CLIENTS} -j 2 -t 2 -f /tmp/ask app"
    clients = docker(
        "run", "--detach", "--rm", "--network", network, "--env", f"PGPASSWORD={team.secret('database_password')}",
        "--entrypoint", "bash", "cfscale/database:17", "-c", script,
    ).strip()  # fmt: skip
    most, waiting = 0, 0
    while docker("ps", "--quiet", "--no-trunc", "--filter", f"id={clients}").strip():
        servers, queued = pools(team)
        most, waiting = max(most, servers), max(waiting, queued)
    kept = until(lambda: found if (found := pools(team)[0]) >= 5 else None, 10, "five are kept")
    report("pool under 200 clients", most_connections=most, most_waiting=waiting, kept=kept)
    accepted = int(team.run(f"{NAME}-database-1-1", "psql", "-h", "/tmp", "-tAc", "show max_connections"))

    assert 50 < most <= 100
    assert waiting > 0
    assert accepted >= 2 * 100


def pools(team: Stack) -> tuple[int, int]:
    """Server connections of all pools, and clients that wait for one."""
    rows = [row.split("|") for row in team.sql("show pools", database="pgbouncer").splitlines()]
    mine = [row for row in rows if row[0] in ("app", "app_ro")]
    return sum(sum(int(count) for count in row[6:12]) for row in mine), sum(int(row[3]) for row in mine)


def test_clients_of_the_queue_go_on_when_its_primary_is_killed(team: Stack) -> None:
    keys = range(QUEUED)
    answers = queue(team, "".join(f"SET k{key} {key}\\nWAIT 1 60000\\n" for key in keys), seconds=100)
    kept = [key for key in keys if answers[2 * key : 2 * key + 2] == ["OK", "(integer) 1"]]
    primary = primary_of(team, "queue")
    docker("kill", primary)
    began = time.monotonic()
    try:
        until(lambda: queue(team, "SET after 1\\n") == ["OK"] or None, 60, "writes are taken again")
        seconds = round(time.monotonic() - began, 1)
        found = until(lambda: everything(team, kept), 20, "a balancer that answers for all keys")
    finally:
        docker("start", primary)
    lost = [key for key, value in zip(kept, found, strict=True) if value != f'"{key}"']
    report("queue's primary killed", seconds_until_written=seconds, acknowledged=len(kept), lost=len(lost))
    until(lambda: primary_of(team, "queue") != primary or None, 10, "another is primary")
    until(lambda: role(team, primary) == "slave" or None, 30, "the old primary follows")

    assert len(kept) == QUEUED
    assert lost == []


def queue(team: Stack, commands: str, *, seconds: int = 10) -> list[str]:
    """The queue's answers through the balancer, asked from a container that is not of the queue; typed, so that a key
    that is gone, ``(nil)``, is not taken for an answer that did not come."""
    env = {"REDISCLI_AUTH": team.secret("queue_password")}
    script = f"printf '{commands}' | timeout {seconds} valkey-cli --no-raw -h loadbalancer -p 6379"
    return team.run(f"{NAME}-cache-1-1", "sh", "-c", script, env=env, check=False).splitlines()


def everything(team: Stack, keys: list[int]) -> list[str] | None:
    """What the queue holds under each key, once it answers for every one."""
    answers = queue(team, "".join(f"GET k{key}\\n" for key in keys))
    whole = len(answers) == len(keys) and all(answer == "(nil)" or answer.startswith('"') for answer in answers)
    return answers if whole else None


def role(team: Stack, container: str) -> str:
    env = {"REDISCLI_AUTH": team.secret("queue_password")}
    return (team.run(container, "valkey-cli", "role", env=env, check=False).split() or [""])[0]


def primary_of(team: Stack, service: str) -> str:
    return next(container for container in team.containers(service) if role(team, container) == "master")


def test_writes_resume_when_the_databases_primary_is_killed_and_nothing_acknowledged_is_lost(team: Stack) -> None:
    team.sql("create table if not exists ticks (id bigint primary key)")
    until(lambda: "sync" in members(team).values() or None, 60, "a synchronous replica")
    kept: list[int] = [number for number in range(10) if tick(team, number)]
    primary = next(name for name, role in members(team).items() if role == "leader")
    docker("kill", f"{NAME}-{primary}-1")
    began = time.monotonic()
    try:
        until(lambda: tick(team, 1000) or None, 120, "writes are taken again")
        seconds = round(time.monotonic() - began, 1)
        found = set(team.sql("select id from ticks").split())
    finally:
        docker("start", f"{NAME}-{primary}-1")
    report("database's primary killed", seconds_until_written=seconds, acknowledged=len(kept))

    assert len(kept) == 10
    assert {str(number) for number in kept} <= found
    until(lambda: members(team).get(primary) in ("replica", "sync") or None, 90, "the old primary follows")


def tick(team: Stack, number: int) -> bool:
    """Whether a write was acknowledged."""
    return team.sql(f"insert into ticks values ({number}) returning id", check=False).split()[:1] == [str(number)]


def members(team: Stack) -> dict[str, str]:
    """Member and role, as Patroni sees it: leader, sync or replica."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8008/cluster', timeout=3).read().decode())"
    for container in team.containers("database"):
        if said := team.run(container, "python3", "-c", ask, check=False).strip():
            found = json.loads(said)["members"]
            return {one["name"]: one["role"].replace("sync_standby", "sync") for one in found if "role" in one}
    return {}
