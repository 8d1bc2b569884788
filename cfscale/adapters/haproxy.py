"""HAProxy's runtime API: takes replicas out of rotation, says what they still hold, gives their slots back.

    address ─▶ slots (backend/server) in every backend of every balancer ─▶ set server ... state maint | ready

``maint`` rather than ``drain``: requests in flight are finished alike, but ``drain`` still lets in whoever has a
sticky session, so that a stop would cut requests off.
"""

import csv
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from msgspec import Struct

from cfscale.core.plan import SPAWN
from cfscale.errors import UnavailableError

_TIMEOUT_SECONDS = 2.0
# bits of srv_admin_state: maintenance or drain by command; no address from the resolver
_FORCED = 0x01 | 0x08
_UNRESOLVED = 0x20
_STATE_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_uweight")
_WEIGHED = f".{SPAWN}"
_COMMANDS_AT_ONCE = 40

T = TypeVar("T")
Send = Callable[[str], str]
Row = Mapping[str, str]


class Slot(Struct, frozen=True):
    """One server line of one balancer: where it points now and its administrative state."""

    name: str
    address: str
    admin_state: int
    weight: int

    @property
    def weighed(self) -> bool:
        """Whether its backend takes the requests that start agents."""
        return self.name.partition("/")[0].endswith(_WEIGHED)

    @property
    def taken_out(self) -> bool:
        """Whether a command, ours or somebody's, keeps it out of rotation."""
        return bool(self.admin_state & _FORCED)

    @property
    def empty(self) -> bool:
        """Whether it has lost its address and waits for the next."""
        return bool(self.admin_state & _UNRESOLVED)


class HaproxyBalancer:
    """All balancers of a deployment as one. ``balancers`` gives a ``Send`` (command in, answer out) for each that runs.

    It is asked anew for every operation, since balancers come and go. An operation that reaches only some of them
    raises UnavailableError and says how many.
    """

    def __init__(self, balancers: Callable[[], Sequence[Send]]) -> None:
        self._balancers = balancers

    def drain(self, addresses: Sequence[str]) -> None:
        """Send no new requests to these addresses; those in flight are finished."""
        wanted = frozenset(addresses)
        self._each(partial(_take_out, wanted))

    def sessions(self, addresses: Sequence[str]) -> int:
        """Requests that these addresses hold, those still queued for them included."""
        wanted = frozenset(addresses)
        return sum(self._each(partial(_held, wanted)))

    def ready(self, addresses: Sequence[str]) -> None:
        """Give the slots of these addresses back, and those that have lost their address while taken out.

        A slot must pass its health check before it is used: its replica may be gone already.
        """
        wanted = frozenset(addresses)
        self._each(partial(_give_back, wanted))

    def weigh(self, weights: Mapping[str, int]) -> None:
        """Give servers of the backends for requests that start agents these weights by address, of at most 256."""
        self._each(partial(_weigh, weights))

    def idle(self, services: Sequence[str]) -> tuple[str, ...]:
        """Backends of these services that some balancer has no server for yet: what it sends there is answered 503."""
        wanted = frozenset(services)
        return tuple(sorted(frozenset[str]().union(*self._each(partial(_without_server, wanted)))))

    def _each(self, ask: Callable[[Send], T]) -> list[T]:
        """Ask every balancer, the others too where one does not answer."""
        balancers = self._balancers()
        if not balancers:
            raise UnavailableError("no load balancer runs")
        answers, problems = [], []
        for send in balancers:
            try:
                answers.append(ask(send))
            except UnavailableError as error:
                problems.append(error)
        if problems:
            raise UnavailableError(
                f"{len(problems)} of {len(balancers)} load balancers out of reach: {problems[0]}"
            ) from problems[0]
        return answers


