"""The ``queue`` policy against the real servers: Redis, Prometheus on the engine, and a file served over HTTP."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from cfscale.adapters.backlog import PASSWORD, ask, asker
from cfscale.core.autoscale import decide
from cfscale.core.decision import Decision
from cfscale.core.history import History
from cfscale.core.plan import Policy
from cfscale.core.policies import policies_of
from cfscale.core.policy import Backlog, Observation
from cfscale.core.workload import PolicyProfile
from tests.adapters.test_probe_servers import accepts, program, running
from tests.fake_service import AGENTS, UNDAMPED, a_replica, a_usage
from tests.ports import free_port

SECRET = "only-for-this-test"
GENEROUS = 30.0


def queue(source: str, url: str, **more: str) -> Policy:
    """The policy of a profile that asks there, for a replica per ten that wait."""
    given = {"kind": "queue", "source": source, "url": url, "per_replica": 10.0, **more}
    (policy,) = policies_of([msgspec.convert(given, PolicyProfile)])
    return policy


def decided(policy: Policy) -> Decision:
    """What is decided for two half idle replicas with this policy alone."""
    replicas, usages = (a_replica(1), a_replica(2)), (a_usage(1, 0.5), a_usage(2, 0.5))
    observation = Observation(AGENTS, "fake", 0.0, replicas, usages, backlogs=asker([policy])())
    decision, _ = decide(observation, replace(UNDAMPED, policies=(policy,)), History())
    return decision


# ---- Redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    server = program("redis-server", "valkey-server")
    argv = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", SECRET]
    with running(argv, port, folder):
        told(port, "RPUSH tasks " + " ".join(f"task-{number}" for number in range(34)), "SET word hello")
        yield f"redis://127.0.0.1:{port}"


def told(port: int, *commands: str) -> None:
    with socket.create_connection(("127.0.0.1", port), GENEROUS) as link:
        link.sendall("".join(f"{line}\r\n" for line in (f"AUTH {SECRET}", *commands)).encode())
        answers = link.makefile("rb")
        for _ in range(1 + len(commands)):
            assert not answers.readline().startswith(b"-")


@pytest.mark.process
def test_the_length_of_a_redis_list_decides(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, SECRET)
    decision = decided(queue("redis", redis, key="tasks"))

    assert (decision.desired, decision.reason) == (4, "34 waiting, 10 a replica: 4 needed")
    (backlog,) = (sample for sample in decision.samples if sample.resource == "backlog")
    assert (backlog.value_ratio, backlog.source) == (34 / 20, "redis:127.0.0.1:tasks")


@pytest.mark.process
def test_a_list_that_redis_does_not_have_is_an_empty_queue(redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, SECRET)

    assert decided(queue("redis", redis, key="nobody:waits here")).desired == 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("password", "key", "says"),
    [("", "tasks", "NOAUTH"), ("another", "tasks", "WRONGPASS"), (SECRET, "word", "WRONGTYPE")],
    ids=["no-password", "wrong-password", "no-list"],
)
def test_what_redis_refuses_keeps_the_count_and_is_said_in_its_words(
    redis: str, monkeypatch: pytest.MonkeyPatch, password: str, key: str, says: str
) -> None:
    monkeypatch.setenv(PASSWORD, password)
    decision = decided(queue("redis", redis, key=key))

    assert decision.desired == 2
    assert "the backlog is not known" in decision.reason
    assert says in decision.reason
    assert SECRET not in decision.reason


# ---- Prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus on loopback that scrapes a file with two queues, once they are there."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    (folder / "metrics").write_text('jobs_waiting{queue="mail"} 21\njobs_waiting{queue="video"} 12\n')
    with serving(folder) as metrics:
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs: [{job_name: queue, static_configs: "
            f'[{{targets: ["127.0.0.1:{metrics}"]}}]}}]\n'
        )
        folder.chmod(0o755)  # the image's user is not the test's
        argv = ["docker", "run", "--rm", "--detach", "--network", "host", "--volume", f"{folder}:/given:ro"]
        options = (
            "--config.file=/given/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        started = subprocess.run(
            [*argv, "prom/prometheus:v2.53.3", *options], capture_output=True, text=True, check=True, timeout=60
        )
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: accepts(port) and ask(queue("prometheus", url, query="jobs_waiting").options).waiting == 33)
            yield url
        finally:
            subprocess.run(["docker", "kill", started.stdout.strip()], capture_output=True, check=False, timeout=60)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GENEROUS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


@pytest.mark.engine
def test_the_sum_of_what_a_prometheus_query_finds_decides(prometheus: str) -> None:
    assert decided(queue("prometheus", prometheus, query="jobs_waiting")).desired == 4
    assert decided(queue("prometheus", f"{prometheus}/", query='jobs_waiting{queue="mail"}')).desired == 3
    assert (
        ask(queue("prometheus", prometheus, query="sum(jobs_waiting) > bool 5 and on() up == 1").options).waiting == 1
    )


@pytest.mark.engine
@pytest.mark.parametrize(
    ("query", "says"),
    [("jobs_writing", "the query has no result"), ("jobs_waiting{", "HTTP Error 400"), ("jobs_waiting / 0", "inf")],
    ids=["no-series", "no-query", "no-number"],
)
def test_what_prometheus_cannot_tell_keeps_the_count(prometheus: str, query: str, says: str) -> None:
    decision = decided(queue("prometheus", prometheus, query=query))

    assert (decision.desired, decision.action.value) == (2, "hold")
    assert says in decision.reason


# ---- JSON over HTTP


def serving(folder: Path):  # type: ignore[no-untyped-def]
    """The files of a folder over HTTP; yields the port."""
    port = free_port()
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    return running(argv, port, folder)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    with serving(tmp_path) as port:
        yield tmp_path, f"http://127.0.0.1:{port}"


@pytest.mark.process
def test_a_number_within_a_json_answer_decides_and_is_asked_for_anew(files: tuple[Path, str]) -> None:
    folder, url = files
    policy = queue("http", f"{url}/queues.json", field="queues.0.waiting")
    for waiting, wanted in ((45, 5), (12, 2), (0, 1)):
        (folder / "queues.json").write_text(json.dumps({"queues": [{"name": "mail", "waiting": waiting}]}))
        assert decided(policy).desired == wanted


@pytest.mark.process
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "queues"),
        ('{"queues": []}', "list index out of range"),
        ('{"queues": [{"waiting": "many"}]}', "could not convert"),
        ('{"queues": [{"waiting": -3}]}', "-3 is no length of a queue"),
        ('{"queues": [{"wai', "JSON is malformed|truncated"),
        (None, "HTTP Error 404"),
    ],
    ids=["no-field", "no-element", "no-number", "negative", "half", "no-file"],
)
def test_an_answer_without_the_number_keeps_the_count(files: tuple[Path, str], content: str | None, says: str) -> None:
    folder, url = files
    if content is not None:
        (folder / "queues.json").write_text(content)
    decision = decided(queue("http", f"{url}/queues.json", field="queues.0.waiting"))

    assert decision.desired == 2
    assert any(words in decision.reason for words in says.split("|"))


def test_a_port_without_a_server_keeps_the_count() -> None:
    found = ask(queue("redis", f"redis://127.0.0.1:{free_port()}", key="tasks").options)

    assert isinstance(found, Backlog)
    assert (found.waiting, "refused" in found.problem) == (None, True)
