"""``cfscale tiers``: the catalogue as it is."""

from typing import Annotated

import msgspec
import typer

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.cli.options import OutputOption
from cfscale.core.tier import Catalogue, Leaf, Tier

_SECTIONS = ("limits", "resources", "configuration", "monitoring", "load_balancing", "database", "security")


def tiers(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="One tier with all its values and sources.", show_default=False),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the tiers of the catalogue, or one with every value, unit and source.

    Examples:   cfscale tiers

    cfscale tiers department

    cfscale tiers department -o json
    """
    from cfscale.adapters.assets import load_catalogue

    catalogue = load_catalogue()
    shown = catalogue.tiers if name is None else [catalogue.tier(name)]
    if output is not Output.TABLE:
        documents = [{"schema": "cfscale/tier/v1", **msgspec.to_builtins(tier)} for tier in shown]
        console.document(documents if name is None else documents[0], output)
    else:
        console.result(_overview(catalogue) if name is None else _detail(shown[0]))


def _overview(catalogue: Catalogue) -> str:
    drivers = ("users", "agents", "tasks")
    rows = [
        (
            tier.name,
            *(str(tier.top(driver)) for driver in drivers),
            *(_value(tier.resources[name]) for name in ("cpu", "memory", "storage", "network")),
            _value(tier.configuration["replication_factor"]) if "replication_factor" in tier.configuration else "1",
        )
        for tier in catalogue.tiers
    ]
    return console.table(
        ("tier", ">users", ">agents", ">tasks", ">cpu", ">memory", ">storage", ">network", ">copies"), rows
    )


def _detail(tier: Tier) -> str:
    rows = [
        (section, key, _value(leaf), leaf.source)
        for section in _SECTIONS
        for key, leaf in getattr(tier, section).items()
    ]
    rows += [
        (f"services.{name}", key, _value(leaf), leaf.source)
        for name, shape in tier.services.items()
        for key, leaf in shape.items()
    ]
    return f"{tier.title} ({tier.source})\n\n" + console.table(("section", "key", "value", "source"), rows)


def _value(leaf: Leaf) -> str:
    unit = "" if leaf.unit == "word" else f" {leaf.unit}"
    return f"{leaf.min}-{leaf.max}{unit}" if leaf.value is None and leaf.max is not None else f"{leaf.value}{unit}"
