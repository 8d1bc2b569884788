#!/usr/bin/env bash
# The Docker engines of the end-to-end tests: engine.sh start|stop|status [swarm]
#
# An engine that answers already is used as it is, and never stopped. Else Debian's is installed and started in the
# background; its process id and its log are kept in the cache directory.
#
# `swarm` is a second engine: a swarm of one, in a network namespace and with a data directory of its own, since swarm
# mode is engine-wide and takes ports. It has the images of a stack, copied from the first engine, and its containers are
# reached from inside the namespace only: nsenter --net=/run/netns/cfscale-swarm.
set -euo pipefail
# shellcheck source=tests/e2e/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kind="${2:-}"
first="${DOCKER_HOST:-}"
record="$cache/dockerd${kind:+-$kind}.pid" # "process id" "start time": an id alone may belong to another program by now
log="$cache/dockerd${kind:+-$kind}.log"
namespace=cfscale-swarm
private=/tmp/cfscale-swarm # everything of the second engine
images=(
  haproxy:3.2
  valkey/valkey:8.1
  cfscale/demo-worker:1
  cfscale/database:17
  edoburu/pgbouncer:v1.24.1-p0
  quay.io/coreos/etcd:v3.5.16
)
plugins=/usr/local/lib/docker/cli-plugins
seconds=120

answers() { docker info >/dev/null 2>&1; }

# The start time of a process (field 22 of its stat); fails where it has ended, reaped by its parent or not.
started() {
  local stat fields
  stat="$(cat "/proc/$1/stat" 2>/dev/null)" || return 1
  read -ra fields <<<"${stat##*) }" # behind the name, which may hold blanks
  [ "${fields[0]}" != Z ] && printf '%s\n' "${fields[19]}"
}

# Print the id of the dockerd that this script started, if it still runs.
own_pid() {
  local pid since
  read -r pid since 2>/dev/null <"$record" || return 1
  [ -n "${since:-}" ] && [ "$(started "$pid")" = "$since" ] && printf '%s\n' "$pid"
}

install_engine() {
  local need=()
  command -v dockerd >/dev/null || need+=(docker.io)
  command -v iptables >/dev/null || need+=(iptables)
  if [ ${#need[@]} -gt 0 ]; then install_packages "${need[@]}"; fi
  # From Debian 13 on the client is a package of its own.
  command -v docker >/dev/null || install_packages docker-cli
}

# An engine that was killed leaves its pid file, and where the id belongs to another program by now, dockerd refuses to
# start.
drop_stale_pid() {
  local file=/var/run/docker.pid pid
  pid="$(cat "$file" 2>/dev/null)" || return 0
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || rm -f "$file"
}

launch() {
  [ "$(id -u)" = 0 ] || die "no engine answers, and root is needed to start one"
  drop_stale_pid
  local inside=() options=()
  if [ "$kind" = swarm ]; then
    seclude
    inside=(nsenter "--net=/run/netns/$namespace")
    options=(--data-root "$private/data" --exec-root "$private/exec" --pidfile "$private/pid" --host "$DOCKER_HOST")
  fi
  # A session of its own, so that neither a closed terminal nor Ctrl-C in the caller ends it; the lock stays here.
  setsid nohup "${inside[@]}" dockerd "${options[@]}" >"$log" 2>&1 </dev/null 9>&- &
  printf '%s %s\n' "$!" "$(started "$!")" >"$record"
}

# An engine that ends with a stack on it leaves the namespaces of its networks mounted, and the secrets of its tasks.
clear_private() {
  awk -v below="$private/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort --reverse |
    xargs --no-run-if-empty umount --lazy 2>/dev/null || true
  rm -rf "$private"
}

# A place of its own for the second engine; what a killed one left is of no use to the next.
seclude() {
  command -v ip >/dev/null || install_packages iproute2
  ip netns delete "$namespace" 2>/dev/null || true
  clear_private
  mkdir -p "$private"
  ip netns add "$namespace"
  nsenter "--net=/run/netns/$namespace" ip link set lo up
}

await() {
  local end=$((SECONDS + seconds))
  until answers; do
    if ! own_pid >/dev/null || [ "$SECONDS" -ge "$end" ]; then
      tail -n 20 "$log" >&2
      stop
      die "dockerd does not answer; its log is above"
    fi
    sleep 0.2
  done
}

# Compose and buildx are static programs: those of a newer Debian run on any. Their packages come through an apt state
# of its own, so that the machine's package lists stay as they are.
install_compose() {
  local suite
  for suite in sid trixie; do
    if fetch_plugins "$suite" && docker compose version >/dev/null 2>&1; then return; fi
    say "no usable Compose in $suite"
  done
  die "Compose v2 could not be installed"
}

fetch_plugins() {
  [ "$(id -u)" = 0 ] || die "root is needed to install Compose"
  local debs="$cache/debs/$1" tree package
  mkdir -p "$debs"
  if ! compgen -G "$debs/docker-compose_*.deb" >/dev/null || ! compgen -G "$debs/docker-buildx_*.deb" >/dev/null; then
    say "fetching Compose from $1"
    (cd "$debs" && foreign_apt "$1" update && foreign_apt "$1" download docker-compose docker-buildx) >/dev/null || return 1
  fi
  tree="$(mktemp -d)"
  for package in "$debs"/*.deb; do dpkg-deb --extract "$package" "$tree" || rm -f "$package"; done
  install -D -m 755 -t "$plugins" "$tree"/usr/libexec/docker/cli-plugins/*
  rm -rf "$tree"
}

start_swarm() {
  local image missing=()
  docker swarm init --advertise-addr 127.0.0.1 >/dev/null 2>&1 || [ "$(docker info --format '{{.Swarm.ControlAvailable}}')" = true ]
  for image in "${images[@]}"; do
    if ! docker image inspect "$image" >/dev/null 2>&1; then missing+=("$image"); fi
  done
  if [ ${#missing[@]} -gt 0 ]; then DOCKER_HOST="$first" docker save "${missing[@]}" | docker load >/dev/null; fi
}

start() {
  exec 9>"$cache/engine.lock"
  flock 9 # two test runs may come at once; one of them starts the engine, the other finds it
  if ! answers; then
    install_engine
    answers || { launch && await; }
  fi
  docker compose version >/dev/null 2>&1 || install_compose
  if [ "$kind" = swarm ]; then start_swarm; fi
  status
}

stop() {
  local pid end=$((SECONDS + seconds))
  if ! pid="$(own_pid)"; then
    say "no engine of this script runs"
    return
  fi
  kill "$pid"
  while own_pid >/dev/null; do
    [ "$SECONDS" -lt "$end" ] || die "dockerd (process $pid) did not end within $seconds s"
    sleep 0.2
  done
  rm -f "$record"
  if [ "$kind" = swarm ]; then
    ip netns delete "$namespace" 2>/dev/null || true
    clear_private
  fi
}

status() {
  answers || die "no engine answers"
  local owner=another
  if own_pid >/dev/null; then owner="this script's"; fi
  printf 'engine %s (%s), compose %s\n' "$(docker version --format '{{.Server.Version}}')" "$owner" \
    "$(docker compose version --short 2>/dev/null || echo missing)"
}

case "$kind" in
  "") ;;
  swarm) export DOCKER_HOST="unix://$private/docker.sock" ;;
  *) die "there is no engine '$kind'" ;;
esac
case "${1:-}" in
  start | stop | status) "$1" ;;
  *) die "usage: engine.sh start|stop|status [swarm]" ;;
esac
