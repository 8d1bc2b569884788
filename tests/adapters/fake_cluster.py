"""An API server over HTTP that keeps objects in memory and behaves as a cluster does: a count that is set makes or ends pods,
the cheapest first, and what is not installed is not found.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
_PLACE = re.compile(r"/(?:api|apis/[^/]+)/[^/]+/(?:namespaces/[^/]+/)?([a-z]+)(?:/([^/]+))?(?:/(scale))?")
COST = "controller.kubernetes.io/pod-deletion-cost"
LABELS = {"app.kubernetes.io/instance": "acme", "app.kubernetes.io/component": "agents"}
CREATED = "2026-01-01T00:00:00Z"


def pod(name: str, **status: Any) -> Object:
    """A ready pod of the agents, with what differs in its status."""
    ready = {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}], **status}
    container = {"name": "agents", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": LABELS, "creationTimestamp": CREATED},
        "spec": {"containers": [container]},
        "status": ready,
    }


def _deployment(name: str) -> Object:
    template = {"metadata": {"labels": LABELS}, "spec": pod("")["spec"]}
    spec = {"selector": {"matchLabels": LABELS}, "template": template, "replicas": 3}
    return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name, "labels": LABELS}, "spec": spec}


class FakeCluster:
    """``kinds`` are the plural words of what is installed; ``refuses`` are status codes that it answers by such a word."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, Object]] = {
            "namespaces": {"kube-system": {"metadata": {"name": "kube-system", "uid": "of-the-cluster"}}},
            "pods": {name: pod(name) for name in ("agents-a", "agents-b", "agents-c")},
            "deployments": {"acme-cfscale-agents": _deployment("acme-cfscale-agents")},
            "statefulsets": {},
            "horizontalpodautoscalers": {},
            "persistentvolumeclaims": {"data": {"metadata": {"name": "data", "labels": LABELS}}},
        }
        self.metrics: dict[str, Object] | None = None
        self.refuses: dict[str, int] = {}
        self.busy = 0  # so many requests to come are asked to come again
        self._lock = Lock()

    def answer(self, method: str, path: str, body: Object) -> tuple[int, Object]:
        """The status and the document for one request."""
        url = urlsplit(path)
        found = _PLACE.fullmatch(url.path)
        assert found is not None, path
        plural, name, scale = found.groups()
        if self.busy > 0:
            self.busy -= 1
            return 429, _status(429, "storage is (re)initializing")
        if plural in self.refuses:
            return self.refuses[plural], _status(self.refuses[plural], f"{plural} are not for you")
        objects = self.metrics if "metrics.k8s.io" in url.path else self.kinds.get(plural)
        if objects is None or (name and name not in objects):
            return 404, _status(404, "not found")
        with self._lock:
            if scale:
                return 200, self._scaled(name, body["spec"]["replicas"])
            if name:
                return 200, self._one(method, objects, name, body)
        selector = parse_qs(url.query).get("labelSelector", [""])[0]
        return 200, {"metadata": {}, "items": [one for one in objects.values() if _matches(one, selector)]}

    def _one(self, method: str, objects: dict[str, Object], name: str, body: Object) -> Object:
        if method == "DELETE":
            return objects.pop(name)
        if method == "PATCH":
            metadata = objects[name]["metadata"]
            metadata["annotations"] = {**metadata.get("annotations", {}), **body["metadata"]["annotations"]}
        return objects[name]

    def _scaled(self, name: str, count: int) -> Object:
        pods = self.kinds["pods"]
        order = sorted(pods, key=lambda one: -int(pods[one]["metadata"].get("annotations", {}).get(COST, 0)))
        for gone in order[count:]:
            del pods[gone]
        for number in range(len(pods), count):
            pods[f"agents-new-{number}"] = pod(f"agents-new-{number}")
        return {"kind": "Scale", "metadata": {"name": name}, "spec": {"replicas": count}, "status": {"replicas": count}}


def _matches(item: Mapping[str, Any], selector: str) -> bool:
    labels = item["metadata"].get("labels", {})
    return all(
        labels.get(key) == value for key, _, value in (word.partition("=") for word in selector.split(",") if word)
    )


def _status(code: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": "x"}


@contextmanager
def served(cluster: FakeCluster, folder: Path) -> Iterator[Path]:
    """The cluster behind a port of the loopback, and the kubeconfig that leads to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            code, document = cluster.answer(self.command, self.path, body)
            text = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is its
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        path = folder / "kubeconfig"
        path.write_text(json.dumps(_config(server.server_address[1])))
        try:
            yield path
        finally:
            server.shutdown()
            thread.join()


def _config(port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "lab", "user": {"token": "of-a-test"}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "work"}}],
    }
