"""The entry point: answers ``--version`` before anything heavy is imported, else hands over to the command line."""

import sys

from cfscale import __version__


def main() -> None:
    """Run cfscale with the arguments of this process and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"cfscale {__version__}\n")
        return
    from cfscale.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
