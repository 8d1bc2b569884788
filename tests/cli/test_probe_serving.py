"""What a watch of ``cfscale probe`` serves and writes, and the options that judge certificates and find targets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cfscale.cli.endpoints import address_of, agent, metrics
from cfscale.cli.verdicts import sparkline
from cfscale.errors import ActionError, InputError
from tests.cli.test_probe import serving
from tests.conftest import Result as Ran

Cfscale = Callable[..., Ran]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving() as address:
        yield address


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
    return text


@contextmanager
def watching(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A watch that serves, once it has said where."""
    argv = [sys.executable, "-m", "cfscale", "probe", *words, "--interval", "500ms", "--timeout", "300ms"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = child.stderr.readline()
        try:
            yield child, said
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=10)


def eventually(ask: Callable[[], str], wanted: str) -> str:
    deadline = time.monotonic() + 20
    while wanted not in (text := ask()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return text


def test_metrics_are_served_while_a_watch_goes_on(site: str) -> None:
    with watching(f"{site}/", "--serve", "127.0.0.1:0") as (child, said):
        address = re.search(r"http://\S+", said)
        assert address is not None, said
        text = eventually(lambda: fetched(address[0]), "probe_success")
        families = {family.name: family for family in text_string_to_metric_families(text)}

        assert families["probe_success"].samples[0].value == 1.0
        assert families["probe_http_status_code"].samples[0].value == 200.0
        phases = {sample.labels["phase"] for sample in families["probe_http_duration_seconds"].samples}
        assert phases == {"connect", "processing"}
        with pytest.raises(urllib.error.HTTPError):
            fetched(address[0].replace("/metrics", "/etc"))
    assert child.returncode == 143


def test_a_text_file_is_written_whole(cfscale: Cfscale, site: str, tmp_path: Path) -> None:
    file = tmp_path / "probe.prom"
    ran = cfscale("probe", f"{site}/", "--textfile", str(file), "-o", "json")

    assert ran.code == 0
    assert 'probe_targets{state="up"} 1' in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["probe.prom"]


def test_a_text_file_that_cannot_be_written_is_a_failed_action(cfscale: Cfscale, site: str, tmp_path: Path) -> None:
    ran = cfscale("probe", f"{site}/", "--textfile", str(tmp_path / "none" / "probe.prom"))

    assert ran.code == 1
    assert "no such" in ran.stderr.lower() or "could not be written" in ran.stderr


def agent_says(port: int, name: str = "") -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        if name:
            connection.sendall(f"{name}\n".encode())
        return connection.recv(256).decode().strip()


def test_agent_checks_are_answered_by_name(site: str) -> None:
    with watching(f"{site}/", f"{site}/503", "--agent-check", "127.0.0.1:0") as (_, said):
        port = int(said.split(";")[0].rpartition(":")[2])

        assert eventually(lambda: agent_says(port, f"{site}/"), "up") == "up"
        assert eventually(lambda: agent_says(port, f"{site}/503"), "down") == "down #HTTP 503"
        assert agent_says(port, "somebody else") == ""
        assert agent_says(port) == ""


@pytest.mark.process
def test_haproxy_follows_the_agent(tmp_path: Path) -> None:
    """A real balancer: weight, drain and back, as an agent tells it."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs haproxy on this machine")
    line = ["up 40%"]
    with agent(("127.0.0.1", 0), lambda name: line[0] if name == "web-1" else "") as port:
        stats = tmp_path / "stats"
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            f"global\n  stats socket {stats} mode 600 level admin\n"
            "defaults\n  mode tcp\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\n"
            "backend b\n"
            f'  server web-1 127.0.0.1:9 weight 100 agent-check agent-port {port} agent-inter 100ms agent-send "web-1\\n"\n'
        )
        with subprocess.Popen([program, "-db", "-f", str(config)]) as balancer:
            try:
                assert ",40," in eventually(lambda: state(stats), ",40,")
                line[0] = "drain"
                assert "DRAIN" in eventually(lambda: state(stats), "DRAIN")
                line[0] = "ready up 80%"
                assert ",80," in eventually(lambda: state(stats), ",80,")
                assert "DRAIN" not in state(stats)
            finally:
                balancer.terminate()


def state(stats: Path) -> str:
    """Status and weight of the server, as HAProxy's statistics have them."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(stats))
            connection.sendall(b"show stat\n")
            data = b""
            while part := connection.recv(65536):
                data += part
    except OSError:
        return ""
    rows = [row.split(",") for row in data.decode().splitlines()]
    mine = next(row for row in rows if row[:2] == ["b", "web-1"])
    return f"{mine[17]},{mine[18]},"


@pytest.mark.parametrize("text", ["9115", "host", "host:", "host:x", "host:70000", ":-1"])
def test_an_address_to_listen_on_is_host_and_port(text: str) -> None:
    if text == "9115":
        assert address_of(text, "--serve") == ("127.0.0.1", 9115)
        return
    with pytest.raises(InputError, match="write HOST:PORT"):
        address_of(text, "--serve")


def test_an_address_that_is_taken_is_a_failed_action() -> None:
    with (
        metrics(("127.0.0.1", 0), str) as port,
        pytest.raises(ActionError, match="cannot listen there"),
        metrics(("127.0.0.1", port), str),
    ):
        pass


def test_programs_are_run_only_where_that_was_said(cfscale: Cfscale) -> None:
    refused = cfscale("probe", "exec:///bin/true")

    assert refused.code == 2
    assert "--allow-exec" in refused.stderr
    assert cfscale("probe", "exec:///bin/true", "--allow-exec").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--discover", "nonsense"), 2, "write compose:NAME"),
        (("http://127.0.0.1:1/", "--discover", "compose:x"), 2, "give no URLs or profile with it"),
        (("--discover", "dns:tcp://127.0.0.1:1"), 1, ""),
        (("https://127.0.0.1:1/", "--ca-file", "none.pem"), 2, "no such file"),
        (("http://127.0.0.1:1/", "--watch", "--predict", "--interval", "2m"), 2, "an answer a minute"),
    ],
)
def test_options_that_find_and_judge(cfscale: Cfscale, words: tuple[str, ...], code: int, said: str) -> None:
    ran = cfscale("probe", *words)

    assert ran.code == code
    assert said in ran.stderr


def test_where_nothing_can_be_discovered_nothing_can_be_told(cfscale: Cfscale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///does/not/exist.sock")

    assert cfscale("probe", "--discover", "compose:shop").code == 3


def test_the_document_tells_where_the_time_went(cfscale: Cfscale, site: str) -> None:
    result = json.loads(cfscale("probe", f"{site}/", "-o", "json").stdout)["results"][0]

    assert result["http_status"] == 200
    assert result["flaky"] is False
    assert result["phases"]["first_byte_seconds"] > 0
    assert result["phases"]["tls_seconds"] is None


def test_a_sparkline_spans_its_values() -> None:
    from collections import deque

    assert sparkline(deque([0.1, None, 0.8, 0.45])) == "▁ █▄"
    assert sparkline(deque([0.2, 0.2])) == "▁▁"
    assert sparkline(deque()) == ""
