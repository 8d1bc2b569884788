"""The lock file: which files are ours, and what they were rendered from."""

import hashlib
import json
from collections.abc import Mapping

import msgspec

import cfscale
from cfscale.core.plan import DeploymentPlan

LOCK_NAME = "cfscale.lock.json"
LOCK_SCHEMA = "cfscale/lock/v1"


class Lock(msgspec.Struct, frozen=True):
    """The document ``cfscale.lock.json``; digests are of bytes as written, ``inputs_sha256`` of the plan."""

    schema: str
    version: str
    target: str
    tier: str
    inputs_sha256: str
    templates_sha256: str
    files: dict[str, str]


def lock_document(plan: DeploymentPlan, target: str, files: Mapping[str, str], templates: Mapping[str, str]) -> str:
    """``cfscale.lock.json`` as text. It lists every rendered file but itself, and no secret."""
    document = Lock(
        schema=LOCK_SCHEMA,
        version=cfscale.__version__,
        target=target,
        tier=plan.tier,
        inputs_sha256=hashlib.sha256(msgspec.json.encode(plan, order="sorted")).hexdigest(),
        templates_sha256=_digest(templates),
        files={path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()},
    )
    return json.dumps(msgspec.to_builtins(document), indent=2, sort_keys=True) + "\n"


def _digest(templates: Mapping[str, str]) -> str:
    whole = hashlib.sha256()
    for path, text in sorted(templates.items()):
        whole.update(f"{len(path)}:{path}{len(text)}:{text}".encode())
    return whole.hexdigest()
