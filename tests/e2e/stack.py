"""A deployment of a whole tier on the real engine, started once for all the tests of a module, and the ways to ask it."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

WORKER = (Path(__file__).parent / "worker.py").read_text()
PROJECT = "label=com.docker.compose.project"
T = TypeVar("T")


def docker(*words: str, check: bool = True, timeout: float = 120) -> str:
    """What a docker command printed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def until(answer: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first answer that is one; fails where none comes within this time."""
    deadline = time.monotonic() + seconds
    while (found := answer()) is None:
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)  # between two questions to an outside system
    return found


class Stack(Struct, frozen=True):
    """A running deployment."""

    name: str
    port: int
    profile: Path
    env: Mapping[str, str]

    def cfscale(self, command: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command on this deployment."""
        return self._ran([command, str(self.profile), *words], check=check)

    def told(self, command: str, service: str) -> subprocess.CompletedProcess[str]:
        """Run one command that is about a service of it."""
        return self._ran([command, service, "--profile", str(self.profile)], check=True)

    def _ran(self, words: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "cfscale", *words]
        done = subprocess.run(argv, env=dict(self.env), capture_output=True, text=True, timeout=400, check=False)
        sys.stdout.write(f"$ cfscale {' '.join(words)}\n{done.stdout}{done.stderr}")
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def folder(self) -> Path:
        """Where its manifests are."""
        return Path(self.env["CFSCALE_STATE_DIR"]) / "compose"

    def secret(self, name: str) -> str:
        """One of its passwords."""
        return (self.folder / "secrets" / name).read_text().strip()

    def plan(self) -> dict[str, dict[str, object]]:
        """The services of its plan by name."""
        services = json.loads(self.cfscale("plan", "-o", "json").stdout)["services"]
        return {service["name"]: service for service in services}

    def containers(self, service: str) -> list[str]:
        """The containers of a service of the plan, in the order of their names."""
        found = docker(
            "ps", "--all", "--format", "{{.Names}}", "--filter", f"{PROJECT}={self.name}",
            "--filter", f"label=cfscale.service={service}",
        )  # fmt: skip
        return sorted(found.split())

    def run(self, container: str, *words: str, env: Mapping[str, str] | None = None, check: bool = True) -> str:
        """What a command prints inside a container."""
        flags = [word for name, value in (env or {}).items() for word in ("--env", f"{name}={value}")]
        return docker("exec", *flags, container, *words, check=check)

    def sql(self, text: str, *, database: str = "app", check: bool = True) -> str:
        """The answer to SQL that goes through the pooler."""
        words = ("psql", "-h", "127.0.0.1", "-p", "6432", "-U", "app", "-d", database, "-tAc", text)
        env = {"PGPASSWORD": self.secret("database_password"), "PGCONNECT_TIMEOUT": "5"}
        return self.run(f"{self.name}-pooler-1", *words, env=env, check=check).strip()

    def valkey(self, store: str, *words: str, host: str = "127.0.0.1", port: int = 6379, check: bool = True) -> str:
        """The answer to one command of Valkey, asked from the first member of the store."""
        env = {"REDISCLI_AUTH": self.secret(f"{store}_password")}
        asked = ("timeout", "4", "valkey-cli", "-h", host, "-p", str(port), *words)
        return self.run(f"{self.name}-{self.members(store)[0]}-1", *asked, env=env, check=check).strip()

    def members(self, service: str) -> list[str]:
        """What the members of a service are called."""
        return [name.removeprefix(f"{self.name}-").rpartition("-")[0] for name in self.containers(service)]

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, *, balancer: int = 0
    ) -> tuple[int, str, dict[str, str]]:
        """One request through a balancer: status, text, and the headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port + balancer, timeout=30)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode("latin-1"), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def servers(self, backend: str, balancer: int = 1) -> dict[str, str]:
        """The state of the servers of a backend that have an address, as a balancer sees it."""
        return {name: row["status"] for name, row in self.statistics(backend, balancer).items()}

    def statistics(self, backend: str, balancer: int = 1) -> dict[str, dict[str, str]]:
        """What a balancer counts of the servers of a backend that have an address."""
        script = 'exec 3<>/dev/tcp/127.0.0.1/9999; printf "show stat %s 4 -1\\n" "$1" >&3; cat <&3'
        rows = self.run(f"{self.name}-loadbalancer-{balancer}", "bash", "-c", script, "-", backend).splitlines()
        head = rows[0].removeprefix("# ").split(",")
        found = [dict(zip(head, row.split(","), strict=False)) for row in rows[1:] if row]
        return {row["svname"]: row for row in found if "resolution" not in row["status"]}


@contextmanager
def started(profile: str, name: str, port: int, scratch: Path) -> Iterator[Stack]:
    """The deployment of a profile, until it is taken down without a trace."""
    path = scratch / "cfscale.yaml"
    path.write_text(profile)
    clear(name)  # a run that was killed leaves volumes, and with them the passwords of other secrets
    stack = Stack(name, port, path, {**os.environ, "CFSCALE_STATE_DIR": str(scratch / "state"), "NO_COLOR": "1"})
    try:
        stack.cfscale("up", "--engine", "compose", "--timeout", "4m")
        yield stack
    finally:
        kill_all(name)
        stack.cfscale("down", "--volumes", "--yes", check=False)
    assert left_behind(name) == []
    assert docker("volume", "ls", "--quiet", "--filter", f"{PROJECT}={name}") == ""


def kill_all(project: str) -> None:
    """End a deployment before it is taken down: that all of it ends in good order, one after the other, is seen elsewhere."""
    for container in docker("ps", "--quiet", "--filter", f"{PROJECT}={project}").split():
        docker("kill", container, check=False)  # one by one: the engine miscounts what ends all at once


def left_behind(project: str) -> list[str]:
    """Containers and networks of a project that are still there.

    Not a network of which the engine itself says both that nothing is attached and that it has active endpoints: Docker
    20.10 miscounts when many containers end at once on a busy machine, and nothing but its restart mends that.
    """
    label = f"label=com.docker.compose.project={project}"
    found = docker("ps", "--all", "--quiet", "--filter", label).split()
    networks = docker("network", "ls", "--quiet", "--filter", label).split()
    return found + [network for network in networks if not _miscounted(network)]


def _miscounted(network: str) -> bool:
    if docker("network", "inspect", "--format", "{{len .Containers}}", network).strip() != "0":
        return False
    done = subprocess.run(["docker", "network", "rm", network], capture_output=True, text=True, timeout=60, check=False)
    return "has active endpoints" in done.stderr


def clear(name: str) -> None:
    """Remove whatever there is of a project, its data included."""
    for kind, listed in (("container", ("ls", "--all")), ("volume", ("ls",)), ("network", ("ls",))):
        if found := docker(kind, *listed, "--quiet", "--filter", f"{PROJECT}={name}").split():
            docker(kind, "rm", "--force", *found) if kind != "network" else docker(kind, "rm", *found)


def report(title: str, **figures: object) -> None:
    """Print what was measured: shown with ``pytest -rP``, and in what CI keeps."""
    sys.stdout.write(f"measured {title}: {', '.join(f'{name} {value}' for name, value in figures.items())}\n")


__all__ = ["WORKER", "Stack", "docker", "left_behind", "report", "started", "until"]
