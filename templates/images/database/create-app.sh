#!/bin/sh
# Run once, on the first primary, with its connection string: the application's role and database.
set -eu
password=$(cat /run/secrets/database_password)
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$1" <<SQL
create role app login password '$password';
create database app owner app;
SQL
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname "$1" --command '\connect app' --command 'set role app' --file /etc/cfscale/database.sql
