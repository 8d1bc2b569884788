"""The chart as text: read back, packed, explained; without a helm."""

import json

import pytest
import yaml

import cfscale
from cfscale.adapters.assets import load_templates
from cfscale.core import composeloss
from cfscale.errors import ActionError
from cfscale.render.helm import check, losses, render
from cfscale.render.helm.fill import quantity, retention, schedule
from cfscale.render.helm.package import packaged
from tests.helm.lab import PLANS, TIERS
from tests.render.golden import assert_golden

QUEUE = "a queue whose primary died and never came back before everything was stopped"


@pytest.mark.parametrize("tier", TIERS)
def test_the_values_say_what_the_plan_says_and_a_changed_one_does_not(tier: str) -> None:
    files = render(PLANS[tier], load_templates(), PLANS)
    check.compare(PLANS[tier], files["values.yaml"])

    values = yaml.safe_load(files["values.yaml"])
    values["services"]["agents"]["replicas"] += 1
    with pytest.raises(ActionError, match=r"services\.agents: replicas differs"):
        check.compare(PLANS[tier], yaml.safe_dump(values, sort_keys=False))


@pytest.mark.parametrize("tier", ["single-user", "enterprise"])
def test_a_tier_renders_as_it_did(tier: str) -> None:
    """What is not static; the schema, the table of values and the values of the tiers follow from the same model."""
    files = render(PLANS[tier], load_templates(), {})
    own = {path: files[path].replace(cfscale.__version__, "VERSION") for path in ("Chart.yaml", "values.yaml")}

    assert_golden(f"helm/{tier}/chart", own)


def test_a_package_depends_on_its_files_alone() -> None:
    files = render(PLANS["team"], load_templates(), PLANS)
    backwards = dict(reversed(files.items()))

    assert packaged(files) == packaged(backwards)
    assert packaged(files) != packaged({**files, "values.yaml": "{}"})


def test_every_value_is_explained_in_the_schema_and_what_is_unknown_is_refused() -> None:
    schema = json.loads(render(PLANS["team"], load_templates(), PLANS)["values.schema.json"])

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert [name for name, one in schema["$defs"].items() if one["additionalProperties"] is not False] == []
    assert all(one.get("description") for one in schema["$defs"].values())


def test_amounts_are_written_as_kubernetes_and_the_operator_read_them() -> None:
    assert [quantity(amount) for amount in (2**30, 3 * 2**20, 1500, 2**40)] == ["1Gi", "3Mi", "1500", "1Ti"]
    assert [schedule(hours * 3600) for hours in (1, 6, 24)] == ["0 0 * * * *", "0 0 */6 * * *", "0 0 0 * * *"]
    assert [retention(days * 86_400) for days in (90, 7 * 365)] == ["90d", "2557d"]


def test_what_is_not_carried_is_listed() -> None:
    fields = {loss.field for loss in losses(PLANS["enterprise"])}

    assert {"cpu_limit", "publish", "scaling"} <= fields
    # what no target here does is a loss of the chart as of the others, unless it does it
    everywhere = {loss.field for loss in composeloss.losses(PLANS["enterprise"]) if not loss.services}
    done = {"machines of their own", "votes of etcd and Sentinel", "an update that is rolled back"}
    assert everywhere - fields == {*done, QUEUE}
