"""``cfscale probe``: ask a deployment, an engine's containers, or any URLs, for their health."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cfscale.cli import console
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
from cfscale.cli.rounds import Format, Pace, Shown, once, positive, usual, watched
from cfscale.core.health import Kind
from cfscale.errors import InputError


class Failing(StrEnum):
    """The mildest state that makes the answer a no."""

    DOWN = "down"
    DEGRADED = "degraded"


def probe(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROFILE | URL...]",
            help="A profile (./cfscale.yaml unless given), or URLs: http(s), tcp, tls, redis(s), postgres, grpc(s), dns, "
            "jsonrpc+http(s), agent, docker, heartbeat, exec.",
            show_default=False,
        ),
    ] = None,
    targets_file: Annotated[
        Path | None,
        typer.Option("--targets", metavar="FILE", help="Read URLs from a file, one a line.", show_default=False),
    ] = None,
    discovered: Annotated[
        list[str] | None,
        typer.Option(
            "--discover",
            metavar="SOURCE",
            help="Ask what is there now: compose:NAME, stack:NAME, label:KEY=VALUE, dns:URL, or a rendered folder.",
            show_default=False,
        ),
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
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Authorities to trust beside the system's.", show_default=False),
    ] = None,
    certificate_days: Annotated[
        int | None,
        typer.Option(
            "--cert-days",
            metavar="14",
            min=0,
            help="Fewer days left on a certificate are degraded.",
            show_default=False,
        ),
    ] = None,
    bad_certificate: Annotated[
        Failing, typer.Option("--bad-certificate", help="What a certificate that fails verification makes of a target.")
    ] = Failing.DOWN,
    allow_exec: Annotated[bool, typer.Option("--allow-exec", help="Run the programs of exec:// URLs.")] = False,
    predict: Annotated[
        bool | None,
        typer.Option(
            "--predict/--no-predict",
            help="While watching, make degraded what is on its way to a limit; on for the enterprise tier. On simulated "
            "days with a limit of 5 times the usual latency: 0.05 false predictions a target-day, 14 of 16 two-hour leaks "
            "found, 28 minutes before in the median. Refused, and said so, below 4 times.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Ask once per interval until stopped.")] = False,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="10s", help="Time between rounds.", show_default=False)
    ] = None,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="5m", help="Watch for so long, then end.", show_default=False)
    ] = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            "--textfile", metavar="FILE", help="Write each round for Prometheus, atomically.", show_default=False
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar="HOST:PORT", help="Watch, and serve /metrics there.", show_default=False),
    ] = None,
    agent_check: Annotated[
        str | None,
        typer.Option(
            "--agent-check",
            metavar="HOST:PORT",
            help="Watch, and answer HAProxy's agent checks there.",
            show_default=False,
        ),
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
    from cfscale.cli.probing import Request, deployed_request, named_targets

    limit = None if timeout is None else positive(timeout, "--timeout")
    patience = limit or usual("health.timeout")
    named = named_targets(what or [], targets_file, password_file, patience)
    if discovered:
        if named or what:
            raise InputError("--discover finds its targets: give no URLs or profile with it")
        request = Request.discovering(discovered, patience)
    elif named:
        if any(target.kind is Kind.EXEC for target in named) and not allow_exec:
            raise InputError("exec:// URLs run programs on this machine: say --allow-exec if that is what you want")
        request = Request.asking(named)
    else:
        profile = what[0] if what else None
        plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
        request = deployed_request(plan, engine, profile, limit)
    tolerant = bad_certificate is Failing.DEGRADED
    request = request.judging(ca_file, certificate_days, tolerant=tolerant, predict=predict)
    shown = Shown(output, fail_on is Failing.DEGRADED, textfile, serve, agent_check)
    if watch or lasting is not None or serve is not None or agent_check is not None:
        return watched(request, Pace.of(interval, lasting), shown)
    if interval is not None:
        raise InputError("--interval is for --watch")
    if predict:
        console.note("predictions need a --watch: half an hour of answers comes before the first of them")
    return once(request, shown)
