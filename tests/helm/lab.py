"""What the tests of the chart share: real helms, the schemas of Kubernetes and of the operators, rendered charts."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cfscale.adapters.assets import load_catalogue, load_templates
from cfscale.core.plan import DeploymentPlan
from cfscale.core.presets import presets
from cfscale.core.sizing import size
from cfscale.core.workload import Profile
from cfscale.render.helm import render

CACHE = Path(
    os.environ.get("CFSCALE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfscale-ci"
)
HOME = CACHE / "kubernetes"
TIERS = ("single-user", "team", "department", "enterprise")
# the last four minor versions; the first of them is older than tolerances of the HPA
MINORS = ("1.34", "1.35", "1.36", "1.37")
PLANS = presets(load_catalogue(), "acme")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def tools_problem() -> str | None:
    """Why the tests of the chart cannot run here, or None."""
    missing = [name for name in ("helm3", "helm4", "crds/done") if not (HOME / name).exists()]
    return f"no {', '.join(missing)}: run tests/e2e/kubernetes.sh tools" if missing else None


@cache
def cluster_problem() -> str | None:
    """Why no API server can be started here, or None."""
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kubectl")
    missing = [name for name in names if not (HOME / name).exists()]
    return f"no {', '.join(missing)}: run tests/e2e/kubernetes.sh cluster" if missing else None


def plan_of(users: int, agents: int, tasks: int, **more: Any) -> DeploymentPlan:
    """The plan of a workload, by the catalogue as shipped."""
    return size(Profile(name="acme", users=users, agents=agents, tasks=tasks, **more), load_catalogue())


def chart(folder: Path, plan: DeploymentPlan) -> Path:
    """The rendered chart of a plan in a directory."""
    for path, text in render(plan, load_templates(), PLANS).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def helm(major: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the helms, apart from whatever is configured on this machine."""
    environment = {**os.environ, "HELM_CACHE_HOME": str(HOME / "helm"), "HELM_CONFIG_HOME": str(HOME / "helm")}
    return subprocess.run(
        [str(HOME / f"helm{major}"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )


def manifests(folder: Path, *options: str, major: int = 4, minor: str = "1.36") -> list[dict[str, Any]]:
    """Every object that a chart gives with these options, hooks included."""
    arguments = ("acme", str(folder), "--namespace", "agents", "--kube-version", f"{minor}.0", *options)
    done = helm(major, "template", *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=LOADER) if document]


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name."""
    (found,) = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(name, metadata, spec) of every pod that these objects run."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["metadata"]["name"], item["metadata"], item["spec"]
        elif item["kind"] in ("Deployment", "StatefulSet", "Job"):
            template = item["spec"]["template"]
            yield item["metadata"]["name"], template["metadata"], template["spec"]


def problems(objects: list[dict[str, Any]], minor: str) -> list[str]:
    """What the schemas of this version, and those of the operators, say against the objects; unknown fields count."""
    return [line for item in objects for line in _problems(item, minor)]


def _problems(item: dict[str, Any], minor: str) -> Iterator[str]:
    import jsonschema
    import kubernetes_validate  # type: ignore[import-untyped]  # it has no stubs

    where = f"{item['kind']} {item['metadata']['name']}"
    schema = crds().get((item["apiVersion"], item["kind"]))
    try:
        if schema is None:
            kubernetes_validate.validate(item, minor, strict=True)
        else:
            jsonschema.Draft202012Validator(schema).validate(item)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        yield f"{where} ({minor}): {error.message} at {list(error.path)}"


def definitions() -> list[Path]:
    """The files of the custom resources that the chart may use."""
    used = ("clusters", "poolers", "scheduledbackups", "objectstores", "scaledobjects", "externalsecrets", "httproutes")
    watched = ("servicemonitors", "podmonitors", "prometheusrules", "prometheuses")
    endings = tuple(f"{end}{name}" for name in (*used, *watched) for end in "_-")
    return [path for path in sorted((HOME / "crds").rglob("*.yaml")) if path.stem.endswith(endings)]


@cache
def crds() -> Mapping[tuple[str, str], dict[str, Any]]:
    """(apiVersion, kind) of every custom resource, and its schema, made to refuse what it does not name."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in definitions():
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        for version in document["spec"]["versions"]:
            key = (f"{document['spec']['group']}/{version['name']}", document["spec"]["names"]["kind"])
            found[key] = _strict(version["schema"]["openAPIV3Schema"], top=True)
    return found


def _strict(schema: Any, *, top: bool = False) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _strict(item) for name, item in schema.items()}
    known = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if known and not top and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if isinstance(pattern := schema.get("pattern"), str):  # Go takes flags behind the anchor, Python does not
        closed["pattern"] = pattern.replace("^(?i)", "(?i)^")
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
    if schema.get("nullable"):
        closed.pop("type", None)
    return closed


def as_json(value: object) -> str:
    """A value as one line, for what `helm --set-json` takes."""
    return json.dumps(value)
