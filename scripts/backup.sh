#!/usr/bin/env bash
# Backs up the stack in containers to one folder, while runs continue:
#   scripts/backup.sh FOLDER      record.dump (PostgreSQL), store.tar (adapters), secrets.txt (names and digests)
# The database is dumped first: an adapter is stored before the database references it and never changes, so each one
# that the dump references is in the tar. Do not run `seal adapters gc` meanwhile. The queue is rebuilt from the database.
# The secrets themselves are not included: keep them where you keep secrets.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,6s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$1"
into=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
. scripts/env.sh
secrets=${SEAL_SECRETS:-secrets}
umask 077
docker compose exec -T postgres pg_dump -U seal -d seal --format custom > "$into/record.dump.new"
# Files that a trainer is still writing or has just removed are not referenced by the database.
docker compose run --rm --no-deps -T --entrypoint tar trainer \
  --warning=no-file-changed --warning=no-file-removed -C /store -cf - . > "$into/store.tar.new" || [ $? = 1 ]
(cd "$secrets" && find . -type f ! -name '*.new' | sort | xargs sha256sum) > "$into/secrets.txt"
mv "$into/record.dump.new" "$into/record.dump"
mv "$into/store.tar.new" "$into/store.tar"
du -sh "$into"/* >&2
