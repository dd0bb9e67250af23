#!/usr/bin/env bash
# The stack's Secrets as manifests, from secrets/, which is completed if something is missing (scripts/secrets.sh):
#     deploy/kubernetes/secrets.sh | kubectl apply -f -
# --without-certificates   leaves those to cert-manager (deploy/kubernetes/certificates)
# SEAL_HOST                one more name that callers dial, for the certificates of controller and gateway
# DATABASE_URL, REDIS_URL  your own PostgreSQL and Redis; default: those of deploy/kubernetes/databases
set -euo pipefail
cd "$(dirname "$0")/../.."
at=${SEAL_SECRETS:-secrets}
umask 077
mkdir -p "$at"
for name in controller gateway; do
  .venv/bin/seal certs make "$at/tls" --name $name --host $name.seal --host $name.seal.svc \
    ${SEAL_HOST:+--host "$SEAL_HOST"} >&2
done
scripts/secrets.sh >&2

secret() { # NAME KEY=FILE…
  local name=$1
  shift
  kubectl -n seal create secret generic "$name" "${@/#/--from-file=}" --dry-run=client -o yaml
  echo ---
}
# Through files, so that no process list shows a password.
record=$(mktemp -d)
trap 'rm -r "$record"' EXIT
printf '%s' "${DATABASE_URL:-$(cat "$at/controller_database_url")}" > "$record/database"
printf '%s' "${REDIS_URL:-$(cat "$at/controller_redis_url")}" > "$record/redis"
secret seal-record "SEAL_CONTROLLER_DATABASE_URL=$record/database" "SEAL_CONTROLLER_REDIS_URL=$record/redis"
secret seal-callers "callers.toml=$at/callers/callers.toml"
secret seal-postgres "postgres_password=$at/postgres_password"
secret seal-redis "redis.acl=$at/redis.acl"

[ "${1:-}" != --without-certificates ] || exit 0
for name in controller gateway worker generator trainer evaluator postgres redis; do
  folder=$at/tls/$name
  secret "seal-$name-tls" "ca.crt=$folder/ca.crt" "tls.crt=$folder/tls.crt" "tls.key=$folder/tls.key"
done
