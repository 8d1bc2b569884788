#!/bin/sh
# Patroni takes passwords from the environment. They are read from their files here, so that they stand in no manifest and
# no argument list. Each member is known to the others by its host's name.
set -eu
secret() { cat "/run/secrets/$1"; }
PATRONI_NAME=${PATRONI_NAME:-$(hostname)}
PATRONI_SUPERUSER_PASSWORD=$(secret database_admin_password)
PATRONI_REPLICATION_PASSWORD=$(secret database_replication_password)
PATRONI_REWIND_PASSWORD=$PATRONI_SUPERUSER_PASSWORD
PATRONI_POSTGRESQL_CONNECT_ADDRESS=$PATRONI_NAME:5432
PATRONI_RESTAPI_CONNECT_ADDRESS=$PATRONI_NAME:8008
export PATRONI_NAME PATRONI_SUPERUSER_PASSWORD PATRONI_REPLICATION_PASSWORD PATRONI_REWIND_PASSWORD
export PATRONI_POSTGRESQL_CONNECT_ADDRESS PATRONI_RESTAPI_CONNECT_ADDRESS
exec patroni /etc/cfscale/patroni.yml
