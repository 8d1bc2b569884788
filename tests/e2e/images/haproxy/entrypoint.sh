#!/bin/sh
# As upstream: options alone mean haproxy, which runs in the foreground below a master that can reload.
set -e
case "${1:-}" in -*) set -- haproxy "$@" ;; esac
if [ "${1:-}" = haproxy ]; then
  shift
  set -- haproxy -W -db "$@"
fi
exec "$@"
