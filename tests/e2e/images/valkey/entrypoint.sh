#!/bin/sh
# As upstream: options or a configuration file alone mean valkey-server, and root becomes valkey.
set -e
case "${1:-}" in -* | *.conf) set -- valkey-server "$@" ;; esac
if [ "${1:-}" = valkey-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user valkey -exec chown valkey '{}' +
  exec setpriv --reuid=valkey --regid=valkey --clear-groups -- "$0" "$@"
fi
if [ "$(umask)" = 0022 ]; then umask 0077; fi
# Upstream is built with protected mode off, Debian's with it on; a configuration file says what it wants itself.
if [ "${1:-}" = valkey-server ]; then
  case "${2:-}" in "" | -*) set -- "$@" --protected-mode no ;; esac
fi
exec "$@"
