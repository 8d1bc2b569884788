"""The ledger: which rule gave which number of a plan.

``tiers/ledger.yaml`` says of every rule what it means, its formula and what it assumes. Where a number is computed,
the code adds the arithmetic with the figures in place; numbers that are only passed on are collected here.
"""

from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter

from cfscale.core.plan import DeploymentPlan, LedgerEntry, Service
from cfscale.core.tier import Catalogue, Leaf, Rule, Stated, Tier, pool_kind
from cfscale.core.workload import Profile

SERVICE = "SERVICE"


def entry(catalogue: Catalogue, rule: str, value: float | str, formula: str, source: str) -> LedgerEntry:
    """The entry of a computed number; raises KeyError for a rule that the catalogue does not have."""
    text = rule_text(catalogue, rule)
    return LedgerEntry(rule, value, text.unit, formula, source, text.field.replace(SERVICE, rule.partition(".")[0]))


def rule_text(catalogue: Catalogue, rule: str) -> Rule:
    """What the catalogue says of a computed rule, or of the same rule of any service; raises KeyError."""
    known = catalogue.ledger.computed
    return known[rule] if rule in known else known[f"{SERVICE}.{rule.partition('.')[2]}"]


def stated_text(catalogue: Catalogue, rule: str) -> Stated:
    """What the catalogue says of a stated rule, or of the same rule of any service; raises KeyError."""
    known = catalogue.ledger.stated
    return known[rule] if rule in known else known[f"{SERVICE}.{rule.partition('.')[2]}"]


def stated_entries(catalogue: Catalogue, profile: Profile, plan: DeploymentPlan) -> Iterator[LedgerEntry]:
    """An entry for every number that catalogue or profile state and the plan passes on."""
    tier = catalogue.tier(plan.tier)
    for rule, text in catalogue.ledger.stated.items():
        if rule.startswith(SERVICE):
            for service in plan.services:
                yield from _stated(catalogue, profile, tier, (rule, text), service)
        elif _applies(text.field, plan):
            yield from _stated(catalogue, profile, tier, (rule, text), plan)


def _applies(field: str, plan: DeploymentPlan) -> bool:
    """Whether a plan has the field: a tier without a database or a shared memory has no settings of these."""
    if field.startswith("settings.database."):
        return plan.settings.database is not None
    return plan.settings.memory is not None or not field.startswith("settings.memory.")


def _stated(
    catalogue: Catalogue, profile: Profile, tier: Tier, named: tuple[str, Stated], root: DeploymentPlan | Service
) -> Iterator[LedgerEntry]:
    rule, text = named
    name = root.name if isinstance(root, Service) else ""
    value = _getter(text.field)(root)
    if value is None:  # no limit: there is no number to explain
        return
    if text.profile and profile_value(profile, text.profile.replace(SERVICE, name)) is not None:
        formula, source = "as the profile states it", "profile"
    else:
        leaf = leaf_at(catalogue, tier, text.leaf.replace(SERVICE, name))
        formula, source = f"{leaf.value} {leaf.unit}, as stated", leaf.source
    yield LedgerEntry(rule.replace(SERVICE, name), value, text.unit, formula, source, text.field.replace(SERVICE, name))


@lru_cache(maxsize=256)
def _getter(field: str) -> "attrgetter[float | None]":
    """Reads a field off the plan, or off a service where the field is one of any service's."""
    return attrgetter(field.removeprefix(f"services.{SERVICE}."))


def profile_value(profile: Profile, path: str) -> object | None:
    """What a profile says at a dotted path; None where it says nothing."""
    node: object = profile
    for part in path.split("."):
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list):
            node = node[int(part)] if int(part) < len(node) else None
        else:
            node = getattr(node, part)
        if node is None:
            return None
    return node


def leaf_at(catalogue: Catalogue, tier: Tier, path: str) -> Leaf:
    """The leaf of a path that a rule names: of the chosen tier, of a service, or of what holds for all; raises KeyError."""
    section, _, rest = path.partition(".")
    if section == "services":
        name, _, key = rest.partition(".")
        leaf: Leaf = getattr(catalogue.kind(name), key)
        return leaf
    if section != "tier":
        return catalogue.rules.leaf(path)
    table, _, key = rest.partition(".")
    if table == "services":
        name, _, key = key.partition(".")
        return tier.services[pool_kind(name)][key]
    values: dict[str, Leaf] = getattr(tier, table)
    return values[key]
