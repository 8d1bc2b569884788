"""Which services a cell runs: those of its tier, those that the profile adds, and its pools of agents."""

import re
from collections.abc import Mapping
from fractions import Fraction
from math import floor

from cfscale.core.plan import Settings
from cfscale.core.tier import AGENTS, Tier, pool_kind
from cfscale.core.workload import Profile, parse_fraction
from cfscale.errors import InputError

# in the order in which a plan lists them; pools of agents follow the agents
SERVICES = (
    "coordinator", AGENTS, "loadbalancer", "queue", "memory", "cache", "database", "pooler", "sentinel", "etcd",
)  # fmt: skip
_POOL = r"agents-[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?"
# a share is printed and computed with: as many digits as anybody would write
_PARTS = 1000


def known(name: str) -> bool:
    """Whether a profile may speak of a service of this name."""
    return name in SERVICES or re.fullmatch(_POOL, name, re.ASCII) is not None


def require_known(profile: Profile) -> None:
    """Raise InputError for a service that there is not."""
    named = {*profile.services, *profile.scaling.services}
    for name in sorted(named):
        if not known(name):
            raise InputError(
                f"no service is called '{name}': the services are {', '.join(SERVICES)}, and agents-TYPE for a pool of agents"
            )
    for name, override in profile.services.items():
        if override.share is not None and pool_kind(name) == name:
            raise InputError(f"services.{name}.share: only a pool (agents-TYPE) has a share: the rest is the agents'")


def roster(profile: Profile, tier: Tier, settings: Settings) -> tuple[str, ...]:
    """The services of a cell in order; raises InputError for shares that leave nothing to the agents."""
    found: list[str] = []
    for name in SERVICES:
        if name in tier.services and _wanted(name, profile, tier, settings):
            found.append(name)
        if name == AGENTS:
            found += [pool for pool in shares_of(profile) if pool != AGENTS]
    return tuple(found)


def _wanted(name: str, profile: Profile, tier: Tier, settings: Settings) -> bool:
    if name == "sentinel":  # nothing to watch over where there is no second copy
        return settings.replication_factor > 1
    return name not in tier.optional or name in profile.services


def left_out(profile: Profile, names: tuple[str, ...]) -> tuple[str, ...]:
    """What the profile says of services that this cell does without."""
    return tuple(name for name in sorted({*profile.services, *profile.scaling.services}) if name not in names)


def shares_of(profile: Profile) -> Mapping[str, Fraction]:
    """The part of the agents and tasks that each pool carries, the agents' own first.

    Pools without a share take as much each as is left to the agents.
    """
    pools = sorted(name for name in profile.services if pool_kind(name) != name)
    given = {name: share for name in pools if (share := profile.services[name].share) is not None}
    stated = {name: parse_fraction(share, f"services.{name}.share") for name, share in given.items()}
    rest = 1 - sum(stated.values())
    if rest <= 0:
        raise InputError(
            f"the shares of {', '.join(stated)} leave nothing to the agents: they must add up to less than 1"
        )
    equal = Fraction(floor(rest / (1 + len(pools) - len(stated)) * _PARTS), _PARTS)
    found = {name: stated.get(name, equal) for name in pools}
    return {AGENTS: 1 - sum(found.values(), Fraction(0)), **found}
