"""Parsing, dispatch, and the one error boundary.

A command is a function in its own module, imported only when it is called: ``plan`` never pays for Docker. It
returns its exit code (None means 0); what it raises on purpose is a CfscaleError and becomes one line on stderr.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

import typer
import typer.core

from cfscale import __version__
from cfscale.cli import console
from cfscale.errors import CfscaleError

# typer takes its usage errors from whichever click it carries; the public class leads to their common root
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]

COMMANDS = {
    "init": "init:init",
    "plan": "plan:plan",
    "render": "render:render",
    "up": "up:up",
    "down": "down:down",
    "scale": "scale:scale",
    "pause": "pause:pause",
    "resume": "pause:resume",
    "status": "status:status",
    "history": "history:history",
    "explain": "explain:explain",
    "probe": "probe:probe",
    "simulate": "simulate:simulate",
    "calibrate": "calibrate:calibrate",
    "tiers": "tiers:tiers",
    "schema": "schema:schema",
}
_GLOBAL = {"--quiet": "quiet", "-q": "quiet", "--debug": "debug", "--no-color": "no_color"}


class _Commands(typer.core.TyperGroup):
    """Loads the module of a command when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str):  # type: ignore[no-untyped-def,override]
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: typer.Context, args: list[str]):  # type: ignore[no-untyped-def,override]
        for name in () if args[0] in COMMANDS else COMMANDS:
            self.commands.setdefault(name, typer.core.TyperCommand(name))  # only their names, for 'did you mean'
        return super().resolve_command(ctx, args)


def _load(name: str):  # type: ignore[no-untyped-def]
    from importlib import import_module

    module, function = COMMANDS[name].split(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(getattr(import_module(f"cfscale.cli.{module}"), function))
    command = typer.main.get_command(app)
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    return command


def _root(
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print results, warnings and errors only."),
    debug: bool = typer.Option(False, "--debug", help="Show a traceback with an error."),
    no_color: bool = typer.Option(False, "--no-color", help="Print without colours (as NO_COLOR does)."),
    version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit."),
) -> None:
    """Plan, render, run, scale and probe right-sized deployments of agent-orchestration platforms.

    A first look:   cfscale plan --users 40 --agents 400 --tasks 800

    Step by step:   cfscale init; cfscale plan; cfscale up; cfscale probe; cfscale scale --watch --apply
    """
    if version:
        console.result(f"cfscale {__version__}")
        raise typer.Exit


def _app() -> Callable[..., object]:
    app = typer.Typer(
        cls=_Commands,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def _split(argv: Sequence[str]) -> tuple[set[str], list[str]]:
    """Global flags are taken wherever they stand, as users of kubectl expect; the rest goes to the command."""
    end = argv.index("--") if "--" in argv else len(argv)
    flags = {_GLOBAL[word] for word in argv[:end] if word in _GLOBAL}
    return flags, [word for index, word in enumerate(argv) if index >= end or word not in _GLOBAL]


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; raises nothing."""
    flags, rest = _split(list(argv))
    console.configure(quiet="quiet" in flags, color=False if "no_color" in flags else None)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _guarded(
            lambda: _app()(args=rest, prog_name="cfscale", standalone_mode=False), debug="debug" in flags, argv=argv
        )
    finally:
        console.divert(None)  # what a command ended with was told the way that it asked for


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def _guarded(command: Callable[[], object], *, debug: bool, argv: Sequence[str]) -> int:
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (CfscaleError, _UsageProblem, KeyboardInterrupt, typer.Abort, console.ReaderGoneError) as problem:
        if debug:
            _traceback()
        return _expected(problem)
    except Exception as defect:  # noqa: BLE001 - the one boundary: a defect must never look like an answer
        if debug:
            _traceback()
        return _defect(defect, argv)


def _expected(problem: BaseException) -> int:
    if isinstance(problem, CfscaleError):
        console.error(str(problem))
        return problem.exit_code
    if isinstance(problem, console.ReaderGoneError):
        # keep the interpreter from failing on it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(problem, KeyboardInterrupt | typer.Abort):
        console.note("interrupted")
        return 130
    return _usage(problem)


def _usage(problem: BaseException) -> int:
    context = getattr(problem, "ctx", None)
    if type(problem).__name__ == "NoArgsIsHelpError":
        console.note(context.get_help() if context else str(problem))
        return 2
    command = context.command_path if context else "cfscale"
    message = problem.format_message() if hasattr(problem, "format_message") else str(problem)
    console.error(f"{message.rstrip('.')}; see '{command} --help'")
    return 2


def _traceback() -> None:
    import traceback

    sys.stderr.write(traceback.format_exc())


def _defect(defect: Exception, argv: Sequence[str]) -> int:
    """One line and a private report: never mistaken for 'the answer is no'."""
    import re
    import tempfile
    import traceback

    words = [re.sub(r"://[^/@\s]*@", "://***@", word) for word in argv]
    text = f"cfscale {__version__}\npython {sys.version}\narguments {words}\n\n{''.join(traceback.format_exception(defect))}"
    with tempfile.NamedTemporaryFile("w", prefix="cfscale-report-", suffix=".txt", delete=False) as report:
        report.write(text)
    console.error(
        f"internal error: {type(defect).__name__}; the report is in {report.name}, please file it with what you ran"
    )
    return 70
