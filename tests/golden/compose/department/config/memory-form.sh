#!/bin/sh
# Rendered by cfscale for the tier department: joins the nodes of the shared memory to a cluster, once; later it tells
# them where the others are now, since addresses do not outlive a restart of all.
set -eu
port=6379
backups=2
nodes="memory-1 memory-2 memory-3 memory-4 memory-5 memory-6 memory-7 memory-8 memory-9 "
REDISCLI_AUTH=$(cat /run/secrets/memory_password)
export REDISCLI_AUTH
ask() { valkey-cli -h "$first" -p "$port" "$@"; }
address() { getent hosts "$1" | cut -d ' ' -f 1; }

for node in $nodes; do
  first=${first:-$node}
  until [ "$(valkey-cli -h "$node" -p "$port" ping 2>/dev/null)" = PONG ]; do sleep 1; done
done

known=$(ask cluster info | tr -d '\r' | sed -n 's/^cluster_known_nodes://p')
if [ "$known" -gt 1 ]; then
  for node in $nodes; do ask cluster meet "$(address "$node")" "$port"; done
else
  all=
  for node in $nodes; do all="$all $(address "$node"):$port"; done
  # shellcheck disable=SC2086 # one address a word
  valkey-cli --cluster create $all --cluster-replicas "$backups" --cluster-yes
fi
until ask cluster info | grep -q cluster_state:ok; do sleep 1; done
