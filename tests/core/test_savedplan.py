"""The saved plan as a document: recognised by its beginning, decoded strictly, and compared with what would follow now."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.savedplan import (
    SAVED_SCHEMA,
    Inputs,
    Installation,
    SavedPlan,
    Source,
    again,
    catalogue_digest,
    changed_plan,
    parse_saved,
    recognised,
    saved_text,
)
from cfscale.core.sizing import size
from cfscale.core.workload import Profile, ServiceOverride
from cfscale.errors import InputError

CATALOGUE = load_catalogue()
HERE = Installation("1.2.3", catalogue_digest(CATALOGUE))


def saved(profile: Profile, **flags: str) -> SavedPlan:
    inputs = Inputs(Source("acme.yaml", "0" * 64), flags, None, HERE.catalogue_sha256)
    return SavedPlan(SAVED_SCHEMA, HERE.version, inputs, profile, size(profile, CATALOGUE))


DOCUMENT = saved(Profile(users=40, agents=400, tasks=800))
RAW = saved_text(DOCUMENT).encode()


@given(st.integers(0, 60_000), st.integers(0, 60_000), st.integers(0, 60_000))
def test_what_was_saved_is_read_back_and_still_holds(users: int, agents: int, tasks: int) -> None:
    document = saved(Profile(users=users, agents=agents, tasks=tasks))
    raw = saved_text(document).encode()

    read = parse_saved(raw, "plan.json")

    assert (recognised(raw), read.profile, read.inputs) == (True, document.profile, document.inputs)
    assert changed_plan(read, raw, size(read.profile, CATALOGUE), HERE) is None


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert saved_text(saved(DOCUMENT.profile)).encode() == RAW


@given(st.text(max_size=300))
def test_other_text_is_not_recognised(text: str) -> None:
    assert not recognised(text.encode("utf-8", "surrogatepass"))


def test_a_profile_written_as_json_is_a_profile() -> None:
    assert not recognised(b'{"name": "acme", "users": 1}')


def test_a_document_of_another_layout_is_recognised() -> None:
    assert recognised(msgspec.json.format(RAW, indent=0))
    assert recognised(b"\n  " + RAW)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (b'"users": 40', b'"users": "40"', "`$.profile.users`"),
        (b'"users": 40', b'"users": -1', "$.profile.users"),
        (b'"version": "1.2.3"', b'"version": 1', "$.version"),
        (b'"version": "1.2.3",', b"", "missing required field `version`"),
        (b'"version": "1.2.3"', b'"version": "1.2.3", "more": 1', "unknown field `more`"),
        (b"saved-plan/v1", b"saved-plan/v2", "schema 'cfscale/saved-plan/v2' is not"),
        (b"saved-plan/v1", b"plan/v1", "a document 'plan' as printed"),
    ],
    ids=["type", "range", "version", "missing", "unknown", "newer", "printed-plan"],
)
def test_a_document_that_is_not_one_is_refused_with_the_place(old: bytes, new: bytes, complaint: str) -> None:
    assert RAW.count(old) >= 1

    with pytest.raises(InputError) as caught:
        parse_saved(RAW.replace(old, new, 1), "plan.json")

    assert str(caught.value).startswith("plan.json: ")
    assert complaint.strip("`") in str(caught.value)


@pytest.mark.parametrize("end", [60, 200, len(RAW) // 2, len(RAW) - 3])
def test_a_truncated_document_is_refused(end: int) -> None:
    with pytest.raises(InputError, match=r"plan\.json: not a whole saved plan"):
        parse_saved(RAW[:end], "plan.json")


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"[" * 5000], ids=["not-utf-8", "deep"])
def test_junk_after_the_beginning_is_refused(junk: bytes) -> None:
    with pytest.raises(InputError, match=r"plan\.json: "):
        parse_saved(b'{"schema": "cfscale/saved-plan/v1", "version": "' + junk, "plan.json")


def test_a_huge_document_is_refused_before_it_is_read_and_never_written() -> None:
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        parse_saved(RAW + b" " * 2**20, "plan.json")
    env = {f"V{number}": "x" * 60_000 for number in range(20)}
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        saved_text(saved(Profile(users=1, agents=1, tasks=1, services={"agents": ServiceOverride(env=env)})))


@pytest.mark.parametrize(
    ("here", "cause"),
    [
        (Installation("1.2.3", "other"), "the catalogue has changed since (saved by cfscale 1.2.3, this is 1.2.3)"),
        (Installation("2.0.0", HERE.catalogue_sha256), "cfscale has changed from 1.2.3 to 2.0.0 since"),
        (HERE, "it has been edited by hand"),
    ],
    ids=["catalogue", "version", "hand"],
)
def test_a_plan_that_no_longer_follows_names_the_cause(here: Installation, cause: str) -> None:
    other = size(Profile(users=40, agents=500, tasks=800), CATALOGUE)

    assert changed_plan(DOCUMENT, RAW, other, here) == cause


def test_another_version_with_the_same_outcome_is_not_stale() -> None:
    assert changed_plan(DOCUMENT, RAW, DOCUMENT.plan, Installation("9.0.0", "other")) is None


def test_the_command_to_plan_again_is_fit_for_a_shell() -> None:
    document = saved(Profile(users=1, agents=1, tasks=1), growth="1.5")

    assert (
        again(document, "my acme.yaml", "fit.yaml", "plan.json")
        == "cfscale plan 'my acme.yaml' --growth 1.5 --coefficients fit.yaml --out plan.json"
    )
    assert again(document, None, None, "p.json") == "cfscale plan --growth 1.5 --out p.json"
