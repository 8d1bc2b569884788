#!/bin/sh
# Rendered by cfscale for the tier team: starts a member of the queue in the role that it has today. The watchers
# know it; where all starts anew, the member that was primary is it again, and on the very first start queue-1 is.
# Addresses are used and not names: a watcher that looks up the name of a member that is gone stands still meanwhile.
set -eu
me=$1
primary=queue-1
port=6379
conf=/data/queue.conf
members="queue-1 queue-2 "
watchers="sentinel-1 sentinel-2 sentinel-3 "

ask() { timeout 2 valkey-cli -h "$@" 2>/dev/null | head -n 1; }
address() { getent hosts "$1" | cut -d ' ' -f 1; }
own() { hostname -i | tr ' ' '\n' | grep -qxF "$1"; }

watched() {
  for watcher in $watchers; do
    found=$(ask "$watcher" -p 26379 sentinel get-master-addr-by-name queue) || found=
    case $found in *.*.* | *:*) echo "$found" && return ;; esac
  done
}

running() {
  for member in $members; do
    if [ "$member" != "$me" ] && [ "$(ask "$member" -p "$port" --user checker --pass - --no-auth-warning role)" = master ]; then
      address "$member" && return
    fi
  done
}

leader=
if [ -e "$conf" ]; then leader=$(watched); fi
if [ -z "$leader" ]; then leader=$(running); fi
follower=$([ "$me" = "$primary" ] || echo yes)
if [ -e "$conf" ]; then follower=$(grep -q '^replicaof' "$conf" && echo yes || true); fi
tries=0
# the name of another member is given only once it is healthy
while [ -z "$leader" ] && [ -n "$follower" ] && [ "$tries" -lt 45 ]; do
  sleep 1
  tries=$((tries + 1))
  leader=$(running)
done

umask 077
{
  echo "include /etc/cfscale/valkey.conf"
  if [ -n "$leader" ] && ! own "$leader"; then echo "replicaof $leader $port"; fi
} >"$conf"
exec valkey-server "$conf"
