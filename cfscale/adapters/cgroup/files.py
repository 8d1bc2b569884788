"""Small kernel files read whole, by descriptors that stay open as long as a budget lasts."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path

_READ_BYTES = 16384
_MOST_DESCRIPTORS = 100_000


def descriptor_budget() -> int:
    """Half of the files that this process may open: the other half is for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft // 2, _MOST_DESCRIPTORS)


class Files:
    """Reads files again and again; at most ``budget`` of them stay open in between."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._open: dict[Path, dict[str, int]] = {}
        self._count = 0

    def read(self, folder: Path, name: str) -> str | None:
        """The content; None where the file is missing or unreadable, or its cgroup is gone."""
        descriptor = self._open.get(folder, {}).get(name)
        try:
            if descriptor is None:
                if self._count >= self._budget:
                    return self.read_once(folder, name)
                descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
                self._open.setdefault(folder, {})[name] = descriptor
                self._count += 1
            return os.pread(descriptor, _READ_BYTES, 0).decode("ascii", "replace")
        except OSError:
            return None

    def read_once(self, folder: Path, name: str) -> str | None:
        """The same, and nothing stays open."""
        try:
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, _READ_BYTES, 0).decode("ascii", "replace")
            finally:
                os.close(descriptor)
        except OSError:
            return None

    def holds(self, folder: Path) -> bool:
        """Whether a file of this directory is open: as long as it can be read, the directory is the one it was."""
        return folder in self._open

    def close(self, folders: Iterable[Path]) -> None:
        """Close what is open in these directories."""
        for folder in folders:
            for descriptor in self._open.pop(folder, {}).values():
                os.close(descriptor)
                self._count -= 1
