import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from cfscale.adapters.state import State as StateFolder
from cfscale.cli import exposition, verdicts
from cfscale.cli.engines import Deployment
from cfscale.cli.probing import deployed, until_up
from cfscale.core.health import Report, Result, State, report
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.samples import Replica, ReplicaState, Usage
from cfscale.core.sizing import size
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import UnavailableError
from tests.conftest import Result as Ran

Cfscale = Callable[..., Ran]
FORMATS = ("table", "json", "yaml", "junit", "prometheus")


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/") or 200))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        pass


@contextmanager
def serving(*, port: int = 0) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", port), _Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def refused() -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{held.getsockname()[1]}"


def test_a_url_that_answers_is_up(cfscale: Cfscale, site: str) -> None:
    ran = cfscale("probe", f"{site}/")

    assert ran.code == 0
    assert re.search(r"✓ +http://127\.0\.0\.1:\d+/ +http +up +[\d.]+ ms +HTTP 200\n\n1 up\n$", ran.stdout)


def test_the_document(cfscale: Cfscale, site: str, refused: str) -> None:
    ran = cfscale("probe", f"{site}/", f"{site}/429", refused, "-o", "json")
    document = json.loads(ran.stdout)

    assert ran.code == 1
    assert document["schema"] == "cfscale/probe/v1"
    assert [(r["target"], r["kind"], r["state"], r["reason"]) for r in document["results"]] == [
        (f"{site}/", "http", "up", "HTTP 200"),
        (f"{site}/429", "http", "degraded", "HTTP 429: rate limited"),
        (refused, "tcp", "down", "connection refused"),
    ]
    assert all(result["latency_seconds"] >= 0 for result in document["results"])
    assert document["summary"] == {
        "up": 1,
        "degraded": 1,
        "down": 1,
        "unknown": 0,
        "starting": 0,
        "draining": 0,
        "maintenance": 0,
    }


@pytest.mark.parametrize("output", FORMATS)
def test_the_exit_code_does_not_depend_on_the_format(cfscale: Cfscale, site: str, refused: str, output: str) -> None:
    codes = [
        cfscale("probe", f"{site}/", "-o", output).code,
        cfscale("probe", f"{site}/429", "-o", output).code,
        cfscale("probe", f"{site}/429", "-o", output, "--fail-on", "degraded").code,
        cfscale("probe", f"{site}/", refused, "-o", output).code,
        cfscale("probe", "http://2852039166/", "-o", output).code,
    ]

    assert codes == [0, 0, 1, 1, 3]


def test_nagios_has_codes_of_its_own(cfscale: Cfscale, site: str, refused: str) -> None:
    codes = [
        cfscale("probe", f"{site}/", "-o", "nagios").code,
        cfscale("probe", f"{site}/429", "-o", "nagios").code,
        cfscale("probe", f"{site}/", refused, "-o", "nagios").code,
        cfscale("probe", "http://2852039166/", "-o", "nagios").code,
    ]

    assert codes == [0, 1, 2, 3]


def test_yaml_says_what_json_says(cfscale: Cfscale, refused: str) -> None:
    as_json = json.loads(cfscale("probe", refused, "-o", "json").stdout)
    as_yaml = yaml.safe_load(cfscale("probe", refused, "-o", "yaml").stdout)

    assert as_yaml["summary"] == as_json["summary"]
    assert as_yaml["results"][0]["state"] == "down"


