#!/usr/bin/env bash
# Certificates, passwords and the list of callers that docker-compose.yml wants, made once under secrets/; what is there
# stays. Whoever runs this owns them, and the containers run as that user, so that nobody else can read them.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077
seal=.venv/bin/seal
mkdir -p secrets
"$seal" certs make secrets/tls ${SEAL_HOST:+--host "$SEAL_HOST"}

once() { # FILE CONTENT
  [ -s "secrets/$1" ] || printf '%s\n' "$2" > "secrets/$1"
}
password() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }

once postgres_password "$(password)"
once grafana_password "$(password)"
if [ ! -s secrets/redis.acl ]; then
  queue=$(password)
  # The default user answers nothing; ours reaches the queue's keys and the commands that it needs.
  printf '%s\n' "user default off" \
    "user seal on >$queue ~seal:* &* -@all +@read +@write +@stream +@connection +@transaction -@dangerous +time +info" \
    > secrets/redis.acl
  tls='ssl_ca_certs=/run/tls/ca.crt&ssl_certfile=/run/tls/tls.crt&ssl_keyfile=/run/tls/tls.key'
  printf 'rediss://seal:%s@redis:6379/0?%s' "$queue" "$tls" > secrets/controller_redis_url
fi
once controller_database_url "postgresql+psycopg://seal:$(cat secrets/postgres_password)@postgres:5432/seal"
once callers.toml '# Who may call the controller: see sealkit/rpc/authority.py. A change is taken up at once.
[[caller]]
name = "operator"
role = "admin"
certificate = "operator"'

owner=$(id -u)
if [ "$owner" = 0 ]; then
  owner=10001 # containers do not run as root
  chown -R "$owner:$owner" secrets
fi
touch .env
grep -q '^SEAL_UID=' .env || printf 'SEAL_UID=%s\nSEAL_GID=%s\n' "$owner" "$owner" >> .env
