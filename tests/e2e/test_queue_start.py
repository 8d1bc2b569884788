"""The start scripts of the queue with real members and one watcher, which alone may not choose: what the watchers would
do is done by hand, so that a member comes back at any moment of a replacement that a test wants."""

import os
from collections.abc import Iterator

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
MEMBERS, WATCHER = ("queue-1", "queue-2"), "sentinel-1"
HOUR = 3_600_000  # ms


class Queue(Struct, frozen=True):
    """Two members and a watcher."""

    password: str

    def ask(self, member: str, *words: str, port: int = 6379) -> list[str]:
        """The lines of an answer; none where the member does not answer."""
        inside = ("exec", "--env", f"REDISCLI_AUTH={self.password}", f"{NAME}-{member}")
        return docker(*inside, "valkey-cli", "-p", str(port), *words, check=False).splitlines()

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
            assert self.ask(WATCHER, "sentinel", *words, port=26379) == ["OK"]

    def begun(self) -> tuple[str, str]:
        """The primary and the other, which follows it; the watcher, started anew, will not do so by itself meanwhile."""
        primary, other = until(self.settled, 60, "one is primary and the other follows it")
        docker("restart", "--time", "0", f"{NAME}-{WATCHER}")
        until(lambda: self.watches(primary), 30, "the primary is watched")
        return primary, other

    def settled(self) -> tuple[str, str] | None:
        """The primary and the other, once that follows it."""
        for member in MEMBERS:  # by default a new replica is served five seconds later, for more of them may come
            self.ask(member, "config", "set", "repl-diskless-sync-delay", "0")
        pairs = (MEMBERS, MEMBERS[::-1])
        return next((pair for pair in pairs if self.role(pair[0]) == "master" and self.follows(pair[1], pair[0])), None)

    def missed(self) -> bool | None:
        """Whether the watcher finds the primary gone."""
        return "s_down" in " ".join(self.ask(WATCHER, "sentinel", "master", "queue", port=26379)) or None

    def watches(self, member: str) -> bool | None:
        """Whether this is the primary to the watcher."""
        answer = self.ask(WATCHER, "sentinel", "get-master-addr-by-name", "queue", port=26379)
        return answer[:1] == [address(member)] or None


def address(member: str) -> str:
    return docker(
        "inspect", "--format", f'{{{{(index .NetworkSettings.Networks "{NAME}").IPAddress}}}}', f"{NAME}-{member}"
    ).strip()


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    out = tmp_path_factory.mktemp("queue")
    write_tree(out, compose.render(plan_for("team"), load_templates()), "{}\n", force=False)
    ensure_secrets(out)
    configs = ("valkey.conf", "queue-start.sh", "sentinel.conf", "sentinel-start.sh")
    files = {f"config/{name}": f"/etc/cfscale/{name}" for name in configs}
    files |= {f"secrets/{name}": f"/run/secrets/{name}" for name in ("queue_auth.conf", "queue_password")}
    mounts = [word for source, target in files.items() for word in ("--volume", f"{out}/{source}:{target}:ro")]
    commands = {name: ("queue-start.sh", name) for name in MEMBERS} | {WATCHER: ("sentinel-start.sh",)}
    running = Queue((out / "secrets" / "queue_password").read_text().strip())
    docker("network", "create", NAME)
    try:
        for name, (script, *arguments) in commands.items():
            ways = f"--init --restart unless-stopped --user 999:999 --network {NAME} --network-alias {name}".split()
            command = ("sh", f"/etc/cfscale/{script}", *arguments)
            docker("run", "--detach", "--name", f"{NAME}-{name}", *ways, *mounts, IMAGE, *command)
        until(lambda: running.watches("queue-1"), 30, "the first is watched")
        yield running
    finally:
        for name in commands:
            docker("rm", "--force", "--volumes", f"{NAME}-{name}", check=False)
        docker("network", "rm", NAME)


@pytest.mark.parametrize("moved", [False, True], ids=["at its address", "at another address"])
def test_a_primary_that_comes_back_while_another_is_chosen_waits_and_follows_it(queue: Queue, *, moved: bool) -> None:
    """As primary it would take writes that are lost once it is told to follow; after an address it would follow nobody."""
    primary, other = queue.begun()
    queue.watch(NOBODY if moved else address(primary), 1)
    docker("kill", f"{NAME}-{primary}")
    until(queue.missed, 30, "the watcher misses it")
    docker("start", f"{NAME}-{primary}")

    for words in (("replicaof", "no", "one"), ("config", "rewrite")):  # what a watcher tells the chosen one
        assert queue.ask(other, *words) == ["OK"]
    until(lambda: queue.follows(primary, other), 30, "the old primary follows")


@pytest.mark.parametrize("silent_ms", [HOUR, 1], ids=["nobody missed it", "no other was chosen"])
def test_a_primary_is_it_again(queue: Queue, silent_ms: int) -> None:
    primary, _ = queue.begun()
    queue.watch(address(primary), silent_ms)
    docker("kill", f"{NAME}-{primary}")
    if silent_ms == 1:
        until(queue.missed, 30, "the watcher misses it")
    docker("start", f"{NAME}-{primary}")

    until(lambda: queue.role(primary) == "master" or None, 60, "it is the primary")


def test_a_watcher_of_an_address_that_nobody_has_any_more_finds_the_primary(queue: Queue) -> None:
    """A swarm gives a task that is replaced a new address: where all members are, nobody could tell the watchers."""
    primary, _ = queue.begun()
    queue.watch(NOBODY, 1)
    until(lambda: queue.watches(primary), 60, "the primary is watched again")
