"""The checkers that components bring along, run on what was rendered before it is written.

A checker that is not there is a remark, not a failure; one that objects stops the rendering.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from cfscale.adapters.command import gist, run
from cfscale.errors import ActionError, UnavailableError

_SECONDS = 20.0


def check_stack(files: Mapping[str, str], env_files: Iterable[str]) -> str:
    """Have ``docker stack config`` read the stack; returns why it could not be run, else nothing.

    It needs no engine. Raises ActionError where it rejects the file.
    """
    with tempfile.TemporaryDirectory(prefix="cfscale-") as name:
        folder = Path(name)
        (folder / "stack.yaml").write_text(files["stack.yaml"], encoding="utf-8")
        (folder / "secrets").mkdir()
        for env_file in env_files:
            (folder / "secrets" / env_file).touch()
        try:
            code, said = run(("docker", "stack", "config", "--compose-file", "stack.yaml"), folder, _SECONDS)
        except UnavailableError as error:
            return f"stack.yaml was not checked by 'docker stack config': {error}"
    if code == 0:
        return ""
    if code < 0 or any("unknown" in line.lower() for line in said):
        return "stack.yaml was not checked: this Docker client has no 'docker stack config' (23.0 and later have)"
    raise ActionError(f"nothing was written, docker stack rejects stack.yaml: {gist(said)}")
