"""``cfscale probe``: ask a deployment, or any URLs, for their health."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cfscale.cli import console, verdicts
from cfscale.cli.options import (
    Agents,
    EngineOption,
    Environment,
    Growth,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_plan,
)
from cfscale.core.health import Report, Target, exit_code, nagios_code
from cfscale.core.workload import duration
from cfscale.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from cfscale.cli.engines import Deployment
    from cfscale.runtime.probing import Survey, Targets

_TIMEOUT_SECONDS = 2.0
_INTERVAL_SECONDS = 10.0
_FILE_BYTES = 16 * 1024 * 1024


class Format(StrEnum):
    """The formats of a probe report."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    NAGIOS = "nagios"
    PROMETHEUS = "prometheus"


class Failing(StrEnum):
    """The mildest state that makes the answer a no."""

    DOWN = "down"
    DEGRADED = "degraded"


def probe(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROFILE | URL...]",
            help="A profile (./cfscale.yaml unless given), or URLs: http(s)://, tcp://, redis://, jsonrpc+http(s)://.",
            show_default=False,
        ),
    ] = None,
    targets_file: Annotated[
        Path | None,
        typer.Option("--targets", metavar="FILE", help="Read URLs from a file, one a line.", show_default=False),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", metavar="FILE", help="The password for redis:// URLs.", show_default=False),
    ] = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="2s", help="Time limit of one answer.", show_default=False)
    ] = None,
    fail_on: Annotated[
        Failing, typer.Option("--fail-on", help="Exit 1 for degraded too, or for down only.")
    ] = Failing.DOWN,
    watch: Annotated[bool, typer.Option("--watch", help="Ask once per interval until stopped.")] = False,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="10s", help="Time between rounds.", show_default=False)
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="5m", help="Watch for so long, then end.", show_default=False)
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="Format of the result.")] = Format.TABLE,
    engine: EngineOption = "auto",
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
) -> int:
    """Ask every replica of a deployment, or URLs, for their health. A failure counts after three in a row.

    Exit code: 1 where anything is down, else 3 where anything cannot be told, else 0; -o nagios returns 0 to 3.

    Examples:   cfscale probe

    cfscale probe http://127.0.0.1:8080/healthz tcp://127.0.0.1:6379 -o json

    cfscale probe --targets urls.txt --watch --interval 10s
    """
    limit = None if timeout is None else _positive(timeout, "--timeout")
    urls = _urls(what or [], targets_file, password_file, limit or _TIMEOUT_SECONDS)
    source: Targets
    if urls:
        source = partial(_same, urls)
    else:
        from cfscale.cli.engines import open_deployment

        profile = what[0] if what else None
        plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
        source = deployed(open_deployment(plan, engine, profile), limit)
    if watch or lasting is not None:
        return _watch(source, _Pace.of(interval, lasting), output, fail_on)
    if interval is not None:
        raise InputError("--interval is for --watch")
    return _once(source, output, fail_on)


