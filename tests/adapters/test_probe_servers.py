"""Probes against the real servers: HAProxy, PostgreSQL, Redis or Valkey, nginx with certificates of every kind.

Each is a program of this machine, started on a free port and ended by its process id. One that is missing skips its
tests with the reason, except in CI, where it is installed.
"""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from cfscale.adapters.probes.ask import ask
from cfscale.adapters.probes.network import Network, TlsPolicy
from cfscale.adapters.probes.url import parse_target
from cfscale.core.health import Attempt, State
from tests.adapters.test_probes import JUDGING
from tests.ports import free_port

pytestmark = pytest.mark.process
GENEROUS = 10.0
POLICY = TlsPolicy(JUDGING.certificate_seconds)


def program(*names: str) -> str:
    """The first of these programs that there is; skips without, and fails in CI."""
    places = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    )
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    reason = f"needs {' or '.join(names)} on this machine"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def asked(url: str, policy: TlsPolicy = POLICY, **more: str) -> Attempt:
    async def main() -> Attempt:
        return await ask(parse_target(url, timeout_seconds=GENEROUS, **more), Network(JUDGING, policy=policy))

    return asyncio.run(main())


@contextmanager
def running(argv: list[str], port: int, cwd: Path, **options: object) -> Iterator[int]:
    """The server while it accepts connections on this port."""
    with (cwd / "output").open("wb") as output:
        server = subprocess.Popen(argv, cwd=cwd, stdout=output, stderr=output, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 30
        while not accepts(port):
            assert server.poll() is None, (cwd / "output").read_text()
            assert time.monotonic() < deadline, "it never listened"
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def accepts(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


# ---- HAProxy


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("haproxy"), free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n"
        "  http-request return status 200 content-type text/plain string ok if { path /healthz }\n"
        "  http-request return status 429 if { path /busy }\n"
        "  default_backend none\nbackend none\n"
    )
    with running([program("haproxy"), "-db", "-f", str(config)], port, folder):
        yield port


def test_haproxy_is_up(haproxy: int) -> None:
    attempt = asked(f"http://127.0.0.1:{haproxy}/healthz")

    assert (attempt.state, attempt.reason, attempt.status) == (State.UP, "HTTP 200", 200)


def test_haproxy_without_a_server_behind_it_is_down(haproxy: int) -> None:
    assert asked(f"http://127.0.0.1:{haproxy}/").reason == "HTTP 503"


def test_a_busy_haproxy_is_degraded(haproxy: int) -> None:
    assert asked(f"http://127.0.0.1:{haproxy}/busy").state is State.DEGRADED


# ---- Redis


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    argv = [program("redis-server", "valkey-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([*argv, "--requirepass", "sesame"], port, folder):
        yield port


def test_redis_is_up_with_its_password_and_without(redis: int) -> None:
    assert asked(f"redis://127.0.0.1:{redis}", password="sesame").reason == "PONG"
    assert asked(f"redis://127.0.0.1:{redis}").reason == "alive; asks for a password"


def test_redis_that_refuses_the_password_is_degraded(redis: int) -> None:
    assert asked(f"redis://127.0.0.1:{redis}", password="wrong").state is State.DEGRADED


def put(port: int, *words: str) -> None:
    command = b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"AUTH sesame\r\n*%d\r\n%b" % (len(words), command))
        assert connection.recv(64).startswith(b"+OK")


@pytest.mark.parametrize(
    ("sign", "state", "reason"),
    [
        (
            ("SET", "team:web:heartbeat", "alive", "EX", "90"),
            State.UP,
            r"heartbeat; expires in (8\d|90) s unless renewed$",
        ),
        (("SET", "team:web:heartbeat", "alive"), State.DEGRADED, "heartbeat of no known age"),
        (("SET", "team:web:heartbeat", "1500000000"), State.DOWN, "heartbeat "),
        (("DEL", "team:web:heartbeat"), State.DOWN, "no heartbeat: there is no key team:web:heartbeat"),
        (("HSET", "team:web:heartbeat", "a", "b"), State.DOWN, "no heartbeat: WRONGTYPE"),
    ],
)
def test_a_heartbeat_in_redis(redis: int, sign: tuple[str, ...], state: State, reason: str) -> None:
    put(redis, "DEL", "team:web:heartbeat")
    put(redis, *sign)
    attempt = asked(f"heartbeat://127.0.0.1:{redis}/team:web:heartbeat", password="sesame")

    assert attempt.state is state
    assert re.match(reason, attempt.reason)


def test_a_heartbeat_with_the_time_of_now_is_up(redis: int) -> None:
    put(redis, "SET", "beat", f'{{"timestamp": {int(time.time() * 1000)}}}')

    assert asked(f"heartbeat://127.0.0.1:{redis}/beat?max_age=1h", password="sesame").state is State.UP


def test_a_heartbeat_behind_a_password_is_unknown(redis: int) -> None:
    attempt = asked(f"heartbeat://127.0.0.1:{redis}/beat")

    assert attempt.state is State.UNKNOWN
    assert "--password-file" in attempt.reason


# ---- PostgreSQL


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server, init = program("postgres"), program("initdb")
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    options: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        options = {"user": "nobody", "group": "nogroup"}
        for path in (folder, *folder.parents):
            if path.owner() == "root" and path.name:
                path.chmod(path.stat().st_mode | 0o011)
        shutil.chown(folder, "nobody", "nogroup")
    data = folder / "data"
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(  # type: ignore[call-overload]
        [init, "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"],
        capture_output=True, check=False, cwd=folder, env=environment, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (data / "pg_hba.conf").write_text(
        "host postgres postgres 127.0.0.1/32 trust\nhost postgres locked 127.0.0.1/32 scram-sha-256\n"
    )
    argv = [server, "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
    with running(argv, port, folder, env=environment, **options):
        yield port


def patiently(url: str) -> Attempt:
    """The first answer of a server that has ended its start-up."""
    deadline = time.monotonic() + 30
    while (attempt := asked(url)).state is State.DOWN and time.monotonic() < deadline:
        time.sleep(0.05)
    return attempt


def test_postgres_that_trusts_us_answers_a_query(postgres: int) -> None:
    attempt = patiently(f"postgres://127.0.0.1:{postgres}")

    assert (attempt.state, attempt.reason) == (State.UP, "answers queries; primary")


def test_postgres_that_asks_for_a_password_is_up(postgres: int) -> None:
    attempt = patiently(f"postgres://locked@127.0.0.1:{postgres}/postgres")

    assert (attempt.state, attempt.reason) == (State.UP, "alive; asks for a password (SCRAM)")


def test_postgres_that_refuses_us_is_up(postgres: int) -> None:
    attempt = patiently(f"postgres://stranger@127.0.0.1:{postgres}")

    assert attempt.state is State.UP
    assert attempt.reason.startswith("alive; refuses this user: no pg_hba.conf entry")


def test_a_protocol_that_is_not_postgres_is_down(haproxy: int) -> None:
    attempt = asked(f"postgres://127.0.0.1:{haproxy}")

    assert attempt.state is State.DOWN
    assert attempt.reason.startswith("not a PostgreSQL answer")


# ---- nginx, with certificates of every kind


def certificate(folder: Path, name: str, *, days: tuple[str, str], host: str, signed: bool) -> None:
    """A key and a certificate for ``host``, valid between two dates of openssl's."""
    openssl = program("openssl")

    def run(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    if not (folder / "ca.pem").exists():
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
            "-out", "ca.pem", "-days", "3650", "-subj", "/CN=test authority")  # fmt: skip
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\n"
            "policy=p\nunique_subject=no\ncopy_extensions=copy\n[p]\ncommonName=supplied\n"
        )
    run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
        "-out", f"{name}.csr", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")  # fmt: skip
    signer = ["-cert", "ca.pem", "-keyfile", "ca.key"] if signed else ["-selfsign", "-keyfile", f"{name}.key"]
    run("ca", "-batch", "-config", "ca.cnf", *signer, "-in", f"{name}.csr", "-out", f"{name}.pem", "-notext",
        "-startdate", days[0], "-enddate", days[1])  # fmt: skip


def date(days: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + days * 86_400))


# from and to (days from now), host, signed by the authority
CERTIFICATES = {
    "good": (-1, 90.5, "localhost", True),
    "short": (-1, 3.5, "localhost", True),
    "zero": (-1, 0.01, "localhost", True),
    "expired": (-30, -2.5, "localhost", True),
    "early": (5.5, 90, "localhost", True),
    "elsewhere": (-1, 90.5, "elsewhere.test", True),
    "selfsigned": (-1, 90.5, "localhost", False),
}


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, int], Path]]:
    server, folder = program("nginx"), tmp_path_factory.mktemp("nginx")
    ports = {name: free_port() for name in CERTIFICATES}
    blocks = ""
    for name, port in ports.items():
        first, last, host, signed = CERTIFICATES[name]
        certificate(folder, name, days=(date(first), date(last)), host=host, signed=signed)
        blocks += (
            f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/{name}.pem;"
            f' ssl_certificate_key {folder}/{name}.key; location / {{ return 200 "ok"; }} }}\n'
        )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events { worker_connections 64; }\n"
        + f"http {{ access_log off; {''.join(f'{kind}_temp_path {folder}/{kind}; ' for kind in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'))}\n{blocks} }}\n"
    )
    with running([server, "-c", str(folder / "nginx.conf"), "-p", str(folder)], ports["good"], folder):
        yield ports, folder / "ca.pem"


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("good", State.UP, "HTTP 200"),
        ("short", State.DEGRADED, "HTTP 200; certificate expires in 3 days"),
        ("zero", State.DEGRADED, "HTTP 200; certificate expires in 0 days"),
        ("expired", State.DOWN, "certificate expired 2 days ago"),
        ("early", State.DOWN, "certificate not valid before 5 days from now"),
        (
            "elsewhere",
            State.DOWN,
            "certificate: Hostname mismatch, certificate is not valid for 'localhost'.; 90 days left",
        ),
        ("selfsigned", State.DOWN, "certificate: self-signed certificate; 90 days left"),
    ],
)
def test_fault_25_a_bad_certificate_is_told_with_its_days(
    nginx: tuple[dict[str, int], Path], name: str, state: State, reason: str
) -> None:
    ports, authority = nginx
    attempt = asked(f"https://localhost:{ports[name]}/", replace(POLICY, authorities=authority))

    assert (attempt.state, attempt.reason) == (state, reason)
    assert attempt.certificate_expires_at is not None


def test_fault_25_a_bad_certificate_is_degraded_where_that_is_the_policy(nginx: tuple[dict[str, int], Path]) -> None:
    ports, authority = nginx
    attempt = asked(f"https://localhost:{ports['expired']}/", replace(POLICY, authorities=authority, tolerant=True))

    assert (attempt.state, attempt.reason) == (State.DEGRADED, "HTTP 200; certificate expired 2 days ago")


def test_an_authority_that_nobody_trusts_is_down(nginx: tuple[dict[str, int], Path]) -> None:
    ports, _ = nginx

    assert asked(f"https://localhost:{ports['good']}/").reason.endswith("; 90 days left")


def test_the_handshake_alone_tells_the_days(nginx: tuple[dict[str, int], Path]) -> None:
    ports, authority = nginx
    attempt = asked(f"tls://localhost:{ports['good']}", replace(POLICY, authorities=authority))

    assert (attempt.state, attempt.reason) == (State.UP, "TLS, certificate expires in 90 days")
    assert attempt.phases is not None
    assert attempt.phases.tls_seconds is not None
