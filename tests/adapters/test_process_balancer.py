import os
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cfscale.adapters.process import ProcessEngine, balancer
from cfscale.core.samples import ReplicaState
from cfscale.errors import InputError, UnavailableError
from tests.adapters.process_lab import Lab, get, is_gone, mode, plan_of, service, wait_for, wait_ready
from tests.ports import free_port

needs_haproxy = pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy on the PATH")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def balanced(lab: Lab, port: int, **changes: Any) -> ProcessEngine:
    front = service(
        "loadbalancer", command=(), publish=f"127.0.0.1:{port}-{port + 1}", routes=("/",), stop_grace_seconds=2.0
    )
    coordinator = service("coordinator", routes=("/rpc", "/mcp"), sticky_header="Mcp-Session-Id")
    return lab.engine(front, coordinator, service(routes=("/",), **changes))


class Load:
    """Clients that know nothing but the balancer's address."""

    def __init__(self, address: str) -> None:
        self.answered, self.failures = Counter[str](), list[str]()
        self._address, self._finished = address, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(6)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._finished.is_set():
            try:
                self.answered[str(get(self._address, "/work?ms=30")["replica"])] += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))


@needs_haproxy
@pytest.mark.process
def test_no_request_is_lost_while_replicas_come_and_go_behind_haproxy(lab: Lab) -> None:
    port = free_port()
    engine = balanced(lab, port)
    engine.up({"loadbalancer": 2, "coordinator": 1, "agents": 1})
    wait_ready(engine, 1)
    wait_ready(engine, 1, "loadbalancer")
    with Load(f"127.0.0.1:{port}") as load:
        for _ in range(2):
            engine.grow(service(), 3)
            replicas = wait_ready(engine, 3)
            load.answered.clear()
            wait_for(lambda: len(load.answered) == 3, "an answer of each replica")
            engine.shrink(service(), 1, replicas[:2])
            load.answered.clear()
            wait_for(lambda: load.answered.total() > 10, "answers of the replica that stays")
            assert set(load.answered) == {str(replicas[2].name[-1])}
            engine.grow(service(), 2)
            wait_ready(engine, 2)
            engine.shrink(service(), 1, [replicas[2]])
    assert load.failures == []


@needs_haproxy
@pytest.mark.process
def test_a_killed_replica_and_a_killed_haproxy_come_back_into_rotation(lab: Lab) -> None:
    port = free_port()
    engine = balanced(lab, port)
    engine.up({"loadbalancer": 1, "coordinator": 1, "agents": 2})
    for pid in [item.pid for item in wait_ready(engine, 2) + wait_ready(engine, 1, "loadbalancer")]:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: all(
            item.restarts == 1 and item.state is ReplicaState.READY
            for item in engine.replicas()
            if item.service != "coordinator"
        ),
        "all back",
    )
    answers = Counter(get(f"127.0.0.1:{port}", "/work?ms=1")["replica"] for _ in range(10))
    assert set(answers) == {"1", "2"}


@needs_haproxy
@pytest.mark.process
def test_routes_lead_to_their_services_and_the_admin_socket_is_private(lab: Lab) -> None:
    port = free_port()
    engine = balanced(lab, port)
    engine.up({"loadbalancer": 1, "coordinator": 1, "agents": 1})
    for name in ("agents", "coordinator", "loadbalancer"):
        wait_ready(engine, 1, name)
    found = wait_for(lambda: routes(port), "routes to both services")
    assert found == ("coordinator", "coordinator", "agents")
    assert mode(lab.layout.balancer_socket) == mode(lab.layout.balancer_config) == 0o600
    pids = [item.pid for item in engine.replicas() if item.pid]
    engine.down(volumes=False)
    assert all(is_gone(pid) for pid in pids)
    log = lab.log("supervisor")
    assert log.index("loadbalancer-1 stopped") < log.index("agents-1 stopped") < log.index("coordinator-1 stopped")


def routes(port: int) -> tuple[str, ...]:
    try:
        return tuple(get(f"127.0.0.1:{port}", path)["env"]["CFSCALE_SERVICE"] for path in ("/rpc", "/mcp/x", "/other"))
    except (OSError, AssertionError):
        return ()