def _same(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    return targets


def deployed(deployment: "Deployment", timeout_seconds: float | None = None) -> "Targets":
    """What to ask of a deployment, looked up anew at each call; raises UnavailableError where nothing runs."""
    from cfscale.runtime.probing import plan_targets, timed

    deployment.require_replicas()

    def look() -> tuple[Target, ...]:
        replicas = deployment.engine.replicas()
        if not replicas:
            raise UnavailableError(
                f"nothing of {deployment.plan.name} runs on engine {deployment.engine.name}: start it with 'cfscale up'"
            )
        secrets, everything = _store_secrets(deployment), deployment.rendered
        targets = plan_targets(deployment.plan, replicas, secrets, all_services=everything)
        return timed(targets, timeout_seconds)

    return look


async def until_up(targets: "Targets", seconds: float) -> Report:
    """Probe until all is alive or the time is over; the last report either way."""
    from cfscale.runtime.probing import until_healthy

    return await until_healthy(_survey(), targets, seconds=seconds)


def _survey() -> "Survey":
    """How targets are asked; good for one event loop."""
    from cfscale.adapters.probes.ask import ask
    from cfscale.adapters.probes.network import Network
    from cfscale.cli.scale import Clock
    from cfscale.runtime.probing import Survey

    return Survey(partial(ask, network=Network()), Clock())


def _store_secrets(deployment: "Deployment") -> dict[str, str]:
    """The stores' passwords where this user may read them; without one, being asked for it is proof of life."""
    found = {}
    for store in ("queue", "memory", "cache"):
        with suppress(OSError):
            path = deployment.queue_password.with_name(f"{store}_password")
            found[store] = path.read_text(encoding="utf-8").rstrip("\r\n")
    return found


def _urls(
    words: list[str], targets_file: Path | None, password_file: Path | None, timeout: float
) -> tuple[Target, ...]:
    """The targets that the command line names one by one, none where a profile is to be probed. Raises InputError."""
    named = _sorted_out(words, targets_file)
    if not named:
        if password_file is not None:
            raise InputError("--password-file is for redis:// URLs: the password of a deployment is found by itself")
        return ()
    from cfscale.adapters.probes.url import parse_target, parse_targets

    password = None if password_file is None else _read(password_file).rstrip("\r\n")
    found = [parse_target(word, timeout_seconds=timeout, password=password) for word in words]
    if targets_file is not None:
        lines = _read(targets_file).split("\n")
        found += parse_targets(lines, str(targets_file), timeout_seconds=timeout, password=password)
    if not found:
        raise InputError(f"{targets_file}: no URL in it: write one a line")
    return tuple({target.name: target for target in found}.values())


def _sorted_out(words: list[str], targets_file: Path | None) -> bool:
    """Whether the words are URLs rather than a profile; raises InputError for a mixture."""
    urls = [word for word in words if "://" in word]
    profiles = [word for word in words if "://" not in word]
    if profiles and (urls or targets_file):
        raise InputError(f"'{profiles[0]}' is not a URL: probe a profile or URLs (such as http://host), not both")
    if len(profiles) > 1:
        raise InputError(f"'{profiles[1]}': one profile at a time; a URL begins with its scheme, such as http://")
    return bool(urls) or targets_file is not None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a readable file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: save it as UTF-8") from error
    if len(raw) > _FILE_BYTES:
        raise InputError(f"{path}: more than {_FILE_BYTES // 2**20} MiB: split it")
    return text


def _positive(text: str, where: str) -> float:
    seconds = duration(text, 0.0, where)
    if seconds <= 0:
        raise InputError(f"{where} '{text}': give more than 0, such as 2s")
    return seconds


def _once(source: "Targets", output: Format, fail_on: Failing) -> int:
    import asyncio

    targets = source()
    report = asyncio.run(_survey().round(targets)).report
    _print(report, output, fail_on)
    return nagios_code(report) if output is Format.NAGIOS else _code(report, fail_on)


def _code(report: Report, fail_on: Failing) -> int:
    return exit_code(report, fail_on_degraded=fail_on is Failing.DEGRADED)


def _print(report: Report, output: Format, fail_on: Failing) -> None:
    match output:
        case Format.TABLE:
            console.result(verdicts.as_table(report))
        case Format.JUNIT:
            console.result(verdicts.as_junit(report, fail_on_degraded=fail_on is Failing.DEGRADED))
        case Format.NAGIOS:
            console.result(verdicts.as_nagios(report))
        case Format.PROMETHEUS:
            console.result(verdicts.as_prometheus(report))
        case Format.JSON | Format.YAML:
            console.document(report, console.Output(output.value))


@dataclass(frozen=True, slots=True)
class _Pace:
    """How often a watch asks, and for how long."""

    interval_seconds: float
    seconds: float | None

    @classmethod
    def of(cls, interval: str | None, lasting: str | None) -> "_Pace":
        return cls(
            _INTERVAL_SECONDS if interval is None else _positive(interval, "--interval"),
            None if lasting is None else _positive(lasting, "--for"),
        )


def _watch(source: "Targets", pace: _Pace, output: Format, fail_on: Failing) -> int:
    """Rounds until the time is over; the exit code is that of the last. A signal breaks off: nothing is half done."""
    from cfscale.runtime.probing import watch

    if output not in (Format.TABLE, Format.JSON):
        raise InputError(f"--watch shows a table, or JSON lines with -o json: -o {output} is for a single round")
    slowest = max((target.health.timeout_seconds for target in source()), default=0.0)
    if slowest >= pace.interval_seconds:
        raise InputError(f"one answer may take {slowest:g} s: give an --interval above that, or a shorter --timeout")
    code = 0
    with verdicts.printer(as_json=output is Format.JSON) as show:
        for report in watch(_survey(), source, interval_seconds=pace.interval_seconds, seconds=pace.seconds):
            show(report)
            code = _code(report, fail_on)
    return code
