"""A saved plan: the profile, the plan that followed from it, and what tells later whether it still would.

The document carries no time: saving the same plan twice gives the same bytes. It is recognised by how it begins.
"""

import hashlib
import re
import shlex

import msgspec
from msgspec import Struct

from cfscale.core.plan import DeploymentPlan
from cfscale.core.tier import Catalogue
from cfscale.core.workload import Profile
from cfscale.errors import InputError

SAVED_SCHEMA = "cfscale/saved-plan/v1"
MAX_BYTES = 1024 * 1024
_START = re.compile(rb'\s{0,64}\{\s{0,64}"schema"\s{0,8}:\s{0,8}"cfscale/([a-z-]{1,32})/v[0-9]{1,4}"')


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that the plan was made from; a relative path is relative to the folder of the saved plan."""

    path: str
    sha256: str


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the plan was made from; without a profile file the flags said it all."""

    profile: Source | None
    flags: dict[str, str]
    coefficients: Source | None
    catalogue_sha256: str


class SavedPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The document; ``profile`` is the file with the flags laid over it."""

    schema: str
    version: str
    inputs: Inputs
    profile: Profile
    plan: DeploymentPlan


class Installation(Struct, frozen=True):
    """What opens a saved plan: the version of cfscale and the digest of its catalogue."""

    version: str
    catalogue_sha256: str


def recognised(raw: bytes) -> bool:
    """Whether the text begins as a document that cfscale printed, and so is no profile."""
    return _START.match(raw) is not None


def catalogue_digest(catalogue: Catalogue) -> str:
    """The digest of everything the catalogue says."""
    return hashlib.sha256(msgspec.json.encode(catalogue)).hexdigest()


def saved_text(document: SavedPlan) -> str:
    """The document as it is written; raises InputError where it would be too large to be read again."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
    if len(text.encode()) > MAX_BYTES:
        raise InputError(f"the plan would have more than {MAX_BYTES} bytes: make the profile smaller")
    return text


def parse_saved(raw: bytes, name: str) -> SavedPlan:
    """The document; raises InputError naming the place of what is wrong."""
    match = _START.match(raw)
    if match is not None and match[1] != b"saved-plan":
        kind = match[1].decode()
        raise InputError(
            f"{name}: a document '{kind}' as printed, no profile: save a plan with 'cfscale plan --out {name}'"
        )
    if len(raw) > MAX_BYTES:
        raise InputError(f"{name}: more than {MAX_BYTES} bytes: this is no saved plan")
    try:
        document = msgspec.json.decode(raw, type=SavedPlan)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {_placed(str(error))}: plan again with --out") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: not a whole saved plan: {error}: plan again with --out") from error
    if document.schema != SAVED_SCHEMA:
        raise InputError(f"{name}: schema '{document.schema}' is not {SAVED_SCHEMA}: plan again with --out")
    return document


def _placed(problem: str) -> str:
    what, _, place = problem.partition(" - at ")
    return f"{place.strip('`')}: {what}" if place else what


def changed_plan(document: SavedPlan, raw: bytes, sized: DeploymentPlan, here: Installation) -> str | None:
    """What makes the recorded plan another one than would follow now; None where it is the same."""
    if msgspec.json.decode(raw)["plan"] == msgspec.json.decode(msgspec.json.encode(sized)):
        return None
    if document.inputs.catalogue_sha256 != here.catalogue_sha256:
        return f"the catalogue has changed since (saved by cfscale {document.version}, this is {here.version})"
    if document.version != here.version:
        return f"cfscale has changed from {document.version} to {here.version} since"
    return "it has been edited by hand"


def again(document: SavedPlan, profile: str | None, coefficients: str | None, name: str) -> str:
    """The command that saves the plan anew, for a shell."""
    words = ["cfscale", "plan", *([profile] if profile else [])]
    for flag, value in document.inputs.flags.items():
        words += [f"--{flag.replace('_', '-')}", value]
    words += ["--coefficients", coefficients] if coefficients else []
    return shlex.join([*words, "--out", name])
