"""Manifests read back to what a plan says: by service its facts, and under "" those of the deployment.

planned   what the plan says
composed  what compose.yaml or stack.yaml say, with the configuration files beside them
charted   what the objects say that helm makes of the chart
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from cfscale.core.plan import DeploymentPlan, HealthKind, Service
from cfscale.core.units import MIB, parse_cpu, parse_duration, parse_size
from cfscale.render import context, proxy
from cfscale.render.families import START_ALLOWANCE_SECONDS
from cfscale.render.helm.check import millicores, size
from cfscale.render.platform import endpoints
from tests.helm.lab import LOADER

Facts = dict[str, dict[str, object]]
WEB = {HealthKind.HTTP, HealthKind.JSONRPC}
SWITCHES = ("CFN_LOG_LEVEL", "NODE_OPTIONS", "CFN_AGENT_TYPE")
# components are started by a command of the target's own, and have variables of its own
STORES = ("queue", "memory", "cache", "sentinel", "etcd")


def planned(plan: DeploymentPlan) -> Facts:
    """What the plan says."""
    found: Facts = {service.name: _planned(plan, service) for service in plan.services}
    found[""] = {"cache_bytes": plan.settings.cache_bytes, "retention": plan.settings.metrics_retention_seconds}
    if plan.find("loadbalancer") is None:
        return found
    balancer = proxy.balancer(plan)
    for backend in balancer.backends:
        balance = found[backend.service].setdefault("balance", {})
        assert isinstance(balance, dict)
        balance[backend.name.partition(".")[2]] = backend.algorithm
        service = plan.service(backend.service)
        found[backend.service]["bulkhead"] = backend.connections
        found[backend.service] |= {"slots": service.max_replicas, "port": service.port}
        found[backend.service] |= {"sticky": service.sticky_header, "routes": sorted(service.routes)}
        if service.health.kind in WEB:
            found[backend.service] |= {"path": service.health.path, "status": str(service.health.status)}
    found["loadbalancer"] |= {"log": balancer.log_level, "threads": balancer.threads, "port": balancer.port}
    found["loadbalancer"] |= {"compress": balancer.compress_from}
    found["loadbalancer"]["pools"] = sorted((pool.header, pool.value, pool.backend) for pool in balancer.pools)
    if (pools := plan.settings.database) is not None and plan.find("pooler") is not None:
        found["pooler"] |= {"pool": (pools.pool_min, pools.pool_max), "clients": plan.settings.limits.connections}
        found["database"] |= {
            "connections": pools.max_connections,
            "synchronous": plan.service("database").replicas > 1,
        }
    return found


def _planned(plan: DeploymentPlan, service: Service) -> dict[str, object]:
    health, given = service.health, dict(context.environment(plan, service))
    facts: dict[str, object] = {
        "image": service.image,
        "replicas": service.replicas,
        "cpu_request": service.cpu_request_millicores,
        "cpu_limit": service.cpu_limit_millicores,
        "memory_request": service.memory_request_bytes,
        "memory_limit": service.memory_limit_bytes,
        "stop_grace": service.stop_grace_seconds,
        "publish": service.publish,
        "health": (health.interval_seconds, health.timeout_seconds, health.fall, health.start_period_seconds),
        "rise": health.rise if health.kind is not HealthKind.NONE else None,
        "storage": -(-service.storage_bytes // MIB) or None,
        "body": dict(health.json) or None,
    }
    if service.name in STORES:
        return facts
    own = {name: value for name, value in given.items() if name in service.env or name in SWITCHES}
    places = sorted(endpoints(plan).keys() & given.keys() - own.keys())
    return {**facts, "command": list(service.command), "env": own, "endpoints": places}


def composed(files: Mapping[str, str]) -> Facts:
    """What a manifest for Docker says."""
    manifest = yaml.load(files.get("compose.yaml") or files["stack.yaml"], Loader=LOADER)
    found: Facts = {}
    for item in manifest["services"].values():
        if (name := item["labels"].get("cfscale.service")) is not None:
            facts = _composed(name, item)
            before = found.get(name)
            count = facts.pop("replicas")
            assert before is None or {**before, "replicas": None} == {**facts, "replicas": None}, name
            found[name] = {**facts, "replicas": count + before["replicas"] if before else count}
    found[""] = {"cache_bytes": int(_directives(files["config/cache.conf"])["maxmemory"])}
    if (prometheus := manifest["services"].get("prometheus")) is not None:
        kept = next(word for word in prometheus["command"] if "retention" in word)
        found[""]["retention"] = int(re.sub(r"\D", "", kept))
    if "config/haproxy.cfg" in files:
        _balanced(found, files["config/haproxy.cfg"])
    if "config/patroni.yml" in files:
        shared = yaml.load(files["config/patroni.yml"], Loader=LOADER)["bootstrap"]["dcs"]
        found["database"]["connections"] = shared["postgresql"]["parameters"]["max_connections"]
        found["database"]["synchronous"] = shared.get("synchronous_mode", False)
        _pooled(found, dict(line.split(" = ") for line in files["config/pgbouncer.ini"].splitlines() if " = " in line))
    return found


def _composed(name: str, item: dict[str, Any]) -> dict[str, Any]:
    resources, check = item["deploy"]["resources"], item.get("healthcheck")
    limits, reserved = resources["limits"], resources["reservations"]
    facts = {
        "image": item["image"],
        "replicas": item["deploy"]["replicas"],
        "cpu_request": parse_cpu(reserved["cpus"]),
        "cpu_limit": parse_cpu(limits["cpus"]) if "cpus" in limits else None,
        "memory_request": parse_size(reserved["memory"]),
        "memory_limit": parse_size(limits["memory"]) if "memory" in limits else None,
        "stop_grace": parse_duration(item["stop_grace_period"]),
        "publish": next((f"{port.get('host_ip', '')}:{port['published']}" for port in item.get("ports", ())), None),
        "health": None if check is None else _checked(check),
    }
    if name in STORES:
        return facts
    given = {key: str(value).replace("$$", "$") for key, value in item.get("environment", {}).items()}
    command = [word.replace("$$", "$") for word in item.get("command") or ()]
    return {**facts, "command": command, **_variables(given)}


def _checked(check: Mapping[str, Any]) -> tuple[float, ...]:
    timeout, start = parse_duration(check["timeout"]), parse_duration(check["start_period"])
    # Docker takes no less than a millisecond
    begun = start if start > 0.001 else 0.0
    return parse_duration(check["interval"]), timeout - START_ALLOWANCE_SECONDS, check["retries"], begun


def _variables(given: Mapping[str, str]) -> dict[str, object]:
    places = sorted(name for name in given if name.startswith("CFN_") and name not in SWITCHES)
    return {"env": {name: value for name, value in given.items() if name not in (*places, "PORT")}, "endpoints": places}


def charted(objects: Iterable[dict[str, Any]], release: str = "acme") -> Facts:
    """What Kubernetes objects say."""
    found: Facts = {}
    by = {(item["kind"], item["metadata"]["name"].removeprefix(f"{release}-cfscale-")): item for item in objects}
    for (kind, name), item in by.items():
        if kind in ("Deployment", "StatefulSet"):
            found[name] = _workload(name, item["spec"])
            shared = by.get(("PersistentVolumeClaim", f"{name}-data"))
            if shared is not None:
                # all replicas see the same directory: each has its part of it
                size_mib = _mebibytes(shared["spec"])
                found[name]["storage"] = -(-size_mib // item["spec"]["replicas"])
    for name, item in [(name, item) for (kind, name), item in by.items() if kind == "ConfigMap"]:
        if name == "loadbalancer":
            _balanced(found, item["data"]["haproxy.cfg"])
    if ("Cluster", "database") in by:
        _operated(found, by["Cluster", "database"]["spec"], by.get(("Pooler", "pooler"), {}).get("spec"))
    start = by["StatefulSet", "cache"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    found[""] = {"cache_bytes": int(start.partition("--maxmemory ")[2].split()[0])}
    kept = next(item for (kind, _), item in by.items() if kind == "Prometheus")["spec"]["retention"]
    found[""]["retention"] = int(kept.removesuffix("s"))
    return found


def _workload(name: str, spec: dict[str, Any]) -> dict[str, object]:
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    facts: dict[str, object] = {
        "image": container["image"],
        "replicas": spec.get("replicas"),
        **_sizes(container["resources"]),
        "stop_grace": float(pod["terminationGracePeriodSeconds"] - wait - 5),
        "publish": None,
        "health": _probed(container),
        "rise": container.get("readinessProbe", {}).get("successThreshold"),
        "storage": next((_mebibytes(claim["spec"]) for claim in spec.get("volumeClaimTemplates", ())), None),
    }
    if name in STORES:
        return facts
    given = {item["name"]: item["value"] for item in container.get("env", ())}
    return {**facts, "command": container.get("args", []), **_variables(given)}


def _mebibytes(claim: Mapping[str, Any]) -> int:
    return size(claim["resources"]["requests"]["storage"]) // MIB


def _sizes(resources: Mapping[str, Any]) -> dict[str, object]:
    requests, limits = resources["requests"], resources["limits"]
    return {
        "cpu_request": millicores(requests["cpu"]),
        "cpu_limit": millicores(limits["cpu"]) if "cpu" in limits else None,
        "memory_request": size(requests["memory"]),
        "memory_limit": size(limits["memory"]) if "memory" in limits else None,
    }


def _probed(container: Mapping[str, Any]) -> tuple[float, ...] | None:
    if "readinessProbe" not in container:
        return None
    ready, start = container["readinessProbe"], container["startupProbe"]
    fall = ready["failureThreshold"]
    begun = float((start["failureThreshold"] - fall) * start["periodSeconds"])
    return float(ready["periodSeconds"]), float(ready["timeoutSeconds"]), fall, begun


def _operated(found: Facts, cluster: dict[str, Any], pooler: dict[str, Any] | None) -> None:
    """What custom resources say; what they do not say is the operator's."""
    parameters = cluster["postgresql"]["parameters"]
    found["database"] = {
        "image": cluster.get("imageName"),
        "replicas": cluster["instances"],
        **_sizes(cluster["resources"]),
        "stop_grace": float(cluster["stopDelay"]),
        "storage": size(cluster["storage"]["size"]) // MIB,
        "publish": None,
        "health": None,
        "command": [],
        "env": {},
        "endpoints": [],
        "connections": int(parameters["max_connections"]),
        "synchronous": "synchronous" in cluster["postgresql"],
    }
    if pooler is not None:
        pod = pooler["template"]["spec"]
        found["pooler"] = {
            "image": None,
            "replicas": pooler["instances"],
            **_sizes(pod["containers"][0]["resources"]),
            "stop_grace": float(pod["terminationGracePeriodSeconds"]),
            "publish": None,
            "health": None,
            "command": [],
            "env": {},
            "endpoints": [],
        }
        _pooled(found, pooler["pgbouncer"]["parameters"])


