#!/bin/sh
# The packages take the queue's password from the environment only: the node client from one variable, the redis-cli
# calls from another. It is read from its file here, so that it stands in no manifest and no argument list.
set -eu
if [ -r "${CFN_REDIS_PASSWORD_FILE:-}" ]; then
  CFN_REDIS_PASSWORD=$(cat "$CFN_REDIS_PASSWORD_FILE")
  REDISCLI_AUTH=$CFN_REDIS_PASSWORD
  export CFN_REDIS_PASSWORD REDISCLI_AUTH
fi
exec "$@"
