"""The start scripts of the queue with real members and one watcher, which alone may not choose: what the watchers would
do is done by hand, so that a member comes back at any moment of a replacement that a test wants."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec import Struct

from cfscale.adapters.assets import load_templates
from cfscale.adapters.files import ensure_secrets, write_tree
from cfscale.render import compose
from tests.e2e.stack import docker, until
from tests.render.plans import plan_for

pytestmark = pytest.mark.engine

NAME = f"cfscale-e2e-queue-{os.getpid()}"
IMAGE = "valkey/valkey:8.1"
NOBODY = "192.0.2.1"  # RFC 5737: an address that no machine has
MEMBERS = ("queue-1", "queue-2")
HOUR = 3_600_000  # ms


class Queue(Struct, frozen=True):
    """Two members and a watcher."""

    password: str

    def ask(self, member: str, *words: str, port: int = 6379) -> list[str]:
        """The lines of an answer; none where the member does not answer."""
        argv = (
            "exec",
            "--env",
            f"REDISCLI_AUTH={self.password}",
            f"{NAME}-{member}",
            "valkey-cli",
            "-p",
            str(port),
            *words,
        )
        return docker(*argv, check=False).splitlines()

    def role(self, member: str) -> str | None:
        return next(iter(self.ask(member, "role")), None)

    def follows(self, member: str, primary: str) -> bool | None:
        """Whether it has all that the primary has."""
        role = self.ask(member, "role")
        return (role[:2] == ["slave", address(primary)] and role[3] == "connected") or None

    def watch(self, at: str, silent_ms: int) -> None:
        """Have the watcher watch a primary."""
        for words in (
            ("remove", "queue"),
            ("monitor", "queue", at, "6379", "2"),
            ("set", "queue", "auth-pass", self.password),
            ("set", "queue", "down-after-milliseconds", str(silent_ms)),
        ):
            assert self.ask("sentinel-1", "sentinel", *words, port=26379) == ["OK"]

    def prompt(self, member: str) -> bool | None:
        """Have it serve a new replica at once: by default it waits five seconds for more of them to come."""
        return self.ask(member, "config", "set", "repl-diskless-sync-delay", "0") == ["OK"] or None

    def missed(self) -> bool | None:
        """Whether the watcher finds the primary gone."""
        return "s_down" in " ".join(self.ask("sentinel-1", "sentinel", "master", "queue", port=26379)) or None

    def watches(self, member: str) -> bool | None:
        """Whether this is the primary to the watcher."""
        answer = self.ask("sentinel-1", "sentinel", "get-master-addr-by-name", "queue", port=26379)
        return answer[:1] == [address(member)] or None


def address(member: str) -> str:
    return docker(
        "inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{NAME}").IPAddress}}}}', f"{NAME}-{member}"
    ).strip()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    write_tree(tmp_path, compose.render(plan_for("team"), load_templates()), "{}\n", force=False)
    ensure_secrets(tmp_path)
    files = {
        f"config/{name}": f"/etc/cfscale/{name}"
        for name in ("valkey.conf", "queue-start.sh", "sentinel.conf", "sentinel-start.sh")
    }
    files |= {f"secrets/{name}": f"/run/secrets/{name}" for name in ("queue_auth.conf", "queue_password")}
    mounts = [word for source, target in files.items() for word in ("--volume", f"{tmp_path}/{source}:{target}:ro")]
    running = Queue((tmp_path / "secrets" / "queue_password").read_text().strip())
    commands = {name: ("queue-start.sh", name) for name in MEMBERS} | {"sentinel-1": ("sentinel-start.sh",)}
    docker("network", "create", NAME)
    try:
        for name, (script, *arguments) in commands.items():
            words = f"--init --restart unless-stopped --name {NAME}-{name} --network {NAME} --network-alias {name} --user 999:999".split()
            docker("run", "--detach", *words, *mounts, IMAGE, "sh", f"/etc/cfscale/{script}", *arguments)
            if name in MEMBERS:
                until(partial(running.prompt, name), 30, "it answers")
        until(lambda: running.follows("queue-2", "queue-1"), 30, "the second follows the first")
        until(lambda: running.watches("queue-1"), 30, "the first is watched")
        yield running
    finally:
        for name in commands:
            docker("rm", "--force", "--volumes", f"{NAME}-{name}", check=False)
        docker("network", "rm", NAME)


@pytest.mark.parametrize("moved", [False, True], ids=["at its address", "at another address"])
def test_a_primary_that_comes_back_while_another_is_chosen_waits_and_follows_it(queue: Queue, *, moved: bool) -> None:
    """As primary it would take writes that are lost once it is told to follow; after an address it would follow nobody."""
    queue.watch(NOBODY if moved else address("queue-1"), 1)
    docker("kill", f"{NAME}-queue-1")
    until(queue.missed, 30, "the watcher misses it")
    docker("start", f"{NAME}-queue-1")

    assert queue.ask("queue-2", "replicaof", "no", "one") == ["OK"]  # what a watcher tells the chosen one
    until(lambda: queue.follows("queue-1", "queue-2"), 30, "the old primary follows")


@pytest.mark.parametrize("silent_ms", [HOUR, 1], ids=["nobody missed it", "no other was chosen"])
def test_a_primary_is_it_again(queue: Queue, silent_ms: int) -> None:
    queue.watch(address("queue-1"), silent_ms)
    docker("kill", f"{NAME}-queue-1")
    if silent_ms == 1:
        until(queue.missed, 30, "the watcher misses it")
    docker("start", f"{NAME}-queue-1")

    until(lambda: queue.role("queue-1") == "master" or None, 60, "it is the primary")


def test_a_watcher_of_an_address_that_nobody_has_any_more_finds_the_primary(queue: Queue) -> None:
    """A swarm gives a task that is replaced a new address: where all members are, nobody could tell the watchers."""
    queue.watch(NOBODY, 1)
    until(lambda: queue.watches("queue-1"), 60, "the primary is watched again")
