#!/bin/sh
# As upstream: what is no command is node's.
set -e
if [ "${1#-}" != "${1:-}" ] || ! command -v "${1:-}" >/dev/null; then set -- node "$@"; fi
exec "$@"