def test_targets_from_a_file(cfscale: Cfscale, site: str, tmp_path: Path) -> None:
    (tmp_path / "urls.txt").write_text(f"# ours\n\n{site}/\r\n{site}/204\n{site}/\n")
    ran = cfscale("probe", "--targets", "urls.txt", f"{site}/201", "-o", "json")

    assert ran.code == 0
    assert [r["target"] for r in json.loads(ran.stdout)["results"]] == [f"{site}/201", f"{site}/", f"{site}/204"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("http://h:0/",), "'http://h:0/': the port"),
        (("http://h/\r\nX: y",), "line breaks"),
        (("acme.yaml", "http://h/"), "'acme.yaml' is not a URL"),
        (("a.yaml", "b.yaml"), "'b.yaml': one profile at a time"),
        (("--targets", "none.txt"), "none.txt: No such file"),
        (("--targets", "bad.txt"), "bad.txt:2: 'http://h:99999/': the port"),
        (("--targets", "empty.txt"), "empty.txt: no URL in it"),
        (("--targets", "binary.txt"), "binary.txt: not UTF-8"),
        (("profile.yaml", "--targets", "bad.txt"), "'profile.yaml' is not a URL"),
        (("http://h/", "--timeout", "0s"), "--timeout '0s': give more than 0"),
        (("http://h/", "--timeout", "soon"), "--timeout: 'soon' is not a duration"),
        (("http://h/", "--watch", "--interval", "1s"), "give an --interval above that"),
        (("http://h/", "--watch", "-o", "junit"), "-o junit is for a single round"),
        (("http://h/", "--interval", "10s"), "--interval is for --watch"),
        (("http://h/", "-o", "xml"), "'xml' is not one of"),
        (("redis://:pa55@h",), "--password-file"),
        (("redis://h", "--password-file", "none.txt"), "none.txt: No such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    cfscale: Cfscale, tmp_path: Path, argv: tuple[str, ...], message: str
) -> None:
    (tmp_path / "bad.txt").write_text("http://h/\nhttp://h:99999/\n")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    ran = cfscale("probe", *argv)

    assert (ran.code, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "pa55" not in ran.stderr


def test_credentials_are_never_shown(cfscale: Cfscale, site: str) -> None:
    ran = cfscale("probe", site.replace("//", "//me:hunter2@") + "/401", "-o", "json")

    assert ran.code == 1
    assert "hunter2" not in ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["results"][0]["target"] == f"{site}/401"


def test_a_watch_elsewhere_prints_one_line_a_change(cfscale: Cfscale, site: str) -> None:
    ran = cfscale("probe", f"{site}/", "--interval", "2500ms", "--timeout", "2s", "--watch", "--for", "5s")

    assert ran.code == 0
    assert ran.stdout == f"✓ {site}/ up: HTTP 200\n"


def test_a_watch_as_json_is_one_document_a_round(cfscale: Cfscale, site: str) -> None:
    ran = cfscale("probe", f"{site}/503", "--interval", "3s", "--timeout", "2s", "--for", "3s", "-o", "json")
    documents = [json.loads(line) for line in ran.stdout.splitlines()]

    assert ran.code == 1
    assert [document["summary"]["down"] for document in documents] == [1]


@pytest.mark.process
def test_a_watch_on_a_terminal_is_a_table_and_ends_with_the_signal(site: str) -> None:
    leader, follower = os.openpty()
    argv = [sys.executable, "-m", "cfscale", "probe", f"{site}/", "--watch"]
    child = subprocess.Popen(argv, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    seen = b""
    while b"1 up" not in seen:
        seen += os.read(leader, 4096)
    child.terminate()
    code = child.wait(timeout=30)
    os.close(leader)

    assert b"HTTP 200" in seen
    assert code == 143


def some_report() -> Report:
    nasty = 'a "quoted" <b>&\\ | name'
    return report(
        [
            Result("fine", "http", State.UP, 0.001, "HTTP 200"),
            Result(nasty, "tcp", State.DOWN, 0.002, f"went {nasty}"),
            Result("slow", "http", State.DEGRADED, 0.5, "HTTP 429: rate limited"),
            Result("dark", "http", State.UNKNOWN, None, "too many open files"),
            Result("young", "http", State.STARTING, 0.1, "connection refused"),
        ]
    )


def test_junit_is_valid_and_counts() -> None:
    suite = ET.fromstring(verdicts.as_junit(some_report(), fail_on_degraded=False)).find("testsuite")

    assert suite is not None
    assert {name: suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    assert [case.attrib["name"] for case in suite][1] == 'a "quoted" <b>&\\ | name'


def test_junit_fails_what_the_exit_code_fails() -> None:
    suite = ET.fromstring(verdicts.as_junit(some_report(), fail_on_degraded=True)).find("testsuite")

    assert suite is not None
    assert suite.attrib["failures"] == "2"


def test_nagios_is_one_line_with_one_bar() -> None:
    line = verdicts.as_nagios(some_report())

    assert line.startswith("PROBE CRITICAL - 1 up, 1 degraded, 1 down, 1 unknown, 1 starting - a ")
    assert line.count("|") == 1
    assert line.endswith(
        "| up=1;;;0;5 degraded=1;;;0;5 down=1;;;0;5 unknown=1;;;0;5 starting=1;;;0;5 draining=0;;;0;5 maintenance=0;;;0;5"
    )
    assert "\n" not in line


def test_prometheus_text_is_read_back() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {
        family.name: family for family in text_string_to_metric_families(exposition.as_prometheus(some_report()) + "\n")
    }
    success = {sample.labels["target"]: sample.value for sample in families["probe_success"].samples}
    states = {sample.labels["state"]: sample.value for sample in families["probe_targets"].samples}

    assert success == {"fine": 1.0, 'a "quoted" <b>&\\ | name': 0.0, "slow": 1.0}
    assert states["unknown"] == 1.0
    assert {family.type for family in families.values()} == {"gauge"}
    assert len(families["probe_duration_seconds"].samples) == 3


class Engine:
    """An engine whose replicas are given."""

    name = "compose"
    target = "test"

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.found = tuple(replicas)

    def replicas(self) -> tuple[Replica, ...]:
        return self.found

    def up(self, counts: Mapping[str, int]) -> None:
        raise NotImplementedError

    def down(self, *, volumes: bool) -> None:
        raise NotImplementedError

    def usage(self, replicas: Sequence[Replica]) -> tuple[Usage, ...]:
        raise NotImplementedError

    def grow(self, service: Service, count: int) -> None:
        raise NotImplementedError

    def shrink(self, service: Service, count: int, victims: Sequence[Replica]) -> None:
        raise NotImplementedError


@pytest.fixture
def plan(catalogue: Catalogue) -> DeploymentPlan:
    return size(Profile(users=3, agents=10, tasks=20), catalogue)


def deployment(plan: DeploymentPlan, folder: Path, *replicas: Replica) -> Deployment:
    return Deployment(plan, StateFolder(folder), Engine(replicas), None, folder, tuple)


def test_replicas_of_a_deployment_are_asked(plan: DeploymentPlan, tmp_path: Path, site: str) -> None:
    address = site.removeprefix("http://")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "queue_password").write_text("hunter2\n")
    replicas = [
        Replica("1", "agents-1", "agents", ReplicaState.READY, 0.0, address),
        Replica("2", "queue-1", "queue", ReplicaState.PAUSED, 0.0, address),
    ]
    targets = deployed(deployment(plan, tmp_path, *replicas), 0.5)()
    by_name = {target.name: target for target in targets}

    assert list(by_name) == ["coordinator", "agents-1", "queue-1", "cache"]
    assert by_name["queue-1"].secret == "hunter2"
    assert {target.health.timeout_seconds for target in targets} == {0.5}


def test_a_deployment_that_does_not_run_is_no_verdict(plan: DeploymentPlan, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="start it with 'cfscale up'"):
        deployed(deployment(plan, tmp_path))()


def test_waiting_for_a_deployment_reports_what_is_still_down(plan: DeploymentPlan, tmp_path: Path) -> None:
    stopped = Replica("1", "agents-1", "agents", ReplicaState.STOPPED, 0.0, reason="exit code 1")
    found = asyncio.run(until_up(deployed(deployment(plan, tmp_path, stopped)), 0.01))

    assert found.summary.down == len(found.results) == 4


def test_a_profile_whose_deployment_does_not_run_exits_3(cfscale: Cfscale) -> None:
    ran = cfscale("probe", "--engine", "process", "--users", "3", "--agents", "10", "--tasks", "20")

    assert (ran.code, ran.stdout) == (3, "")
