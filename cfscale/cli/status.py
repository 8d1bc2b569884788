"""``cfscale status``: what runs, between which bounds, what was decided last, what is paused, and who holds the lock."""

import time

from msgspec import Struct

from cfscale.cli import console
from cfscale.cli.console import Output
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
from cfscale.core.decision import Decision, timestamp
from cfscale.core.plan import Service
from cfscale.core.policy import Observation, Pause
from cfscale.core.samples import Replica, ReplicaState
from cfscale.errors import ActionError, UnavailableError

STATUS_SCHEMA = "cfscale/status/v1"


class ServiceStatus(Struct, frozen=True):
    """One service; ``current`` and ``ready`` are None where the engine is out of reach."""

    service: str
    current: int | None
    ready: int | None
    min_replicas: int
    max_replicas: int
    scale_in_paused_until: str | None
    scale_out_paused_until: str | None
    last_decision: Decision | None


class Status(Struct, frozen=True):
    """The document ``cfscale/status/v1``; ``endpoint`` is where the balancer takes requests, null where none runs."""

    schema: str
    name: str
    engine: str
    endpoint: str | None
    lock_holder: str | None
    services: tuple[ServiceStatus, ...]
    replicas: tuple[Replica, ...]


def status(
    profile: ProfileArgument = None,
    engine: EngineOption = "auto",
    output: OutputOption = Output.TABLE,
    users: Users = None,
    agents: Agents = None,
    tasks: Tasks = None,
    environment: Environment = None,
    tier: TierOption = None,
    growth: Growth = None,
) -> int:
    """Show engine, replicas, bounds, last decisions, pauses and the lock's holder.

    Examples:   cfscale status

    cfscale status -o json
    """
    from cfscale.adapters.journal import Journal
    from cfscale.adapters.lock import lock_holder
    from cfscale.cli.engines import open_deployment

    plan = load_plan(profile, Sizing(users, agents, tasks, environment, tier, growth))
    deployment = open_deployment(plan, engine, profile)
    deployment.require_replicas()
    problem, replicas, holder, endpoint = "", None, None, None
    try:
        holder = lock_holder(deployment.engine.target)
        replicas = deployment.engine.replicas()
        endpoint = deployment.endpoint(replicas)
    except (ActionError, UnavailableError) as error:
        problem = str(error)
    last: dict[str, Decision] = {}
    try:
        last = {item.decision.service: item.decision for item in Journal(deployment.state.folder).entries()}
    except UnavailableError as error:
        problem = problem or str(error)
    services = tuple(
        _service(service, replicas, deployment.state.pause_of(service.name), last.get(service.name))
        for service in plan.services
    )
    holder_text = str(holder) if holder else None
    found = Status(STATUS_SCHEMA, plan.name, deployment.engine.name, endpoint, holder_text, services, replicas or ())
    _show(found, output)
    if problem:
        console.error(problem)
    return UnavailableError.exit_code if problem else 0


def _service(
    service: Service, replicas: tuple[Replica, ...] | None, pause: Pause, last: Decision | None
) -> ServiceStatus:
    own = tuple(replica for replica in replicas or () if replica.service == service.name)
    seen = Observation(service, "", 0.0, own, ())
    return ServiceStatus(
        service=service.name,
        current=None if replicas is None else seen.current,
        ready=None if replicas is None else seen.count(ReplicaState.READY),
        min_replicas=service.min_replicas,
        max_replicas=service.max_replicas,
        scale_in_paused_until=_until(pause.scale_in_until),
        scale_out_paused_until=_until(pause.scale_out_until),
        last_decision=last,
    )


def _until(moment: float) -> str | None:
    return timestamp(moment) if moment > time.time() else None


def _show(found: Status, output: Output) -> None:
    if output is not Output.TABLE:
        console.document(found, output)
        return
    columns = ("service", ">running", ">ready", ">min", ">max", "paused", "last decision")
    lock = found.lock_holder or "free"
    where = f", requests to http://{found.endpoint}/" if found.endpoint else ""
    console.result(f"{found.name} on {found.engine}{where}, lock: {console.clean(lock)}\n")
    console.result(console.table(columns, [_row(service) for service in found.services]))


def _row(item: ServiceStatus) -> tuple[str, ...]:
    known = ["-" if count is None else str(count) for count in (item.current, item.ready)]
    pauses = [
        f"{word} until {until}"
        for word, until in (("in", item.scale_in_paused_until), ("out", item.scale_out_paused_until))
        if until
    ]
    last = item.last_decision
    said = f"{last.time} {last.action}: {last.reason}" if last else "-"
    return (item.service, *known, str(item.min_replicas), str(item.max_replicas), ", ".join(pauses) or "-", said)
