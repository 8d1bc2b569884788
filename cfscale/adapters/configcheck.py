"""Each component's own checker run on what was rendered for it: here, or inside the component's image where that is there.

A checker that there is none of is named, not passed over. What a checker refuses is its first line.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

_SECONDS = 60.0
_MOUNT = "/etc/cfscale"  # where the containers have it: a file may name another


class Checked(Struct, frozen=True):
    """What came of one checker: passed, refused with its words, or missing with the reason."""

    checker: str
    verdict: Literal["passed", "refused", "missing"]
    reason: str = ""


class _Checker(Struct, frozen=True):
    """A component's checker, the file it reads, and how it is called on the machine; FILE stands for the file's path."""

    name: str
    file: str
    command: tuple[str, ...]


_CHECKERS = (
    _Checker("docker compose config", "compose.yaml", ("docker", "compose", "-f", "FILE", "config", "-q")),
    _Checker("docker stack config", "stack.yaml", ("docker", "stack", "config", "--compose-file", "FILE")),
    _Checker("haproxy -c", "config/haproxy.cfg", ("haproxy", "-c", "-f", "FILE")),
    _Checker("promtool check config", "config/prometheus.yml", ("promtool", "check", "config", "FILE")),
    _Checker("promtool check rules", "config/alerts.yml", ("promtool", "check", "rules", "FILE")),
)
# these read their configuration only to start, with the secrets that stand in containers
_NO_CHECKER = {"config/valkey.conf": "valkey", "config/pgbouncer.ini": "pgbouncer", "config/patroni.yml": "patroni"}


def run_checkers(out: Path, images: Mapping[str, str]) -> Iterator[Checked]:
    """Check every rendered file that has a checker; ``images`` says in which image a program is, by its name."""
    for checker in _CHECKERS:
        if (out / checker.file).is_file():
            yield _run(checker, out, images)
    for file, name in _NO_CHECKER.items():
        if (out / file).is_file():
            yield Checked(name, "missing", f"{name} has no checker: it reads {file} when it starts")


def _run(checker: _Checker, out: Path, images: Mapping[str, str]) -> Checked:
    program = checker.command[0]
    path = (out / checker.file).resolve()
    image = images.get(program)
    if program == "docker" or image is None or not _there(image):
        return _run_here(checker, program, path)
    target = f"{_MOUNT}/{path.name}"
    words = [target if word == "FILE" else word for word in checker.command[1:]]
    mount = f"type=bind,source={path.parent},target={_MOUNT},readonly"
    sandbox = ("docker", "run", "--rm", "--network", "none", "--mount", mount, "--entrypoint", program)
    return _verdict(checker, [*sandbox, image, *words])


def _run_here(checker: _Checker, program: str, path: Path) -> Checked:
    """The program of this machine, whose version is its own: what it does not understand may be right all the same."""
    compose = checker.command[1] == "compose"
    if shutil.which(program) is None or (compose and _said(["docker", "compose", "version"])[0] != 0):
        return Checked(checker.name, "missing", f"no {program} here, and no image with it")
    found = _verdict(checker, [str(path) if word == "FILE" else word for word in checker.command])
    if found.verdict == "refused" and found.reason.startswith("unknown"):
        return Checked(checker.name, "missing", f"this {program} does not know it: {found.reason}")
    if found.verdict == "refused" and program != "docker":
        return Checked(
            checker.name, "missing", f"this machine's {program} does not take it, and may be of another line"
        )
    return found


def _there(image: str) -> bool:
    return shutil.which("docker") is not None and _said(["docker", "image", "inspect", image])[0] == 0


def _verdict(checker: _Checker, argv: Sequence[str]) -> Checked:
    code, said = _said(argv)
    if code == 0:
        return Checked(checker.name, "passed")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Checked(checker.name, "refused", next(iter(lines), f"exit code {code}")[:300])


def _said(argv: Sequence[str]) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stderr + done.stdout