def runtime_api_argv(command: str) -> list[str]:
    """What to run inside a balancer's container to put a command to the API on its own loopback."""
    script = 'exec 3<>/dev/tcp/127.0.0.1/9999; printf "%s\\n" "$1" >&3; cat <&3'
    return ["bash", "-c", script, "-", command]


def unix_socket(path: str) -> Send:
    """A ``Send`` through a stats socket on this machine."""
    return partial(_ask_socket, path)


def _ask_socket(path: str, command: str) -> str:
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            while part := connection.recv(65536):
                answer += part
    except OSError as exc:
        raise UnavailableError(f"{path}: HAProxy does not answer: {exc}") from exc
    return answer.decode("utf-8", "replace")


def _take_out(addresses: frozenset[str], send: Send) -> int:
    slots = [slot for slot in _slots(send) if slot.address in addresses and not slot.empty]
    return _order(send, [f"set server {slot.name} state maint" for slot in slots])


def _give_back(addresses: frozenset[str], send: Send) -> int:
    freed = [slot for slot in _slots(send) if slot.taken_out and (slot.empty or slot.address in addresses)]
    # leaving maintenance makes a server count as healthy, hence the second command
    return _order(send, [f"set server {slot.name} state ready; set server {slot.name} health down" for slot in freed])


def _weigh(weights: Mapping[str, int], send: Send) -> int:
    slots = [slot for slot in _slots(send) if slot.weighed and slot.address in weights and not slot.empty]
    changed = [slot for slot in slots if slot.weight != weights[slot.address]]
    return _order(send, [f"set server {slot.name} weight {weights[slot.address]}" for slot in changed])


def _held(addresses: frozenset[str], send: Send) -> int:
    names = {slot.name for slot in _slots(send) if slot.address in addresses}
    rows = _rows(send("show stat -1 4 -1"), ("pxname", "svname", "qcur", "scur"))
    mine = [row for row in rows if f"{row['pxname']}/{row['svname']}" in names]
    return sum(int(row["qcur"] or 0) + int(row["scur"] or 0) for row in mine)


def _without_server(services: frozenset[str], send: Send) -> frozenset[str]:
    rows = _rows(send("show stat -1 2 -1"), ("pxname", "svname", "status"))
    mine = [row for row in rows if row["svname"] == "BACKEND" and row["pxname"].partition(".")[0] in services]
    return frozenset(row["pxname"] for row in mine if row["status"] != "UP")


def _order(send: Send, commands: Sequence[str]) -> int:
    """Put commands that answer nothing if all is well; how many there were."""
    for start in range(0, len(commands), _COMMANDS_AT_ONCE):
        answer = send("; ".join(commands[start : start + _COMMANDS_AT_ONCE])).strip()
        if answer:
            raise UnavailableError(f"HAProxy refused a command: {' '.join(answer.split())[:200]}")
    return len(commands)


def _slots(send: Send) -> list[Slot]:
    rows = _rows(send("show servers state"), _STATE_COLUMNS)
    return [
        Slot(
            name=f"{row['be_name']}/{row['srv_name']}",
            address=f"{row['srv_addr']}:{row['srv_port']}",
            admin_state=int(row["srv_admin_state"]),
            weight=int(row["srv_uweight"]),
        )
        for row in rows
    ]


def _rows(answer: str, columns: Iterable[str]) -> Iterator[Row]:
    """The rows of a table by the names in its header, the line that starts with ``#``."""
    lines = answer.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith("# ")), None)
    if start is None:
        raise UnavailableError(f"HAProxy's answer is not understood: {' '.join(answer.split())[:120]!r}")
    header = lines[start].removeprefix("# ")
    separator = "," if "," in header else " "
    names = header.split(separator)
    if missing := set(columns) - set(names):
        raise UnavailableError(f"HAProxy's answer has no column {', '.join(sorted(missing))}")
    body = [line for line in lines[start + 1 :] if line.strip()]
    return (dict(zip(names, row, strict=False)) for row in csv.reader(body, delimiter=separator))
