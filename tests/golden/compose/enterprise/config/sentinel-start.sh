#!/bin/sh
# Rendered by cfscale for the tier enterprise: starts a watcher of the queue with the primary of today. Of what it knew
# it keeps who it is: the others would count it twice. Where all members come back at other addresses, nobody tells the
# watcher: it notices that the primary is another one and starts anew.
set -eu
conf=/data/sentinel.conf
port=6379
members="queue-1 queue-2 queue-3 queue-4 queue-5 "

ask() { timeout 2 valkey-cli -h "$@" 2>/dev/null | head -n 1; }

leader() {
  for member in $members; do
    if [ "$(ask "$member" -p "$port" --user checker --pass - --no-auth-warning role)" = master ]; then
      getent hosts "$member" | cut -d ' ' -f 1 && return
    fi
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
    set -- $(timeout 2 valkey-cli -p 26379 sentinel master queue 2>/dev/null | sed -n '/^ip$/{n;p;};/^flags$/{n;p;}')
    case "$*" in *_down*) other=$(leader) ;; esac
    if [ -n "$other" ] && [ "$other" != "$1" ]; then rounds=$((rounds + 1)); else rounds=0; fi
  done
  kill $$
}
renew &
exec valkey-sentinel "$conf"
