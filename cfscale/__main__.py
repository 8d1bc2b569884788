"""The entry point: answers ``--version`` before anything heavy is imported, else hands over to the command line."""

import os
import sys

from cfscale import __version__


def main() -> None:
    """Run cfscale with the arguments of this process and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        try:
            sys.stdout.write(f"cfscale {__version__}\n")
            sys.stdout.flush()
        except (OSError, AttributeError) as error:  # a full disk, a closed stream; a reader that has gone is no failure
            os._exit(0 if isinstance(error, BrokenPipeError) else 1)
        return
    from cfscale.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
