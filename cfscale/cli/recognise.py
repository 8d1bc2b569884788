"""Whether what is given as a profile is a saved plan; a module of its own, because every command that plans asks."""

from pathlib import Path

_START_BYTES = 256


def is_saved(path: str) -> bool:
    """Whether a file begins as a saved plan does, whatever its name; one that cannot be read is left to its reader."""
    if not Path(path).is_file():  # what comes through a pipe can be read once only
        return False
    try:
        with Path(path).open("rb") as file:
            start = file.read(_START_BYTES)
    except OSError:
        return False
    if not start.lstrip().startswith(b"{"):  # a profile hardly ever does: it never pays for the rest
        return False
    from cfscale.core.savedplan import recognised

    return recognised(start)
