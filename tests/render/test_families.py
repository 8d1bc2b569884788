"""Each check is run for real, against a small server, wherever its program is at hand."""

import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from msgspec.structs import replace

from cfscale.core.plan import Health, HealthKind, Service
from cfscale.render.families import family_of, health_command
from tests.ports import free_port
from tests.render.plans import plan_for

AGENTS = plan_for("team").service("agents")
IMAGES = {"node": "node:20-slim", "python3": "python:3.13-slim"}


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response({"/ok": 200, "/teapot": 418, "/moved": 302}.get(self.path, 503))
        if self.path == "/moved":
            self.send_header("Location", "/ok")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def verdict(service: Service) -> str:
    test = health_command(service)
    assert test is not None
    assert test[0] == "CMD"
    return (
        "unhealthy" if subprocess.run(test[1:], capture_output=True, timeout=60, check=False).returncode else "healthy"
    )


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on the PATH")


@pytest.mark.process
@pytest.mark.parametrize("program", IMAGES)
@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/ok", 200, "healthy"),
        ("/teapot", 418, "healthy"),
        ("/teapot", 200, "unhealthy"),
        ("/gone", 200, "unhealthy"),
        ("/moved", 200, "unhealthy"),
    ],
)
def test_an_http_check_wants_exactly_the_planned_status(
    program: str, path: str, status: int, expected: str, port: int
) -> None:
    needs(program)
    health = Health(HealthKind.HTTP, path=path, status=status)

    assert verdict(replace(AGENTS, image=IMAGES[program], port=port, health=health)) == expected


@pytest.mark.process
@pytest.mark.parametrize("program", IMAGES)
@pytest.mark.parametrize("kind", [HealthKind.HTTP, HealthKind.TCP])
def test_a_check_fails_where_nobody_listens(program: str, kind: HealthKind) -> None:
    needs(program)
    service = replace(AGENTS, image=IMAGES[program], port=free_port(), health=Health(kind, path="/ok"))

    assert verdict(service) == "unhealthy"


@pytest.mark.process
@pytest.mark.parametrize("program", IMAGES)
def test_a_tcp_check_is_content_with_a_connection(program: str, port: int) -> None:
    needs(program)

    assert verdict(replace(AGENTS, image=IMAGES[program], port=port, health=Health(HealthKind.TCP))) == "healthy"


@pytest.mark.process
@pytest.mark.parametrize(("path", "expected"), [("/ok", "healthy"), ("/gone", "unhealthy")])
def test_the_balancer_is_asked_with_bash_alone(path: str, expected: str, port: int) -> None:
    needs("bash")
    balancer = replace(plan_for("team").service("loadbalancer"), port=port, health=Health(HealthKind.HTTP, path=path))

    assert verdict(balancer) == expected


@pytest.mark.process
def test_a_balancer_where_nobody_listens_is_not_healthy() -> None:
    needs("bash")

    assert verdict(replace(plan_for("team").service("loadbalancer"), port=free_port())) == "unhealthy"


@pytest.mark.parametrize(
    ("image", "family"),
    [
        ("cfscale/agents:2.21.0", "node"),
        ("cfscale/coordinator@sha256:0123", "node"),
        ("cfscale/demo-worker:1", "python"),
        ("localhost/node:20", "node"),
        ("registry.example:5000/team/python:3.13-slim@sha256:0123", "python"),
        ("other/agents:1", "unknown"),
        ("nginx", "unknown"),
    ],
)
def test_an_image_is_known_by_its_repository(image: str, family: str) -> None:
    assert family_of(replace(AGENTS, image=image)).name == family


@pytest.mark.parametrize(
    ("image", "family"), [("redis:8", "redis"), ("mirror.example/valkey:8", "valkey"), ("kv:1", "valkey")]
)
def test_the_queue_is_valkey_unless_its_image_is_redis(image: str, family: str) -> None:
    queue = replace(plan_for("team").service("queue"), image=image)

    assert family_of(queue).name == family
    assert f"{family}-cli" in " ".join(health_command(queue) or ())


def test_the_password_of_the_queue_is_no_argument_of_the_check() -> None:
    test = health_command(plan_for("team").service("queue"))

    assert test is not None
    assert "REDISCLI_AUTH=$(cat /run/secrets/queue_password) valkey-cli" in test[3]
    assert "-a" not in test[3].split()


@pytest.mark.parametrize("kind", [HealthKind.HTTP, HealthKind.TCP])
def test_an_unknown_image_is_asked_from_outside_only(kind: HealthKind) -> None:
    assert health_command(replace(AGENTS, image="nginx:1", health=Health(kind))) is None


def test_no_health_means_no_check() -> None:
    assert health_command(replace(AGENTS, health=Health(HealthKind.NONE))) is None
