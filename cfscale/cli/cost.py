"""The cost of a plan: ``cfscale plan --prices FILE --region NAME``."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from cfscale.adapters.decode import MAX_BYTES, decode_yaml
from cfscale.cli import console
from cfscale.core.cost import priced
from cfscale.core.plan import Cost, DeploymentPlan
from cfscale.core.prices import PriceFile, prices_of
from cfscale.core.tier import Catalogue
from cfscale.core.units import format_cpu, format_size
from cfscale.errors import InputError


def with_cost(sized: DeploymentPlan, catalogue: Catalogue, path: str, region: str) -> DeploymentPlan:
    """The plan with its cost, and a warning where the prices are old; raises InputError for a bad file or region."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a price file") from error
    document, _ = decode_yaml(raw, PriceFile, path)
    prices = prices_of(document, path, region)
    age = (date.today() - date.fromisoformat(prices.date)).days  # noqa: DTZ011 - the operator's own day
    oldest = int(catalogue.rules.leaf("sizing.prices.oldest").exact)
    if age > oldest:
        console.warn(f"{path}: these prices are {age} days old, more than {oldest}: look them up again")
    return priced(sized, catalogue, prices)


def cost_rows(cost: Cost, sized: DeploymentPlan) -> Iterator[tuple[str, str]]:
    """The cost in the lines of a plan's summary."""
    agent = "" if cost.agent_month is None else f"; {cost.agent_month:.4g} an agent"
    yield "cost", f"{cost.month:,.2f} {cost.currency} a month ({cost.region}, {cost.prices_date}){agent}"
    count = sized.cells * sized.nodes.count
    yield (
        "",
        f"{count} x {cost.machine} at {cost.node_month:,.2f} = {cost.nodes_month:,.2f}; storage {cost.storage_month:,.2f}",
    )
    if (other := cost.cheapest) is not None:
        shape = f"{format_cpu(other.cpu_millicores)} cores, {format_size(other.memory_bytes)}"
        yield "cheapest", f"{other.nodes} x {other.machine} ({shape}): {other.nodes_month:,.2f} for the machines"
