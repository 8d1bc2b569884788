"""The policies that a profile asks for, checked, as the plan carries them; and policies by their short names.

A short name is a kind with at most one option behind a colon: ``slo:0.5%``, ``target:70%``, ``predictive:founding``.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from urllib.parse import urlsplit

from cfscale.core.cron import parse_cron
from cfscale.core.plan import Policy
from cfscale.core.units import parse_duration, share_of
from cfscale.core.workload import PolicyProfile, WindowProfile
from cfscale.errors import InputError

DEFAULT = Policy("slo")
FOUNDING = "founding"
_OPTIONS: Mapping[str, frozenset[str]] = {
    "slo": frozenset(("goal",)),
    "resource": frozenset(("cpu", "memory")),
    "target": frozenset(("resource", "usage")),
    "pool": frozenset(),
    "predictive": frozenset(("law",)),
    "schedule": frozenset(("windows",)),
    "queue": frozenset(("source", "url", "key", "query", "field", "per_replica")),
}
_QUEUE = {
    "redis": ("key", ("redis",)),
    "prometheus": ("query", ("http", "https")),
    "http": ("field", ("http", "https")),
}


def policies_of(given: Sequence[PolicyProfile] | None) -> tuple[Policy, ...]:
    """The policies of a profile, the default where it names none; raises InputError for an option that does not fit."""
    if given is None:
        return (DEFAULT,)
    if not given:
        raise InputError("scaling.policies is empty: name a policy, or leave the key out for the default")
    return tuple(_policy(item, f"scaling.policies.{number}") for number, item in enumerate(given))


def _policy(given: PolicyProfile, where: str) -> Policy:
    options = {
        name: value
        for name in given.__struct_fields__
        if name != "kind" and (value := getattr(given, name)) is not None
    }
    for name in options.keys() - _OPTIONS[given.kind]:
        known = ", ".join(sorted(_OPTIONS[given.kind])) or "none"
        raise InputError(f"{where}.{name} is no option of '{given.kind}': it takes {known}")
    if given.kind == "schedule":
        return Policy("schedule", {"windows": _windows(given.windows, where)})
    if given.kind == "queue":
        return Policy("queue", _queue(given, where))
    for name in ("usage", "goal"):
        if name in options:
            share_of(options[name], f"{where}.{name}")
    return Policy(given.kind, {name: value for name, value in options.items() if isinstance(value, str)})


def _windows(given: Sequence[WindowProfile] | None, where: str) -> str:
    if not given:
        raise InputError(f"{where}.windows is missing: give a list of start, for and min")
    for window in given:
        parse_cron(window.start)
        if parse_duration(window.lasts) <= 0:
            raise InputError(f"{where}.windows: '{window.start}' lasts no time at all: give 'for' more than 0s")
    return ";".join(f"{window.start}/{window.lasts}/{window.min}" for window in given)


def _queue(given: PolicyProfile, where: str) -> dict[str, str]:
    """The options of a queue: where to ask, what for, and how much of it one replica may leave waiting."""
    if given.source is None or given.url is None or given.per_replica is None:
        raise InputError(f"{where}: a queue takes source, url and per_replica: give all three")
    what, schemes = _QUEUE[given.source]
    value = getattr(given, what)
    if value is None:
        raise InputError(f"{where}.{what} is missing: source '{given.source}' takes it")
    parts = urlsplit(given.url)
    if parts.scheme not in schemes or not parts.hostname:
        raise InputError(f"{where}.url '{given.url}': write {schemes[0]}://HOST:PORT")
    if parts.password:
        raise InputError(
            f"{where}.url holds a password, and a profile ends up in manifests: export CFSCALE_QUEUE_PASSWORD"
        )
    name = f"{given.source}:{parts.hostname}:{value}"
    return {
        "name": name,
        "source": given.source,
        "url": given.url,
        what: value,
        "per_replica": f"{given.per_replica:g}",
    }


def named(text: str, others: Sequence[str] = ()) -> Policy:
    """The policy of a short name; raises InputError with the nearest known one, or one of ``others``."""
    kind, _, option = text.partition(":")
    if kind in ("slo", "target") and option:
        share_of(option if "%" in option else f"{option}%", text)
        return Policy(kind, {"goal" if kind == "slo" else "usage": option if "%" in option else f"{option}%"})
    if kind == "predictive" and option in ("", FOUNDING, "proportional"):
        return Policy(kind, {"law": option} if option else {})
    if kind in ("slo", "target", "resource", "pool") and not option:
        return Policy(kind)
    raise unknown(text, others)


def unknown(text: str, others: Sequence[str]) -> InputError:
    """The error for a policy of no known name."""
    known = (
        "slo",
        "slo:0.5%",
        "resource",
        "target",
        "target:70%",
        "pool",
        "predictive",
        "predictive:founding",
        *others,
    )
    near = get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return InputError(f"no policy is called '{text}': {hint}")
