#!/usr/bin/env bash
# Creates the certificates, passwords and the list of callers for docker-compose.yml once, under secrets/; existing ones
# are kept. The user who runs this owns them, and the containers run as that user, so that nobody else can read them.
#
#   SEAL_SECRETS  another folder than secrets/
#   SEAL_HOST     a name or address that callers dial, for the controller's certificate
#   SEAL_UID      user of the containers, if root creates the secrets (default 10001)
# each in the environment or in .env.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/passwords.sh
umask 077
mkdir -p "$secrets/callers"
.venv/bin/seal certs make "$secrets/tls" ${SEAL_HOST:+--host "$SEAL_HOST"}

once() { # FILE CONTENT
  [ -s "$secrets/$1" ] || printf '%s\n' "$2" > "$secrets/$1"
}

once grafana_password "$(password)"
once endpoint_key "$(password)"
[ -s "$secrets/redis.acl" ] || new_redis_password
[ -s "$secrets/postgres_password" ] || new_postgres_password "$(password)"
once callers/callers.toml '# Who may call the controller: see sealkit/rpc/authority.py. A change takes effect at once.
[[caller]]
name = "operator"
role = "admin"
certificate = "operator"'

if [ "$(id -u)" = 0 ]; then # containers do not run as root
  owner=${SEAL_UID:-10001} group=${SEAL_GID:-${SEAL_UID:-10001}}
  chown -R "$owner:$group" "$secrets"
else
  owner=$(id -u) group=$(id -g)
fi
choose SEAL_UID "$owner"
choose SEAL_GID "$group"
