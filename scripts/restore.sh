#!/usr/bin/env bash
# Restores a backup (scripts/backup.sh) into an empty stack in containers; runs continue from there.
#   scripts/restore.sh FOLDER
# The secrets must exist already (yours, or new ones by `make secrets`). Refused if the database is not empty.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
from=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
docker compose up --wait --detach postgres
tables=$(docker compose exec -T postgres psql -U seal -d seal -Atc \
  "select count(*) from information_schema.tables where table_schema = 'public'")
[ "$tables" = 0 ] || { echo "restore: the database is not empty; start with new volumes (docker compose down --volumes)" >&2; exit 1; }
docker compose exec -T postgres pg_restore -U seal -d seal --exit-on-error --single-transaction --no-owner < "$from/record.dump"
docker compose run --rm --no-deps -T --entrypoint tar trainer -C /store -xf - < "$from/store.tar"
echo "restored; start the rest: docker compose up --wait --detach" >&2