@needs_haproxy
@pytest.mark.process
def test_a_request_that_never_ends_delays_a_shrink_by_the_grace_period_only(lab: Lab) -> None:
    port = free_port()
    engine = balanced(lab, port, stop_grace_seconds=0.5)
    agents = service(routes=("/",), stop_grace_seconds=0.5)
    engine.up({"loadbalancer": 1, "coordinator": 1, "agents": 1})
    [replica] = wait_ready(engine, 1)
    wait_ready(engine, 1, "loadbalancer")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"GET /work?ms=60000 HTTP/1.0\r\n\r\n")
        rotation = balancer.Rotation(lab.layout.balancer_socket)
        wait_for(lambda: rotation.sessions()["agents/agents-1"] == 1, "the request at the replica")
        engine.shrink(agents, 0, [replica])
    assert replica.pid is not None
    assert is_gone(replica.pid)


@needs_haproxy
@pytest.mark.process
def test_a_publish_port_in_use_is_refused_before_anything_starts(lab: Lab) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            balanced(lab, port).up({"loadbalancer": 1, "coordinator": 1, "agents": 1})
    assert list(lab.layout.logs.glob("agents*")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"routes": ("/a\n    bind :1",)},
        {"routes": ("/a }",)},
        {"routes": ("api",)},
        {"routes": ("/",), "sticky_header": "X\ny"},
    ],
)
def test_what_would_be_read_as_haproxy_configuration_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"services\.agents"):
        balancer.require_plain(plan_of(service("loadbalancer", command=()), service(**changes)))


@needs_haproxy
def test_haproxy_accepts_the_configuration_and_its_socket_s_name(tmp_path: Path) -> None:
    plan = plan_of(
        service("loadbalancer", command=(), publish="127.0.0.1:18999"),
        service(routes=("/",), sticky_header="X-Swarm-Id"),
    )
    config = tmp_path / "haproxy.cfg"
    config.write_text(balancer.render(plan, tmp_path / "a b#c" / "haproxy.sock"))
    checked = subprocess.run(["haproxy", "-c", "-f", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_longer_routes_come_first() -> None:
    plan = plan_of(
        service("loadbalancer", command=()), service(routes=("/",)), service("coordinator", routes=("/rpc", "/rpc/v2"))
    )
    rules = [line.split()[-2] for line in balancer.render(plan, Path("/s")).splitlines() if "use_backend" in line]
    assert rules == ["/rpc/v2", "/rpc", "/"]


def test_a_haproxy_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="haproxy does not answer"):
        balancer.Rotation(tmp_path / "none.sock").apply({"agents/agents-1": balancer.Server(balancer.Rotate.READY, 1)})


@pytest.mark.process
@pytest.mark.skipif(
    shutil.which("valkey-server") is None and shutil.which("redis-server") is None,
    reason="no valkey-server or redis-server on the PATH",
)
def test_the_queue_keeps_its_data_and_asks_for_the_password_of_a_private_file(lab: Lab) -> None:
    engine = lab.engine(service("queue", command=(), stop_grace_seconds=5.0), service())
    engine.up({"queue": 3, "agents": 1})
    [queue] = wait_ready(engine, 1, "queue")
    [agent] = wait_ready(engine, 1)
    env = get(str(agent.address), "/")["env"]
    assert env["CFSCALE_QUEUE"] == queue.address
    password = Path(env["CFSCALE_QUEUE_PASSWORD_FILE"]).read_text()
    assert mode(lab.layout.queue_password) == mode(lab.layout.queue_config) == 0o600
    assert password.encode() not in Path(f"/proc/{queue.pid}/cmdline").read_bytes()
    assert talk(env["CFSCALE_QUEUE"], "LPUSH q task").startswith("-NOAUTH")
    assert talk(env["CFSCALE_QUEUE"], f"AUTH {password}", "LPUSH q task", "CONFIG GET maxmemory-policy").startswith(
        "+OK\r\n:1\r\n"
    )
    engine.down(volumes=False)
    engine.up({"queue": 1, "agents": 1})
    [queue] = wait_ready(engine, 1, "queue")
    assert talk(str(queue.address), f"AUTH {password}", "LLEN q") == "+OK\r\n:1\r\n"
    engine.down(volumes=True)
    assert not lab.layout.data.exists()
    assert not lab.layout.queue_password.exists()


def talk(address: str, *commands: str) -> str:
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    return answer.decode().removesuffix("+OK\r\n")
