"""``cfscale schema``: the JSON Schemas of everything cfscale reads and prints."""

from typing import Annotated

import typer

from cfscale.cli import console
from cfscale.errors import InputError

NAMES = (
    "profile",
    "plan",
    "saved-plan",
    "decision",
    "probe",
    "lock",
    "explanation",
    "deviations",
    "what-if",
    "sensitivity",
    "capacity",
    "horizon",
    "coefficients",
    "simulation",
)


def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(NAMES)}.", show_default=False)],
) -> None:
    """Print the JSON Schema (draft 2020-12) of a document.

    Examples:   cfscale schema profile > cfscale.schema.json

    cfscale schema plan
    """
    import msgspec

    documents = _documents()
    if name not in documents:
        raise InputError(f"no document is called '{name}': choose one of {', '.join(NAMES)}")
    (body,), parts = msgspec.json.schema_components([documents[name]], ref_template="#/$defs/{name}")
    text = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"cfscale/{name}/v1",
        **body,
        "$defs": parts,
    }
    console.document(_widened(text), console.Output.JSON)


def _widened(node: object) -> object:
    """The schema with every type that admits others beside it written as a list."""
    from cfscale.core.workload import ALSO

    if isinstance(node, list):
        return [_widened(item) for item in node]
    if not isinstance(node, dict):
        return node
    wide = {"type": [node["type"], *node[ALSO]]} if node.keys() >= {"type", ALSO} else {}
    return {key: _widened(value) for key, value in node.items() if key != ALSO} | wide


def _documents() -> dict[str, object]:
    from cfscale.core.coefficients import Coefficients
    from cfscale.core.decision import Decision
    from cfscale.core.derivation import Step
    from cfscale.core.deviation import Deviations
    from cfscale.core.health import Report
    from cfscale.core.horizon import Horizon
    from cfscale.core.inverse import Capacity
    from cfscale.core.plan import DeploymentPlan
    from cfscale.core.savedplan import SavedPlan
    from cfscale.core.sensitivity import Sensitivity
    from cfscale.core.simulate import Simulation
    from cfscale.core.whatif import WhatIf
    from cfscale.core.workload import Profile
    from cfscale.render.lock import Lock

    return {
        "profile": Profile,
        "plan": DeploymentPlan,
        "saved-plan": SavedPlan,
        "decision": Decision,
        "probe": Report,
        "lock": Lock,
        "explanation": Step,
        "deviations": Deviations,
        "what-if": WhatIf,
        "sensitivity": Sensitivity,
        "capacity": Capacity,
        "horizon": Horizon,
        "coefficients": Coefficients,
        "simulation": Simulation,
    }
