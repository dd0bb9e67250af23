#!/bin/bash
# What docker-compose.yml uses of the official image's entrypoint: any user, a first start that makes user and database.
set -e
# initdb wants a name for whoever runs it.
echo "postgres:x:$(id -u):$(id -g)::/tmp:/bin/false" > /tmp/passwd
echo "postgres:x:$(id -g):" > /tmp/group
export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" -E UTF8 --locale=C.UTF-8
  pg_ctl -D "$PGDATA" -w -o "$(printf '%q ' "${@:2}" -c listen_addresses=)" start
  createdb -U "$POSTGRES_USER" "$POSTGRES_DB" || true
  pg_ctl -D "$PGDATA" -w -m fast stop
fi
exec "$@"