def _pooled(found: Facts, given: Mapping[str, str]) -> None:
    sizes = (int(given["min_pool_size"]), int(given["default_pool_size"]))
    found["pooler"] |= {"pool": sizes, "clients": int(given["max_client_conn"])}


def _directives(text: str) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return {words[0]: words[-1] for words in lines}


def _balanced(found: Facts, text: str) -> None:
    """What HAProxy's configuration says of the services behind it, and of itself."""
    sections = dict(_sections(text))
    own = {words[0]: words for words in (*sections["global"], *sections["frontend public"])}
    public = sections["frontend public"]
    found["loadbalancer"] |= {
        "log": own["log"][-1],
        "threads": int(own["nbthread"][1]),
        "port": int(own["bind"][1].removeprefix(":")),
        "compress": next(int(words[2]) for words in public if words[:2] == ["compression", "minsize-res"]),
        "pools": sorted(_header(words) for words in public if words[0] == "use_backend" and "str" in words),
    }
    for head, lines in sections.items():
        if head.startswith("backend ") and any(words[0] == "server-template" for words in lines):
            service, _, kind = head.removeprefix("backend ").partition(".")
            facts = found[service]
            balance = facts.setdefault("balance", {})
            assert isinstance(balance, dict)
            balance[kind] = next(_spread(words[1:]) for words in lines if words[0] == "balance")
            facts |= {"sticky": None, "routes": sorted(_routes(public, service)), **dict(_backend(lines))}


