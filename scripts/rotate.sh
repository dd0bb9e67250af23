#!/usr/bin/env bash
# New certificates or new passwords for the stack in containers, while runs go on: nothing is lost.
#   scripts/rotate.sh certificates [seal certs make's words, as --days 90]
#   scripts/rotate.sh passwords
# COMPOSE_FILE, COMPOSE_PROFILES and the like say which stack, as they do for docker compose.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/passwords.sh

case ${1:-} in
certificates)
  owner=$(stat -c %u:%g "$secrets/tls")
  .venv/bin/seal certs make "$secrets/tls" --renew "${@:2}" ${SEAL_HOST:+--host "$SEAL_HOST"}
  [ "$(id -u)" != 0 ] || chown -R "$owner" "$secrets/tls"
  # Our own services read new files with the next handshake. PostgreSQL wants to be told, Redis to be started again.
  docker compose kill --signal HUP postgres
  docker compose restart redis
  ;;
passwords)
  # They read their passwords when they start, and drain first: what they end now, they can still take off the queue.
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
