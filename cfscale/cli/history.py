"""``cfscale history``: the journal of what was decided and done, and why."""

import os
from collections import deque
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import OutputOption, ProfileArgument, Sizing, load_profile
from cfscale.core.decision import Entry

HISTORY_SCHEMA = "cfscale/history/v1"


def history(
    profile: ProfileArgument = None,
    service: Annotated[
        str | None, typer.Option("--service", metavar="NAME", help="Of one service alone.", show_default=False)
    ] = None,
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, max=1_000_000, help="The latest N entries.")] = 20,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the latest entries of the journal, oldest first: decisions, intents and results, each with its reason.

    An id is what 'cfscale explain' takes; intent and result of an action have the same.

    Examples:   cfscale history

    cfscale history --service agents --last 100 -o json
    """
    entries = deque(_entries(profile, service), maxlen=last)
    if output is not Output.TABLE:
        documents = [{"kind": item.kind, "id": item.id, **msgspec.to_builtins(item.decision)} for item in entries]
        console.document({"schema": HISTORY_SCHEMA, "entries": documents}, output)
    elif entries:
        console.result(
            console.table(("id", "time", "service", "kind", "change", "urgency", "reason"), list(map(_row, entries)))
        )
    else:
        console.note("the journal is empty: 'cfscale scale --apply' writes it")


def _entries(profile: str | None, service: str | None) -> Iterator[Entry]:
    from cfscale.adapters.journal import Journal
    from cfscale.adapters.state import state_folder

    folder = state_folder(load_profile(profile, Sizing()).name, os.environ)
    return (item for item in Journal(folder).entries() if service in (None, item.decision.service))


def _row(item: Entry) -> tuple[str, ...]:
    decision = item.decision
    change = f"{decision.current}" + ("" if decision.desired == decision.current else f" -> {decision.desired}")
    kind = "done" if decision.applied else item.kind
    return (item.id, decision.time, decision.service, kind, change, decision.urgency, decision.reason)