def _sections(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    for part in re.split(r"\n(?=[a-z])", text):
        lines = [words for line in part.splitlines() if (words := shlex.split(line, comments=True))]
        if lines:
            yield " ".join(lines[0]), lines[1:]


def _header(words: list[str]) -> tuple[str, str, str]:
    return words[4].removeprefix("req.hdr(").removesuffix(")"), words[-2], words[1]


def _spread(words: list[str]) -> str:
    return {"hash str(one)": "one", "hash req.hdr(X-Swarm-Id)": "hash"}.get(" ".join(words), words[0])


def _routes(public: list[list[str]], service: str) -> Iterator[str]:
    for words in public:
        if words[:2] == ["use_backend", service] and "path_beg" in words:
            yield words[-2]
        elif words == ["default_backend", service]:
            yield "/"


def _backend(lines: list[list[str]]) -> Iterator[tuple[str, object]]:
    words = [word for line in lines for word in line]
    template = next(line for line in lines if line[0] == "server-template")
    yield from {"slots": int(template[2]), "port": int(template[3].rpartition(":")[2])}.items()
    yield from {
        name: int(words[words.index(word) + 1]) for name, word in (("rise", "rise"), ("bulkhead", "maxconn"))
    }.items()
    if "uri" in words:
        # a range of them is not the one that was asked for, unless that is the ordinary one
        exact = words[words.index("status") + 1] if "status" in words else "200"
        yield from {"path": words[words.index("uri") + 1], "status": exact}.items()
    if "match" in words:
        yield "sticky", words[words.index("match") + 1].removeprefix("req.hdr(").removesuffix(")")
