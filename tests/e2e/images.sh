#!/usr/bin/env bash
# Local images for the end-to-end tests, without an image registry: images.sh [all|NAME...]
#
# Stand-ins of upstream images hold one program of Debian's and keep upstream's contract; our own images are built on
# them, from the very Dockerfiles that users get. An image whose recipe has not changed is left alone; REFRESH=1 builds
# it anew, with current packages.
#
# To add a stand-in: a line in `tag`, and a Dockerfile in images/NAME.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

label=cfscale.e2e.recipe
node_major=20

declare -A tag=(
  [debian]=cfscale-e2e/debian:trixie
  [debian-sid]=cfscale-e2e/debian:sid
  [haproxy]=haproxy:3.2
  [valkey]=valkey/valkey:8.1
  [python]=python:3.13-slim
  [node]=node:20-slim
  [coordinator]=cfscale/coordinator:3.43.0
  [agents]=cfscale/agents:2.21.0
  [demo-worker]=cfscale/demo-worker:1
  [postgres]=postgres:17
  [database]=cfscale/database:17
  [pgbouncer]=edoburu/pgbouncer:v1.24.1-p0
  [etcd]=quay.io/coreos/etcd:v3.5.16
  [prometheus]=prom/prometheus:v2.53.3
  [valkey-exporter]=oliver006/redis_exporter:v1.69.0
  [database-exporter]=prometheuscommunity/postgres-exporter:v0.17.1
)
# What an image is built on, and where its Dockerfile is: debian and images/NAME, unless said here.
declare -A base=(
  [debian]="" [debian-sid]="" [haproxy]=debian-sid [coordinator]=node [agents]=node [demo-worker]=python [database]=postgres
)
declare -A source=(
  [coordinator]=templates/images/coordinator
  [agents]=templates/images/agents
  [demo-worker]=examples/demo
  [database]=templates/images/database
)

base_of() { printf '%s\n' "${base[$1]-debian}"; }
folder_of() { printf '%s\n' "${source[$1]:-tests/e2e/images/$1}"; }

recorded() { docker image inspect --format "{{index .Config.Labels \"$label\"}}" "${tag[$1]}" 2>/dev/null; }

# A digest of all that decides what an image holds, but for the versions that Debian and npm have today.
recipe() {
  local folder on
  folder="$(folder_of "$1")"
  on="$(base_of "$1")"
  {
    find "$folder" -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum
    case "$1" in
      debian | debian-sid) declare -f rootfs ;;
      node)
        if host_node; then node --version && npm --version 2>/dev/null; fi
        npmrc && cat "$(ca_bundle)"
        ;;
    esac
    if [ -n "$on" ]; then recorded "$on"; fi
  } | sha256sum | cut -d ' ' -f 1
}

# The root file system of a Debian suite, from the cache if it has one.
rootfs() {
  local suite="$2" tar="$cache/rootfs-$2.tar" mirror
  if [ ! -e "$tar" ] || [ -n "${REFRESH:-}" ]; then
    mirror="$(debian_mirror)"
    mmdebstrap --variant=essential --quiet --include=apt,passwd \
      --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Check-Valid-Until "false"' \
      --aptopt='Acquire::Check-Date "false"' \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      "$suite" "$tar.new.tar" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    mv "$tar.new.tar" "$tar"
  fi
  cp "$tar" "$1"
}

# npm warns of settings that it does not know; they are of no concern here. Nothing where there is no npm.
npm_setting() { npm config get "$1" 2>/dev/null || true; }

ca_bundle() {
  local bundle
  bundle="$(npm_setting cafile)"
  if [ ! -r "$bundle" ]; then bundle=/etc/ssl/certs/ca-certificates.crt; fi
  printf '%s\n' "$bundle"
}

# Only what reaches the registry, never a token.
npmrc() {
  local registry
  registry="$(npm_setting registry)"
  if [ -n "$registry" ]; then printf 'registry=%s\n' "$registry"; fi
  printf 'cafile=/usr/local/share/npm-ca.crt\n'
}

