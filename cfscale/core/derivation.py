"""How a number of a plan follows from its inputs, down to the profile and the leaves of the catalogue.

``worked`` shows it with the figures of one plan, ``general`` without any.
"""

import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches

from msgspec import Struct

from cfscale.core.ledger import SERVICE, leaf_at, profile_value, rule_text, stated_text
from cfscale.core.plan import DeploymentPlan, LedgerEntry
from cfscale.core.tier import Catalogue, Leaf, Tier
from cfscale.core.workload import Profile
from cfscale.errors import InputError

EXPLANATION_SCHEMA = "cfscale/explanation/v1"
_NAME = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*(?![A-Za-z_.(])")
# what a rule names that a plan fills in
_ENVIRONMENT, _AGENT_MEMORY = "ENVIRONMENT", "AGENT_MEMORY"


class Step(Struct, frozen=True):
    """One number of a derivation: a rule, a leaf of the catalogue or a word of the profile, and what it follows from.

    ``law`` is the formula over names, ``formula`` the same with the figures of the plan.
    """

    name: str
    value: float | int | str | None
    unit: str
    source: str
    law: str = ""
    formula: str = ""
    assumption: str = ""
    range: str = ""
    field: str = ""
    inputs: tuple["Step", ...] = ()


class Explained(Struct, frozen=True):
    """A sized plan and what it was sized by."""

    profile: Profile
    catalogue: Catalogue
    plan: DeploymentPlan

    def fill(self, name: str, rule: str) -> str:
        """The name of an input as this plan means it."""
        memory = self.catalogue.rules.agent_memory(self.plan.agent_class)
        filled = name.replace(_AGENT_MEMORY, memory).replace(_ENVIRONMENT, self.plan.environment)
        return filled.replace(SERVICE, rule.partition(".")[0])


def worked(name: str, sized: Explained) -> Step:
    """The derivation of a rule (``memory.demand``) or of a field of the plan's document (``services.agents.replicas``).

    A leaf of the catalogue is its own. Raises InputError naming the nearest for a name that is none of these.
    """
    entries = {entry.rule: entry for entry in sized.plan.ledger}
    fields = {entry.field: entry for entry in entries.values() if entry.field}
    entry = entries.get(name) or fields.get(name)
    if entry is not None:
        return _rule_step(entry, sized, entries, frozenset())
    tier = sized.catalogue.tier(sized.plan.tier)
    leaves = list(_leaf_steps(name, sized.catalogue, tier))
    if leaves:
        return leaves[0]
    raise _unknown(name, [*entries, *fields, *sized.catalogue.rules.leaves])


def general(name: str, catalogue: Catalogue) -> Step:
    """The same for any plan: formulas and sources without figures; raises InputError naming the nearest."""
    ledger = catalogue.ledger
    by_field = {text.field: rule for rule, text in ledger.computed.items() if text.field}
    by_field |= {text.field: rule for rule, text in ledger.stated.items()}
    service = next((known for known in catalogue.services if name.startswith(f"services.{known}.")), "")
    field = name.replace(f"services.{service}.", f"services.{SERVICE}.", 1)
    rule = by_field.get(name) or by_field.get(field) or name
    steps = list(_general_steps(rule.replace(SERVICE, service or SERVICE), catalogue, frozenset()))
    if not steps:
        raise _unknown(name, [*ledger.computed, *ledger.stated, *by_field, *catalogue.rules.leaves])
    return steps[0]


def _unknown(name: str, known: list[str]) -> InputError:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else "'cfscale explain' lists them all"
    return InputError(f"no rule, field, value or conflict is called '{name}': {hint}")


def _rule_step(entry: LedgerEntry, sized: Explained, entries: dict[str, LedgerEntry], above: frozenset[str]) -> Step:
    below = above | {entry.rule}
    text = _text(entry.rule, sized.catalogue)
    given = _given(entry.rule, sized)
    names = [f"profile.{given}"] if given else [sized.fill(name, entry.rule) for name in text.names]
    inputs = (step for name in dict.fromkeys(names) for step in _input_steps(name, sized, entries, below))
    return Step(
        name=entry.rule,
        value=entry.value,
        unit=entry.unit,
        source=entry.source,
        law=sized.fill(text.law, entry.rule),
        formula=entry.formula,
        assumption=text.assumption,
        range=text.range,
        field=entry.field,
        inputs=tuple(inputs),
    )


class _Text(Struct, frozen=True):
    """What the catalogue says of a rule, whichever kind it is of."""

    unit: str
    field: str
    law: str
    names: tuple[str, ...]
    assumption: str = ""
    range: str = ""


def _text(rule: str, catalogue: Catalogue) -> _Text:
    """Raises KeyError for what is no rule."""
    try:
        text = rule_text(catalogue, rule)
    except KeyError:
        stated = stated_text(catalogue, rule)
        return _Text(stated.unit, stated.field, "", (stated.leaf,) if stated.leaf else ())
    names = tuple(dict.fromkeys([*_NAME.findall(text.formula), *text.needs]))
    return _Text(text.unit, text.field, text.formula, names, text.assumption, text.range)


def _given(rule: str, sized: Explained) -> str:
    """Where the profile states the value of a stated rule; empty where it does not."""
    try:
        path = sized.fill(stated_text(sized.catalogue, rule).profile, rule)
    except KeyError:
        return ""
    return path if path and profile_value(sized.profile, path) is not None else ""


def _input_steps(name: str, sized: Explained, entries: dict[str, LedgerEntry], above: frozenset[str]) -> Iterator[Step]:
    """The steps of one named input; none for a word that only tells a formula which amount is meant."""
    if name in above:  # bounds and counts name each other
        return
    if name in entries:
        yield _rule_step(entries[name], sized, entries, above)
    elif name.startswith("profile."):
        value = profile_value(sized.profile, name.removeprefix("profile."))
        if isinstance(value, float | int | str):
            yield Step(name, value, "", "profile")
    else:
        yield from _leaf_steps(name, sized.catalogue, sized.catalogue.tier(sized.plan.tier))


def _general_steps(name: str, catalogue: Catalogue, above: frozenset[str]) -> Iterator[Step]:
    if name in above:
        return
    try:
        text = _text(name, catalogue)
    except KeyError:
        if name.startswith("profile."):
            yield Step(name, None, "", "profile")
        else:
            yield from _leaf_steps(name, catalogue, None)
        return

    def fill(word: str) -> str:
        founding = catalogue.rules.agent_memory("process")
        return word.replace(SERVICE, name.partition(".")[0]).replace(_AGENT_MEMORY, founding)

    inputs = (step for word in text.names for step in _general_steps(fill(word), catalogue, above | {name}))
    yield Step(
        name,
        None,
        text.unit,
        source="",
        law=fill(text.law),
        assumption=text.assumption,
        range=text.range,
        field=fill(text.field),
        inputs=tuple(inputs),
    )


def _leaf_steps(name: str, catalogue: Catalogue, tier: Tier | None) -> Iterator[Step]:
    """The leaf of a path; of every tier, or of every environment, where none is chosen."""
    if name == "node_shapes":
        shapes = catalogue.rules.node_shapes
        words = ", ".join(f"{shape['cpu'].value}x{shape['memory'].value}" for shape in shapes)
        yield Step(name, words, "cores x GiB", shapes[0]["cpu"].source, assumption=shapes[0]["cpu"].note)
    elif name.startswith("tiers.") or (name.startswith("tier.") and tier is None):
        for each in catalogue.tiers:
            yield from _leaf(name, lambda path, each=each: leaf_at(catalogue, each, path), each.name)  # type: ignore[misc]
    elif _ENVIRONMENT in name:
        for environment in ("development", "staging", "production"):
            yield from _leaf_steps(name.replace(_ENVIRONMENT, environment), catalogue, tier)
    else:
        chosen = tier or catalogue.tiers[0]
        yield from _leaf(name, lambda path: leaf_at(catalogue, chosen, path), "tier")


def _leaf(name: str, find: Callable[[str], Leaf], tier: str) -> Iterator[Step]:
    section, _, rest = name.partition(".")
    try:
        leaf = find(f"tier.{rest}" if section in ("tier", "tiers") else name)
    except (KeyError, AttributeError):
        return
    shown = f"{tier}.{rest}" if section in ("tier", "tiers") else name
    value = leaf.value if leaf.max is None else f"{leaf.min}-{leaf.max}"
    yield Step(shown, value, "" if leaf.unit == "word" else leaf.unit, leaf.source, assumption=leaf.note)
