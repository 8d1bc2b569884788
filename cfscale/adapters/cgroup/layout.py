"""Which directory holds which controller of a container, whatever the hierarchy is mounted as.

11:cpu,cpuacct:/docker/ID        v1: one hierarchy for one or more controllers
0::/system.slice/docker-ID.scope v2: the unified one, here called ``v2``
"""

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

V2 = "v2"
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount(Struct, frozen=True):
    """A mounted hierarchy: from ``top`` down, at ``point``. Inside a container ``top`` may be deep in the tree."""

    top: str
    point: str

    def inside(self, path: str) -> str | None:
        """A cgroup's directory, relative to the root of the file system; None where this mount does not show it."""
        top = self.top.rstrip("/")
        if path != top and not path.startswith(f"{top}/"):
            return None
        return self.point.strip("/") + path.removeprefix(top)


Mounts = Mapping[str, Mount]


def read_mounts(root: Path) -> Mounts:
    """Mounts by controller as this process sees them; the first of several wins. Raises OSError."""
    found: dict[str, Mount] = {}
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if kinds[:1] == ["cgroup2"]:
            found.setdefault(V2, _mount(fields))
        elif kinds[:1] == ["cgroup"]:
            for controller in kinds[2].split(","):
                found.setdefault(controller, _mount(fields))
    return found


def _mount(fields: list[str]) -> Mount:
    return Mount(top=_plain(fields[3]), point=_plain(fields[4]))


def _plain(path: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), path)


def directories(membership: str, container: str, mounts: Mounts, root: Path) -> dict[str, Path]:
    """Directories by controller, from the text of ``/proc/PID/cgroup``; only those that are the container's own."""
    found: dict[str, Path] = {}
    for line in membership.splitlines():
        number, names, path = line.split(":", 2)
        own = _own(path, container)
        for controller in [V2] if number == "0" and not names else names.split(","):
            inside = mounts[controller].inside(own) if own and controller in mounts else None
            if inside is not None:
                found[controller] = root / inside
    return found


def _own(path: str, container: str) -> str | None:
    """The path down to the part that names the container: its first process may be in a group further below."""
    parts = path.split("/")
    named = next((index for index, part in enumerate(parts) if container in part), None)
    return None if named is None or ".." in parts else "/".join(parts[: named + 1])