# This machine's node, if a copy of the file alone runs elsewhere and it has the version that the image is called by.
host_node() {
  local node
  node="$(readlink -f "$(command -v node)")" && command -v npm >/dev/null || return 1
  case "$("$node" --version)" in "v$node_major".*) ;; *) return 1 ;; esac
  ! ldd "$node" | grep -q libnode || return 1
  printf '%s\n' "$node"
}

context_node() {
  local node
  mkdir -p "$1"/host/{bin,lib/node_modules}
  cp "$(ca_bundle)" "$1/ca.crt"
  npmrc >"$1/npmrc"
  # Else the image installs Debian's, which takes longer.
  if node="$(host_node)"; then
    cp "$node" "$1/host/bin/node"
    cp -r "$(npm root --global 2>/dev/null)/npm" "$1/host/lib/node_modules/npm"
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$1/host/bin/npm"
    ln -s ../lib/node_modules/npm/bin/npx-cli.js "$1/host/bin/npx"
  fi
}

# Everything that the Dockerfile copies, in one folder.
context() {
  cp -r "$(folder_of "$1")/." "$2"
  case "$1" in
    debian) rootfs "$2/rootfs.tar" trixie ;;
    debian-sid) rootfs "$2/rootfs.tar" sid ;;
    node) context_node "$2" ;;
  esac
}

build() {
  local name="$1" hash="$2" scratch options=() proxy
  scratch="$(mktemp -d)"
  context "$name" "$scratch"
  if [ -n "${REFRESH:-}" ]; then options+=(--no-cache); fi
  for proxy in http_proxy https_proxy no_proxy; do
    if [ -n "${!proxy:-}" ]; then options+=(--build-arg "$proxy"); fi
  done
  # The classic builder takes base images from the engine alone and asks no registry about them.
  DOCKER_BUILDKIT=0 docker build "${options[@]}" --tag "${tag[$name]}" --label "$label=$hash" "$scratch"
  rm -rf "$scratch"
}

# Build one image unless it is there already; what the tools print is shown where they fail.
ensure() {
  local name="$1" log="$cache/log/$1.log" hash begin=$SECONDS
  hash="$(recipe "$name")"
  if [ -z "${REFRESH:-}" ] && [ "$(recorded "$name")" = "$hash" ]; then
    say "${tag[$name]}: up to date"
    return
  fi
  # A condition would switch `set -e` off inside, hence the shell of its own.
  if ! bash "$script" --build "$name" "$hash" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "${tag[$name]}: the build failed; all of its output is in $log"
  fi
  say "${tag[$name]}: built in $((SECONDS - begin)) s"
}

# Run `ensure` on all names at once and fail if one does.
ensure_all() {
  local name pid pids=() failed=0
  for name in "$@"; do
    ensure "$name" &
    pids+=("$!")
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  [ "$failed" = 0 ]
}

# The names and all that they are built on, once each.
closure() {
  local name
  for name in "$@"; do
    while [ -n "$name" ]; do
      printf '%s\n' "$name"
      name="$(base_of "$name")"
    done
  done | sort -u
}

# How many images lie below this one.
depth() {
  local name count=0
  name="$(base_of "$1")"
  while [ -n "$name" ]; do
    count=$((count + 1))
    name="$(base_of "$name")"
  done
  printf '%s\n' "$count"
}

main() {
  local name level levels=([0]="" [1]="" [2]="")
  if [ $# = 0 ] || [ "$1" = all ]; then set -- "${!tag[@]}"; fi
  for name in "$@"; do
    [ -n "${tag[$name]:-}" ] || die "no image is called $name; there are: ${!tag[*]}"
  done
  for name in $(closure "$@"); do levels[$(depth "$name")]+=" $name"; done
  command -v docker >/dev/null || die "no docker client: run engine.sh start first"
  command -v mmdebstrap >/dev/null || install_packages mmdebstrap
  mkdir -p "$cache/log"
  exec 9>"$cache/images.lock"
  flock 9 # two runs at once would build everything twice
  for level in "${levels[@]}"; do
    # shellcheck disable=SC2086 # the names are words
    ensure_all $level
  done
}

script="$PWD/tests/e2e/images.sh"
if [ "${1:-}" = --build ]; then build "$2" "$3"; else main "$@"; fi
