import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

import cfscale
from cfscale.adapters import files as files_adapter
from cfscale.render import lock
from tests.render.plans import changed, plan_for

FILES = {"compose.yaml": "b\n", "config/a": "a\n"}
TEMPLATES = {"a": "1", "b": "2"}


def document(**values: Any) -> dict[str, Any]:
    arguments = {"plan": plan_for("team"), "target": "compose", "files": FILES, "templates": TEMPLATES, **values}
    found: dict[str, Any] = json.loads(lock.lock_document(**arguments))
    return found


def test_it_says_what_was_rendered_from_what() -> None:
    found = document()

    assert list(found) == sorted(found)
    assert found["schema"] == "cfscale/lock/v1"
    assert found["version"] == cfscale.__version__
    assert (found["target"], found["tier"]) == ("compose", "team")
    assert found["files"] == {path: hashlib.sha256(text.encode()).hexdigest() for path, text in FILES.items()}
    assert lock.LOCK_NAME not in found["files"]


def test_the_text_ends_with_a_newline_and_does_not_depend_on_order() -> None:
    plan = changed(plan_for("team"), "agents", env={"A": "1", "B": "2"})
    turned = changed(plan_for("team"), "agents", env={"B": "2", "A": "1"})

    text = lock.lock_document(plan, "compose", FILES, TEMPLATES)
    assert text.endswith("}\n")
    assert text == lock.lock_document(
        turned, "compose", dict(reversed(FILES.items())), dict(reversed(TEMPLATES.items()))
    )


def test_a_change_of_the_plan_shows() -> None:
    changed_plan = replace(plan_for("team"), users=2)

    assert document()["inputs_sha256"] != document(plan=changed_plan)["inputs_sha256"]


@pytest.mark.parametrize("other", [{"a": "1", "b": "3"}, {"a": "1"}, {"a": "12", "b": ""}, {"a": "1", "c": "2"}])
def test_a_change_of_a_template_shows(other: Mapping[str, str]) -> None:
    assert document()["templates_sha256"] != document(templates=other)["templates_sha256"]


def test_writer_and_reader_mean_the_same_file() -> None:
    assert lock.LOCK_NAME == files_adapter.LOCK_NAME
