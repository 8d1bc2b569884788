"""A control plane of one API server for tests: etcd, the API server, its controllers, the scheduler, and nodes that only
say that they run pods.

Everything listens on the loopback only, keeps its data in a temporary directory, and ends with the context.
"""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from tests.helm.lab import HOME, definitions

_TOKEN = "of-the-lab"
_START_SECONDS = 90.0
_CLASS = "lab"
_ADDRESSES = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:kubernetes.default.svc", "-keyout", "apiserver.key", "-out"]
_ADDRESSES += ["apiserver.crt"]


class Lab(Struct, frozen=True):
    """The running control plane."""

    kubeconfig: Path

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """What kubectl answers."""
        done = subprocess.run(
            [str(HOME / "kubectl"), f"--kubeconfig={self.kubeconfig}", *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def helm(self, major: int, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a helm against it."""
        return subprocess.run(
            [str(HOME / f"helm{major}"), f"--kubeconfig={self.kubeconfig}", *words],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def namespace(self, name: str) -> str:
        """A namespace that takes nothing but restricted pods."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "-f", "-", text=json.dumps(made))
        return name

    def operators(self) -> None:
        """The custom resources of all operators, without the operators."""
        # too large for the annotation that an ordinary apply leaves behind
        self.kubectl("apply", "--server-side", *(f"--filename={path}" for path in definitions()))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def volumes(self, count: int) -> None:
        """So many volumes that nobody has to provision."""
        items = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"lab-{number}"},
                "spec": {
                    "capacity": {"storage": "100Ti"},
                    "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                    "storageClassName": _CLASS,
                    "hostPath": {"path": "/nowhere"},
                },
            }
            for number in range(count)
        ]
        classes = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "Immediate",
        }
        everything = {"apiVersion": "v1", "kind": "List", "items": [classes, *items]}
        self.kubectl("apply", "-f", "-", text=json.dumps(everything))

    def nodes(self, count: int) -> None:
        """So many nodes, each in a zone of its own."""
        room = {"cpu": "512", "memory": "4Ti", "pods": "2000", "ephemeral-storage": "4Ti"}
        items = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": f"node-{number}",
                    "labels": {
                        "kubernetes.io/hostname": f"node-{number}",
                        "topology.kubernetes.io/zone": f"zone-{number}",
                        "topology.kubernetes.io/region": "region",
                    },
                },
                "status": {
                    "capacity": room,
                    "allocatable": room,
                    "conditions": [{"type": "Ready", "status": "True", "reason": "Lab"}],
                },
            }
            for number in range(count)
        ]
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))


@contextmanager
def control_plane(folder: Path) -> Iterator[Lab]:
    """Start all of it, and end it."""
    etcd, peer, api = _ports(3)
    _keys(folder, api)
    lab = Lab(folder / "kubeconfig")
    with ExitStack() as stack:
        start = [
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ]
        stack.enter_context(_running(folder, "etcd", start))
        stack.enter_context(_running(folder, "kube-apiserver", _api_flags(folder, etcd, api)))
        _await(lambda: lab.kubectl("get", "--raw", "/readyz"), folder)
        own = [f"--kubeconfig={lab.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1", "--secure-port=0"]
        key = f"--service-account-private-key-file={folder / 'sa.key'}"
        root = f"--root-ca-file={folder / 'apiserver.crt'}"
        stack.enter_context(
            _running(folder, "kube-controller-manager", [*own, key, root, "--controllers=*,-node-lifecycle-controller"])
        )
        stack.enter_context(_running(folder, "kube-scheduler", own))
        lab.nodes(6)
        stack.enter_context(_kubelet(lab))
        yield lab


def _ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return numbers


def _keys(folder: Path, api: int) -> None:
    for argv in (
        ["openssl", "genrsa", "-out", "sa.key", "2048"],
        ["openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"],
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab", *_ADDRESSES],
    ):
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{_TOKEN},lab,lab,system:masters\n")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "lab",
        "clusters": [
            {
                "name": "lab",
                "cluster": {
                    "server": f"https://127.0.0.1:{api}",
                    "certificate-authority": str(folder / "apiserver.crt"),
                },
            }
        ],
        "users": [{"name": "lab", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "default"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    (folder / "kubeconfig").chmod(0o600)


def _api_flags(folder: Path, etcd: int, api: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={api}",
        f"--tls-cert-file={folder / 'apiserver.crt'}",
        f"--tls-private-key-file={folder / 'apiserver.key'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'sa.pub'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--endpoint-reconciler-type=none",
        # nobody looks after the nodes here, and nobody would take the taint of a new one away
        "--disable-admission-plugins=TaintNodesByCondition",
    ]


@contextmanager
def _running(folder: Path, program: str, flags: Sequence[str]) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (folder / f"{program}.log").open("wb") as log:
        child = subprocess.Popen([str(HOME / program), *flags], stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def _kubelet(lab: Lab) -> Iterator[None]:
    """A few lines that do for pods what kwok does: nobody runs a container here."""
    stop = threading.Event()
    thread = threading.Thread(target=_pretend, args=(lab, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def _pretend(lab: Lab, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        for pod in json.loads(lab.kubectl("get", "pods", "--all-namespaces", "-o", "json"))["items"]:
            if not pod["spec"].get("nodeName"):
                continue
            _attend(lab, pod)


def _attend(lab: Lab, pod: dict[str, dict[str, object]]) -> None:
    name, namespace = str(pod["metadata"]["name"]), str(pod["metadata"]["namespace"])
    where = (f"--namespace={namespace}", "pod", name)
    if pod["metadata"].get("deletionTimestamp"):
        lab.kubectl("delete", *where[1:], where[0], "--force", "--grace-period=0", "--ignore-not-found", "--wait=false")
    elif pod["status"].get("phase") == "Pending":
        # what runs once has done so: a Job's pod, or that of `helm test`
        done = pod["spec"].get("restartPolicy") != "Always"
        status = {"phase": "Succeeded" if done else "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
        since = {"status": "True", "lastTransitionTime": datetime.now(UTC).isoformat(timespec="seconds")}
        ready = [{"type": kind, **since} for kind in ("Ready", "ContainersReady", "Initialized", "PodScheduled")]
        patch = json.dumps({"status": {**status, "conditions": [] if done else ready}})
        lab.kubectl("patch", *where[1:], where[0], "--subresource=status", "--type=merge", f"--patch={patch}")


def _await(ask: Callable[[], object], folder: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            ask()
        except AssertionError as error:
            if time.monotonic() > deadline:
                log = (folder / "kube-apiserver.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"the API server does not answer: {error}\n{log}") from error
            time.sleep(0.3)
        else:
            return
