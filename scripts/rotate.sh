#!/usr/bin/env bash
# Issues new certificates or new passwords for the stack in containers, while runs continue; nothing is lost.
#   scripts/rotate.sh certificates [options of `seal certs make`, such as --days 90]
#   scripts/rotate.sh passwords
# COMPOSE_FILE, COMPOSE_PROFILES and the like select the stack, as for docker compose.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/passwords.sh

case ${1:-} in
certificates)
  owner=$(stat -c %u:%g "$secrets/tls")
  .venv/bin/seal certs make "$secrets/tls" --renew "${@:2}" ${SEAL_HOST:+--host "$SEAL_HOST"}
  [ "$(id -u)" != 0 ] || chown -R "$owner" "$secrets/tls"
  # Our own services read new files at the next handshake. PostgreSQL needs a signal, Redis a restart.
  docker compose kill --signal HUP postgres
  docker compose restart redis
  ;;
passwords)
  # They read their passwords at the start, so they drain first: results until then can still be acknowledged.
  docker compose stop worker controller
  made=$(password)
  docker compose exec -T postgres psql -q -U seal -d seal -v ON_ERROR_STOP=1 <<< "ALTER ROLE seal PASSWORD '$made'"
  new_postgres_password "$made"
  new_redis_password
  docker compose restart redis
  docker compose start controller worker
  ;;
*)
  sed -n '2,5s/^# *//p' "$0" >&2
  exit 2
  ;;
esac
