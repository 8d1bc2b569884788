#!/bin/sh
# Rendered by cfscale for the tier team: starts a member of the queue in the role that it has today. Who says of itself
# that it is the primary is followed. Where nobody does, the member that was primary is it again, unless the watchers
# may be about to choose another; on the very first start queue-1 is.
# Addresses are used and not names: a watcher that looks up the name of a member that is gone stands still meanwhile.
set -eu
began=$(date +%s)
me=$1
primary=queue-1
conf=/data/queue.conf
watchers="sentinel-1 sentinel-2 sentinel-3 "
# what the members and watchers of the queue say of themselves; nothing from one that does not answer within two seconds
port=6379
members="queue-1 queue-2 "
ask() { timeout 2 valkey-cli -h "$@" 2>/dev/null; }
role() { ask "$1" -p "$port" --user checker --pass - --no-auth-warning role | head -n 1; }
address() { getent hosts "$1" | cut -d ' ' -f 1; }
# which primary a watcher knows and what it thinks of it: "10.0.0.2 master", "10.0.0.2 s_down,master"
watched() { ask "$1" -p 26379 sentinel master queue | sed -n '/^ip$/{n;p;};/^flags$/{n;p;}'; }
seconds() { echo $(($(date +%s) - began)); }
own() { hostname -i | tr ' ' '\n' | grep -qxF "$1"; }

leading() {
  silent=
  for watcher in $watchers; do
    # shellcheck disable=SC2046 # two words
    set -- $(watched "$watcher")
    if [ $# -lt 2 ] || [ "$1" = "$silent" ]; then continue; fi
    if [ "$(role "$1")" = master ]; then echo "$1" && return; fi
    silent=$1
  done
  for member in $members; do
    if [ "$member" != "$me" ] && [ "$(role "$member")" = master ]; then address "$member" && return; fi
  done
}

# whether a watcher may choose another: the primary is gone to it, or known to it by an address that this member had before
choosing() {
  for watcher in $watchers; do
    # shellcheck disable=SC2046 # two words
    set -- $(watched "$watcher")
    if [ $# -lt 2 ]; then continue; fi
    case $2 in *_down* | *failover*) return 0 ;; esac
    if ! own "$1"; then return 0; fi
  done
  return 1
}

if [ -e "$conf" ]; then
  follower=$(grep -q '^replicaof' "$conf" && echo yes || true)
else
  follower=$([ "$me" = "$primary" ] || echo yes)
  watchers= # they start after the queue
fi

# A primary waits for as long as a choice takes, a replica for longer: of two that wait for each other, one goes first.
waits() {
  if [ -n "$follower" ]; then
    [ "$(seconds)" -lt 15 ]
  else
    [ "$(seconds)" -lt 10 ] && choosing
  fi
}

leader=$(leading)
while [ -z "$leader" ] && waits; do
  sleep 1
  leader=$(leading)
done

umask 077
{
  echo "include /etc/cfscale/valkey.conf"
  if [ -n "$leader" ]; then echo "replicaof $leader $port"; fi
} >"$conf"
exec valkey-server "$conf"
