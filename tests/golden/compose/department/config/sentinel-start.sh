#!/bin/sh
# Rendered by cfscale for the tier department: starts a watcher of the queue with the primary of today. Of what it knew
# it keeps who it is: the others would count it twice. Where all members come back at other addresses, nobody tells the
# watcher: it notices that the primary is another one and starts anew.
set -eu
conf=/data/sentinel.conf
# what the members and watchers of the queue say of themselves; nothing from one that does not answer within two seconds
port=6379
members="queue-1 queue-2 queue-3 "
ask() { timeout 2 valkey-cli -h "$@" 2>/dev/null; }
role() { ask "$1" -p "$port" --user checker --pass - --no-auth-warning role | head -n 1; }
address() { getent hosts "$1" | cut -d ' ' -f 1; }
# which primary a watcher knows and what it thinks of it: "10.0.0.2 master", "10.0.0.2 s_down,master"
watched() { ask "$1" -p 26379 sentinel master queue | sed -n '/^ip$/{n;p;};/^flags$/{n;p;}'; }

leader() {
  for member in $members; do
    if [ "$(role "$member")" = master ]; then address "$member" && return; fi
  done
}

found=$(leader)
while [ -z "$found" ]; do
  sleep 1
  found=$(leader)
done
umask 077
self=$(grep '^sentinel myid' "$conf" 2>/dev/null || true)
{
  sed "s/PRIMARY/$found/" /etc/cfscale/sentinel.conf
  echo "sentinel auth-pass queue $(cat /run/secrets/queue_password)"
  echo "$self"
} >"$conf.new"
mv "$conf.new" "$conf"

# ends this process, which is the watcher by then, once another than it watches was primary for three rounds
renew() {
  rounds=0
  while [ "$rounds" -lt 3 ]; do
    sleep 5
    other=
    # shellcheck disable=SC2046 # two words: an address and its state
    set -- $(watched 127.0.0.1)
    case "$*" in *_down*) other=$(leader) ;; esac
    if [ -n "$other" ] && [ "$other" != "$1" ]; then rounds=$((rounds + 1)); else rounds=0; fi
  done
  kill $$
}
renew &
exec valkey-sentinel "$conf"
