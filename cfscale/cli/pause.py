"""``cfscale pause`` and ``cfscale resume``: stop and restart scaling, per service and direction."""

import os
import time
from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.cli.options import Sizing, load_profile
from cfscale.core.decision import timestamp
from cfscale.core.roster import SERVICES, known
from cfscale.core.workload import duration
from cfscale.errors import InputError

ServiceArgument = Annotated[
    str | None, typer.Argument(metavar="[SERVICE]", help="A service; all of them unless given.", show_default=False)
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile", metavar="FILE", help="Whose deployment; ./cfscale.yaml unless given.", show_default=False
    ),
]
In = Annotated[bool, typer.Option("--in", help="Scaling in (shrinking) alone.")]
Out = Annotated[bool, typer.Option("--out", help="Scaling out (growing) alone.")]


def pause(
    service: ServiceArgument = None,
    scale_in: In = False,
    scale_out: Out = False,
    lasting: Annotated[
        str | None, typer.Option("--for", metavar="2h", help="How long; until resumed otherwise.")
    ] = None,
    profile: ProfileOption = None,
) -> None:
    """Stop scaling, of one service or of all, in one direction or both; a running scaler obeys at its next tick.

    Examples:   cfscale pause --for 2h

    cfscale pause agents --in
    """
    from cfscale.adapters.state import FOREVER

    until = FOREVER if lasting is None else min(time.time() + _positive(lasting), FOREVER)
    name = _set(service, profile, scale_in=scale_in, scale_out=scale_out, until=until)
    end = "until 'cfscale resume'" if until == FOREVER else f"until {timestamp(until)}"
    console.note(f"{_directions(scale_in=scale_in, scale_out=scale_out)} of {name} is paused {end}")


def resume(
    service: ServiceArgument = None, scale_in: In = False, scale_out: Out = False, profile: ProfileOption = None
) -> None:
    """Restart scaling that was paused; without SERVICE every pause ends.

    Examples:   cfscale resume

    cfscale resume agents --in
    """
    name = _set(service, profile, scale_in=scale_in, scale_out=scale_out, until=0.0)
    console.note(f"{_directions(scale_in=scale_in, scale_out=scale_out)} of {name} goes on")
    if service is not None and _all_are_paused(profile):
        console.warn("every service is still paused: 'cfscale resume' without a service ends that")


def _positive(lasting: str) -> float:
    seconds = duration(lasting, 0.0, "--for")
    if seconds <= 0:
        raise InputError(f"--for '{lasting}': give more than 0, such as 2h; 'cfscale resume' ends a pause")
    return seconds


def _all_are_paused(profile: str | None) -> bool:
    from cfscale.adapters.state import ALL_SERVICES, State, state_folder

    pause = State(state_folder(load_profile(profile, Sizing()).name, os.environ)).pauses().get(ALL_SERVICES)
    return pause is not None and max(pause.scale_in_until, pause.scale_out_until) > time.time()


def _set(service: str | None, profile: str | None, *, scale_in: bool, scale_out: bool, until: float) -> str:
    """Store when the pause of these directions ends (neither given: both) and return whom it concerns."""
    from cfscale.adapters.state import ALL_SERVICES, State, state_folder

    if service is not None and not known(service):
        raise InputError(f"no service is called '{service}': the services are {', '.join(SERVICES)}")
    name = load_profile(profile, Sizing()).name
    state, both = State(state_folder(name, os.environ)), scale_in == scale_out
    in_until = until if both or scale_in else None
    out_until = until if both or scale_out else None
    concerned = [service or ALL_SERVICES]
    if until == 0.0 and service is None:
        concerned += [paused for paused in state.pauses() if paused != ALL_SERVICES]
    for each in concerned:
        state.pause(each, scale_in_until=in_until, scale_out_until=out_until)
    return service or f"every service of {name}"


def _directions(*, scale_in: bool, scale_out: bool) -> str:
    if scale_in == scale_out:
        return "scaling"
    return "scaling in" if scale_in else "scaling out"
