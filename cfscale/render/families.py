"""What is known of container images by their name: the user they run as and the programs they have.

A health check runs inside the container and may use nothing that the image lacks; hardly any has curl. An image that
is not in this table is asked from outside only, by the balancer and by ``cfscale probe``, and keeps its own user.

    family    user           asked with            images
    node      10001:10001    node -e fetch         node, cfscale/coordinator, cfscale/agents
    python    10001:10001    python3 -c            python, cfscale/demo-worker
    valkey    999:999        valkey-cli ping       every queue, unless its image is called redis
    redis     999:999        redis-cli ping        redis
    haproxy   99:99          bash and /dev/tcp     every balancer
    postgres  999:999        python3, of Patroni   every database
    pgbouncer 70:70          pg_isready            every pooler
    etcd      0:0            etcdctl               every etcd: root without a capability, whose a new volume is
"""

from math import ceil

from msgspec import Struct

from cfscale.core.plan import HealthKind, Service

# An in-container check starts an interpreter, on the CPU share of a replica that may be saturated: that time is not
# the service's, so Docker gets it on top of the timeout of the question.
START_ALLOWANCE_SECONDS = 5.0

_NODE_HTTP = (
    "const [url, status, ms] = process.argv.slice(1); "
    "fetch(url, {redirect: 'manual', signal: AbortSignal.timeout(+ms)})"
    ".then(answer => process.exit(answer.status === +status ? 0 : 1), () => process.exit(1))"
)
_NODE_TCP = (
    "const [port, ms] = process.argv.slice(1); const socket = require('net').connect(+port, '127.0.0.1'); "
    "socket.setTimeout(+ms, () => process.exit(1)); "
    "socket.on('error', () => process.exit(1)); socket.on('connect', () => process.exit(0))"
)
_PYTHON_HTTP = (
    "import sys, http.client; port, path, status, seconds = sys.argv[1:]; "
    "asked = http.client.HTTPConnection('127.0.0.1', int(port), timeout=float(seconds)); "
    "asked.request('GET', path); sys.exit(asked.getresponse().status != int(status))"
)
_PYTHON_TCP = (
    "import sys, socket; port, seconds = sys.argv[1:]; "
    "socket.create_connection(('127.0.0.1', int(port)), float(seconds)).close()"
)
_BASH_HTTP = (
    'exec 3<>"/dev/tcp/127.0.0.1/$1"; printf "GET %s HTTP/1.0\\r\\n\\r\\n" "$2" >&3; '
    'read -r -t "$3" _ status _ <&3; test "$status" = 200'
)
_PATRONI = (
    "import sys, urllib.request; urllib.request.urlopen('http://127.0.0.1:8008/health', timeout=float(sys.argv[1]))"
)
# the password goes through the environment of one short-lived process: an argument would show in every process list
_PING = 'test "$(REDISCLI_AUTH=$(cat /run/secrets/%s_password) %s -h 127.0.0.1 -p "$1" ping)" = PONG'


class Family(Struct, frozen=True):
    """A kind of image; ``user`` None leaves the image's own."""

    name: str
    user: str | None


_UNKNOWN = Family("unknown", None)
_NODE, _PYTHON = Family("node", "10001:10001"), Family("python", "10001:10001")
_POSTGRES, _PGBOUNCER, _ETCD = Family("postgres", "999:999"), Family("pgbouncer", "70:70"), Family("etcd", "0:0")
_VALKEY, _REDIS, _HAPROXY = Family("valkey", "999:999"), Family("redis", "999:999"), Family("haproxy", "99:99")
_PARTS = {"loadbalancer": _HAPROXY, "database": _POSTGRES, "pooler": _PGBOUNCER, "etcd": _ETCD}
_STORES = frozenset({"queue", "memory", "cache", "sentinel"})
_FAMILIES = {
    "cfscale/coordinator": _NODE,
    "cfscale/agents": _NODE,
    "cfscale/demo-worker": _PYTHON,
    "node": _NODE,
    "python": _PYTHON,
    "redis": _REDIS,
}


def family_of(service: Service) -> Family:
    """The family of a service's image; components are known by their part, whoever built the image."""
    if service.name in _PARTS:
        return _PARTS[service.name]
    repository = _repository(service.image)
    known = _FAMILIES.get(repository) or _FAMILIES.get(repository.rpartition("/")[2], _UNKNOWN)
    if service.name in _STORES:
        return known if known is _REDIS else _VALKEY
    return known


def _repository(image: str) -> str:
    """``registry:5000/team/app:1@sha256:..`` -> ``team/app``."""
    name = image.partition("@")[0]
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        name = rest
    return name.partition(":")[0]


def health_command(service: Service) -> tuple[str, ...] | None:
    """The check to run inside the container, as Docker's ``test``; None where there is nothing to run it with."""
    if service.health.kind is HealthKind.NONE:
        return None
    family = family_of(service).name
    if family in {"valkey", "redis"}:
        if service.name == "sentinel":  # it has no password, nor anything to protect with one
            return ("CMD", f"{family}-cli", "-p", str(service.port), "ping")
        return ("CMD", "sh", "-c", _PING % (service.name, f"{family}-cli"), "-", str(service.port))
    if family in _ASKED:
        return ("CMD", *_ASKED[family], *_arguments(family, service))
    if family == "haproxy":
        seconds = str(ceil(service.health.timeout_seconds))
        return ("CMD", "bash", "-c", _BASH_HTTP, "-", str(service.port), service.health.path, seconds)
    return _interpreted(family, service)


_ASKED = {
    "postgres": ("python3", "-c", _PATRONI),
    "pgbouncer": ("pg_isready", "--quiet", "--host=127.0.0.1", "--username=app", "--dbname=app"),
    "etcd": ("etcdctl", "endpoint", "health"),
}


def _arguments(family: str, service: Service) -> tuple[str, ...]:
    if family == "postgres":
        return (str(service.health.timeout_seconds),)
    if family == "pgbouncer":
        return (f"--port={service.port}",)
    return (f"--endpoints=http://127.0.0.1:{service.port}",)


def _interpreted(family: str, service: Service) -> tuple[str, ...] | None:
    health, port, seconds = service.health, str(service.port), service.health.timeout_seconds
    web = health.kind in {HealthKind.HTTP, HealthKind.JSONRPC}
    if family == "node":
        url, milliseconds = f"http://127.0.0.1:{port}{health.path}", str(round(seconds * 1000))
        asked = [_NODE_HTTP, url, str(health.status)] if web else [_NODE_TCP, port]
        return ("CMD", "node", "-e", *asked, milliseconds)
    if family == "python":
        asked = [_PYTHON_HTTP, port, health.path, str(health.status)] if web else [_PYTHON_TCP, port]
        return ("CMD", "python3", "-c", *asked, str(seconds))
    return None
