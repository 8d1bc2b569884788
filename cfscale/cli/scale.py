"""``cfscale scale``: watch the load, say which replica counts it asks for and why, and with --apply see to them."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.logs import LogFormat, logging_as
from cfscale.cli.notify import notify
from cfscale.cli.options import (
    Agents,
    EngineOption,
    Environment,
    Growth,
    OutputOption,
    ProfileArgument,
    Sizing,
    Tasks,
    TierOption,
    Users,
    load_plan,
)
from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.workload import duration
from cfscale.errors import ActionError, InputError, UnavailableError

if TYPE_CHECKING:
    from cfscale.adapters.journal import Journal
    from cfscale.cli.engines import Deployment
    from cfscale.core.decision import Decision, Entry
    from cfscale.runtime.act import Hands
    from cfscale.runtime.ports import Prober
    from cfscale.runtime.watch import Scaler


class Clock:
    """The wall clock, and a wait that the first SIGINT or SIGTERM ends; a second signal stops at once."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.signal: int | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that no clock setting moves."""
        return time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until asked to stop: then True."""
        return self._stop.is_set() or (seconds > 0 and self._stop.wait(seconds))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals ask to stop instead of breaking off what is being done."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._asked) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _asked(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number
        self._stop.set()


def scale(
    profile: ProfileArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="Evaluate once per interval until stopped.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Change replica counts; without it nothing changes.")] = False,
    interval: Annotated[
        str | None, typer.Option("--interval", metavar="10s", help="Time between evaluations; overrides the profile.")
    ] = None,
    lasting: Annotated[str | None, typer.Option("--for", metavar="5m", help="Watch for so long, then end.")] = None,
    engine: EngineOption = "auto",
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="[ADDRESS]:PORT",
            help="Serve Prometheus metrics of the scaler; on the loopback unless an address is given.",
        ),
    ] = None,
    log: Annotated[
        LogFormat, typer.Option("--log", help="How messages on stderr look; json is for a collector.")
    ] = LogFormat.TEXT,
    output: OutputOption = Output.TABLE,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
) -> int:
    """Compare the load with the replicas that run; say which counts it asks for and why.

    An evaluation takes two readings one second apart; --watch (or --for) repeats it once per interval.

    Examples:   cfscale scale

    cfscale scale --watch --apply --interval 10s

    cfscale scale --watch --metrics :9464 --log json
    """
    with logging_as(log) as named:
        plan = _timed(load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth)), interval)
        named(plan.name)
        seconds = None if lasting is None else duration(lasting, 0.0, "--for")
        services, looping = _scaled(plan), watch or seconds is not None
        if metrics is not None and not looping:
            raise InputError("--metrics serves while it watches: give --watch too")
        from cfscale.cli.decisions import printer
        from cfscale.cli.engines import open_deployment

        clock, opened = Clock(), open_deployment(plan, engine, profile)
        opened.hurry(lambda: clock.signal is not None)
        deployment = _asked(opened)
        if apply:
            deployment.require_replicas()
            deployment.require_unowned(services)
        with (
            clock.listening(),
            _scaler(deployment, services, clock, apply=apply) as scaler,
            _metered(scaler, metrics) as meter,
            printer(output, scaler, looping=looping) as show,
        ):
            notify("READY=1")
            for decision in scaler.watch(seconds) if looping else scaler.once():
                meter(decision)
                show(decision)
                notify("WATCHDOG=1")
            notify("STOPPING=1")
        if not apply:
            console.note("nothing was changed: --apply acts on it")
        return 128 + clock.signal if clock.signal is not None else _exit_code(scaler, looping=looping)


@contextmanager
def _metered(scaler: "Scaler", where: str | None) -> "Iterator[Callable[[Decision], None]]":
    """Serve metrics of the scaler, if asked to; gives what each decision is to be told to."""
    if where is None:
        yield lambda _: None
        return
    from cfscale.cli.metrics import Meter, serving

    meter = Meter(scaler.plan.name, scaler.engine.name, scaler.plan.scaling.interval_seconds)
    scaler.warn, scaler.ended = meter.counting(scaler.warn), meter.ticked

    def decided(decision: "Decision") -> None:
        name = decision.service
        meter.decided(decision, scaler.seen.get(name), scaler.codes.get(name, 0))
        if scaler.hands is not None:
            meter.acted(decision)

    with serving(meter, where):
        yield decided


def _asked(deployment: "Deployment") -> "Deployment":
    """The deployment with replicas that are ready when the prober says so; the host engine has none to ask."""
    if deployment.engine.name == "host":
        return deployment
    from cfscale.cli.probing import probed

    return replace(deployment, engine=probed(deployment))


def _timed(plan: DeploymentPlan, interval: str | None) -> DeploymentPlan:
    """The plan with the interval of the command line."""
    seconds = duration(interval, plan.scaling.interval_seconds, "--interval")
    if seconds < 1:
        raise InputError(f"the scaling interval is {seconds:g}s: give one of at least 1s")
    return replace(plan, scaling=replace(plan.scaling, interval_seconds=seconds))


def _scaled(plan: DeploymentPlan) -> tuple[Service, ...]:
    """The services whose count may move; raises InputError where there is none."""
    services = tuple(service for service in plan.services if service.scaled)
    if not services:
        raise InputError(f"no service of {plan.name} may scale: set scaling.services.agents.max above its min")
    return services


@contextmanager
def _scaler(
    deployment: "Deployment", services: tuple[Service, ...], clock: Clock, *, apply: bool
) -> Iterator["Scaler"]:
    """The scaler of a deployment: with ``apply`` under its lock and with hands, else one that only looks."""
    from cfscale.adapters.journal import Journal
    from cfscale.runtime.watch import Scaler

    scaler = Scaler(deployment.engine, deployment.plan, services, clock, deployment.state, console.warn)
    if any(policy.kind == "queue" for policy in deployment.plan.scaling.policies):
        from cfscale.adapters.backlog import asker

        scaler.backlogs = asker(deployment.plan.scaling.policies)
    if not apply:
        scaler.begin()
        yield scaler
        return
    deployment.require_own()
    journal = Journal(deployment.state.folder)
    with _hands(deployment, clock, journal) as hands:
        scaler.hands = hands
        scaler.begin(_written(journal))
        yield scaler


def _written(journal: "Journal") -> "tuple[Entry, ...]":
    """What the journal holds; one that cannot be read cannot be written either, and that bars shrinking alone."""
    try:
        return tuple(journal.entries())
    except UnavailableError as error:
        console.warn(f"{error}; nothing will shrink")
        return ()


@contextmanager
def _hands(deployment: "Deployment", clock: Clock, journal: "Journal") -> Iterator["Hands"]:
    from cfscale.adapters.lock import Lock
    from cfscale.runtime.act import Hands

    started = datetime.now(UTC).isoformat(timespec="seconds")
    with Lock(deployment.engine.target, command="cfscale scale --apply", started_at=started) as lock:
        try:
            deployment.state.create()
        except ActionError as error:
            console.warn(f"{error}; nothing will shrink")
        yield Hands(deployment.engine, clock, journal, lock, deployment.balancer, _prober(deployment))


def _prober(deployment: "Deployment") -> "Prober | None":
    """Who asks replicas whether their work is done; loaded only where a service has such a question."""
    if all(service.drain is None or service.drain.done is None for service in deployment.plan.services):
        return None
    from functools import partial

    from cfscale.adapters.probes.ask import probe_once
    from cfscale.cli.probing import usual_judging

    return partial(probe_once, judging=usual_judging())


def _exit_code(scaler: "Scaler", *, looping: bool) -> int:
    """1 where the last action of a service failed; 3 where data was missing: in a single evaluation, or all along."""
    codes = set(scaler.codes.values())
    if ActionError.exit_code in codes:
        return ActionError.exit_code
    unknown = UnavailableError.exit_code
    blind = not scaler.informed if looping else True
    return unknown if unknown in codes and blind else 0
