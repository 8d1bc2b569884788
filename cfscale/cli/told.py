"""A decision of the journal in words: what was seen, how the count came about step by step, and what came of it.

Whatever a decision's document holds is shown: keys that are not known here are listed as they are.
"""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import Sizing, load_profile
from cfscale.core.decision import ID_CHARACTERS, Decision, Entry, Kind, alternatives
from cfscale.core.units import format_duration, percent
from cfscale.errors import InputError

if TYPE_CHECKING:
    from cfscale.core.samples import Sample

LAST = "last"
TOLD_SCHEMA = "cfscale/told-decision/v1"
_LEAST_CHARACTERS = 4
_SHOWN = frozenset(
    (
        "schema",
        "time",
        "service",
        "engine",
        "current",
        "desired",
        "action",
        "urgency",
        "reason",
        "applied",
        "samples",
        "basis",
    )
)


def is_decision(name: str) -> bool:
    """Whether a name can only be that of a decision: ``last``, or enough of an id."""
    hexadecimal = _LEAST_CHARACTERS <= len(name) <= ID_CHARACTERS and not set(name) - set("0123456789abcdef")
    return name == LAST or hexadecimal or "/" in name


def explain_decision(name: str, profile: str | None, output: Output) -> None:
    """Show a decision of the journal; raises InputError for one that is not there."""
    journal = _journal(profile)
    entries = _entries_of(name, journal)
    before = _before(entries[0], journal)
    if output is Output.TABLE:
        console.result("\n".join(map(console.clean, _lines(entries, before))))
        return
    documents = [{"kind": item.kind, "id": item.id, **msgspec.to_builtins(item.decision)} for item in entries]
    console.document({"schema": TOLD_SCHEMA, "id": entries[0].id, "entries": documents}, output)


def _journal(profile: str | None) -> tuple[Entry, ...]:
    from cfscale.adapters.journal import Journal
    from cfscale.adapters.state import state_folder

    folder = state_folder(load_profile(profile, Sizing()).name, os.environ)
    return tuple(Journal(folder).entries())


def _entries_of(name: str, journal: Sequence[Entry]) -> tuple[Entry, ...]:
    if not journal:
        raise InputError("the journal is empty: 'cfscale scale --apply' writes it")
    ids = {journal[-1].id} if name == LAST else {item.id for item in journal if item.id.startswith(name)}
    if not ids:
        raise InputError(f"no decision '{name}' is in the journal: see the ids of 'cfscale history'")
    if len(ids) > 1:
        raise InputError(f"'{name}' is the beginning of {len(ids)} ids: give more of it")
    return tuple(item for item in journal if item.id in ids)


def _before(entry: Entry, journal: Sequence[Entry]) -> Entry | None:
    """The latest change of the same service before this one."""
    mine = [item for item in journal if item.decision.service == entry.decision.service]
    earlier = mine[: next(index for index, item in enumerate(mine) if item.id == entry.id)]
    return next((item for item in reversed(earlier) if item.decision.applied), None)


def _lines(entries: Sequence[Entry], before: Entry | None) -> Iterator[str]:
    first, last = entries[0], entries[-1]
    decision = last.decision
    yield f"{first.id}  {decision.service} on {decision.engine}, {decision.time}"
    yield f"  decided  {_change(decision)}, urgency {decision.urgency}"
    yield "  because"
    yield from (f"    {number}. {step}" for number, step in enumerate(first.decision.reason.split("; "), 1))
    yield "  seen" if decision.samples else "  seen     nothing that could be used"
    yield from (f"    {_seen(sample)}" for sample in decision.samples)
    yield from _basis(decision)
    yield f"  outcome  {_outcome(entries)}"
    if before is not None:
        yield f"  before   {before.id}  {before.decision.time}  {_change(before.decision)}"
    more = {key: value for key, value in msgspec.to_builtins(decision).items() if key not in _SHOWN}
    yield from (f"  {key:<8} {_plain(value)}" for key, value in more.items() if value not in (None, [], {}, ""))


def _basis(decision: Decision) -> Iterator[str]:
    """The forecast, what each policy wished, and what other settings would have wished from the same data."""
    basis = decision.basis
    if basis is None:
        return
    if basis.expected is not None and basis.margin is not None and basis.horizon_seconds is not None:
        yield f"  forecast {basis.expected:.1f} replicas' load within {format_duration(basis.horizon_seconds)}, margin {basis.margin:.1f}"
        yield (
            f"           error {basis.error_ratio:.2f} of that without a forecast"
            if basis.error_ratio is not None
            else ""
        )
    yield "  wished   " + ", ".join(f"{policy} {count}" for policy, count in basis.proposals.items())
    if others := alternatives(decision):
        yield "  what if  before damping"
        yield from (f"    {setting:<18}{count:>4}" for setting, count in others)


def _change(decision: Decision) -> str:
    if decision.desired == decision.current:
        return f"{decision.action}: {decision.current} replicas stay"
    return f"{decision.action}: {decision.current} -> {decision.desired} replicas"


def _seen(sample: "Sample") -> str:
    age = format_duration(round(sample.age_seconds)) if sample.age_seconds >= 1 else "now"
    when = age if age == "now" else f"{age} old"
    return f"{sample.resource:<7} {percent(sample.value_ratio):>7}  {sample.quality}, {when}, by {sample.source}"


def _outcome(entries: Sequence[Entry]) -> str:
    """What came of it; a result adds its own words to the reason of its intent."""
    last, kinds = entries[-1].decision, [item.kind for item in entries]
    if Kind.DECISION in kinds:
        return "nothing was to be done"
    if Kind.RESULT not in kinds:
        return "not known: cfscale ended before it was done; the next 'scale --apply' takes it up"
    said = last.reason.removeprefix(entries[0].decision.reason).removeprefix("; ")
    return ("done" if last.applied else "did not take effect") + (f": {said}" if said else "")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
