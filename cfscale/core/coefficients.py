"""Measured coefficients: the document that ``calibrate`` writes, and the catalogue with them in place of the founding ones."""

import msgspec
from msgspec import Struct

from cfscale.core.tier import Catalogue, Leaf
from cfscale.errors import InputError

COEFFICIENTS_SCHEMA = "cfscale/coefficients/v1"
BASE_MEMORY, AGENT_MEMORY, TASK_MEMORY = "sizing.base_memory", "sizing.agent_memory", "sizing.task_memory"
BASE_CPU, AGENT_CPU, TASK_CPU = "sizing.cpu_intercept", "sizing.agent_cpu", "sizing.task_cpu"
UNITS = {
    **dict.fromkeys((BASE_MEMORY, AGENT_MEMORY, TASK_MEMORY), "GiB"),
    **dict.fromkeys((BASE_CPU, AGENT_CPU, TASK_CPU), "cores"),
}
_MOST = 1_000_000  # GiB or cores for one agent: more is a slip of the pen
_CLASSES = "sizing.agent_classes."


class Coefficient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One coefficient: what was believed, what the data make of it, and how sure that is.

    ``name`` is the value of the catalogue that it replaces. ``prior_deviation`` is a standard deviation; ``low`` and
    ``high`` bound the posterior with the stated confidence; ``data_ratio`` is how much of the prior's variance the data
    took away (0: they say nothing of it).
    """

    name: str
    unit: str
    prior: float
    prior_deviation: float
    posterior: float
    low: float
    high: float
    data_ratio: float


class Coefficients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The document: all six coefficients, from how many observations, and where these came from."""

    schema: str
    source: str
    observations: int
    confidence_ratio: float
    coefficients: tuple[Coefficient, ...]


class Cited(Struct, frozen=True):
    """Coefficients and the name of the file that they are cited by."""

    name: str
    document: Coefficients


def parse_coefficients(raw: bytes, name: str) -> Coefficients:
    """The document; raises InputError naming the place of what is wrong, and the coefficient that is unknown or missing."""
    remedy = "write it with 'cfscale calibrate --out'"
    try:
        document = msgspec.json.decode(raw, type=Coefficients)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: no coefficients: {error}: {remedy}") from error
    if document.schema != COEFFICIENTS_SCHEMA:
        raise InputError(f"{name}: schema '{document.schema}' is not {COEFFICIENTS_SCHEMA}: {remedy}")
    given = [item.name for item in document.coefficients]
    for known in UNITS:
        if given.count(known) != 1:
            raise InputError(f"{name}: coefficient '{known}' stands {given.count(known)} times, not once: {remedy}")
    for item in document.coefficients:
        _check(item, name)
    return document


def _check(item: Coefficient, name: str) -> None:
    if item.name not in UNITS:
        raise InputError(f"{name}: no coefficient is called '{item.name}': known are {', '.join(UNITS)}")
    if item.unit != UNITS[item.name]:
        raise InputError(f"{name}: {item.name} is in {UNITS[item.name]}, not in '{item.unit}'")
    # agents without memory would make any number of them fit anywhere
    least = "above" if item.name == AGENT_MEMORY else "at least"
    if not 0 <= item.posterior <= _MOST or (item.posterior == 0 and least == "above"):
        raise InputError(f"{name}: {item.name} is {item.posterior:g}: it must be {least} 0, and at most {_MOST}")


def with_coefficients(catalogue: Catalogue, cited: Cited) -> Catalogue:
    """The catalogue with measured coefficients, each citing the file; an agent takes what was measured, whatever its class."""
    source = f"calibration:{cited.name}"
    words = f"{cited.document.observations} observations"
    measured = {
        item.name: Leaf(unit=item.unit, source=source, value=item.posterior, note=f"{words}; before: {item.prior:g}")
        for item in cited.document.coefficients
    }
    leaves = {
        path: measured[AGENT_MEMORY] if path.startswith(_CLASSES) else leaf
        for path, leaf in catalogue.rules.leaves.items()
    }
    rules = msgspec.structs.replace(catalogue.rules, leaves=leaves | measured)
    return msgspec.structs.replace(catalogue, rules=rules)
