"""A price file: what machines and storage cost in each region on the day it was written. The operator owns it."""

import re
from datetime import date
from fractions import Fraction
from typing import Annotated

from msgspec import Meta, Struct

from cfscale.core.cost import Machine, Prices
from cfscale.core.units import parse_cpu, parse_size
from cfscale.errors import InputError

Price = Annotated[
    str,
    Meta(
        pattern=r"\A(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,9})?\Z",
        description="a price: a decimal number without a currency, such as 0.21",
    ),
]
_WORD = Annotated[str, Meta(min_length=1, max_length=100)]
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class _Machine(Struct, frozen=True, forbid_unknown_fields=True):
    name: _WORD
    cpu: str
    memory: str
    hourly: Price


class _Region(Struct, frozen=True, forbid_unknown_fields=True):
    machines: Annotated[list[_Machine], Meta(min_length=1)]
    storage_gib_month: Price


class PriceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written; sizes and CPU are text in the grammar of profiles."""

    date: date
    currency: str
    regions: dict[str, _Region]


def prices_of(document: PriceFile, path: str, region: str) -> Prices:
    """The prices of a region of the file at this path; raises InputError where it has none, or for a wrong amount."""
    if not _CURRENCY.fullmatch(document.currency):
        raise InputError(f"{path}: currency '{document.currency}' is no code of three capitals: write EUR or USD")
    if region not in document.regions:
        known = ", ".join(sorted(document.regions)) or "none"
        raise InputError(f"{path}: no region is called '{region}': it has {known}; name one of these, or add it")
    found = document.regions[region]
    return Prices(
        name=path,
        date=document.date.isoformat(),
        currency=document.currency,
        region=region,
        machines=tuple(_machine(item, f"{path}: regions.{region}: {item.name}") for item in found.machines),
        storage_gib_month=Fraction(found.storage_gib_month),
    )


def _machine(item: _Machine, place: str) -> Machine:
    try:
        return Machine(item.name, parse_cpu(item.cpu), parse_size(item.memory), Fraction(item.hourly))
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
