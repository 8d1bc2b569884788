"""Prints the digest of COUNT plans: ``python -m tests.core.plan_digest COUNT``. Every process must print the same."""

import sys
from hashlib import sha256
from random import Random

import msgspec

from cfscale.adapters.assets import load_catalogue
from cfscale.core.sizing import size
from cfscale.core.workload import Environment, Profile, Slo

ENVIRONMENTS: tuple[Environment, ...] = ("development", "staging", "production")


def profile(index: int) -> Profile:
    """A profile of its own for each index, over all tiers and into the cells."""
    drawn = Random(index)
    agents = int(10 ** drawn.uniform(0, 5))
    slo = Slo(drawn.uniform(0.1, 20), drawn.uniform(1, 60), drawn.uniform(0.01, 0.5)) if index % 4 == 0 else None
    return Profile(
        name=f"p{index}",
        environment=drawn.choice(ENVIRONMENTS),
        users=int(10 ** drawn.uniform(0, 4)),
        agents=agents,
        tasks=agents * drawn.randint(0, 3),
        growth=drawn.choice(("1", "1.5", "0.7", "3")),
        slo=slo,
    )


def main() -> None:
    catalogue, digest = load_catalogue(), sha256()
    for index in range(int(sys.argv[1])):
        digest.update(msgspec.json.encode(size(profile(index), catalogue)))
    sys.stdout.write(f"{digest.hexdigest()}\n")


if __name__ == "__main__":
    main()
