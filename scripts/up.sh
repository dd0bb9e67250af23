#!/usr/bin/env bash
# Starts the stack in containers. What it chooses for this machine it keeps in .env, where `docker compose` reads it too:
# COMPOSE_PROFILES, COMPOSE_FILE, and without a GPU threads and torch's index. Remove a line there to have it chosen again.
# More arguments go to `docker compose up`: --scale trainer=2, say.
#   SEAL_SAMPLING=vllm or tgi   with a server that samples text (docs/backends.md); needs a GPU
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/secrets.sh
. scripts/env.sh
override=docker-compose.override.yml sampling=${SEAL_SAMPLING:-}
if nvidia-smi -L >/dev/null 2>&1; then
  profile=gpu files=docker-compose.yml:deploy/docker/gpu.yml
else
  profile=cpu files=docker-compose.yml
  # Threads of two services on one core wait for each other, up to forty times as long, so each gets its own cores.
  cores=$(nproc) helper=$(( $(nproc) / 4 > 0 ? $(nproc) / 4 : 1 ))
  choose GENERATOR_THREADS "$helper"
  choose EVALUATOR_THREADS "$helper"
  choose TRAINER_THREADS "$(( cores - 2 * helper > 0 ? cores - 2 * helper : 1 ))"
  choose TORCH_INDEX https://download.pytorch.org/whl/cpu
fi
choose COMPOSE_PROFILES "$profile,observability${sampling:+,$sampling}"
# With docker-compose.yml alone compose finds the override file by itself, also one that is written later.
files+=${sampling:+:deploy/docker/$sampling.yml}
if [ "$files" != docker-compose.yml ]; then
  [ ! -f "$override" ] || files+=:$override
  choose COMPOSE_FILE "$files"
fi
if [ -n "$sampling" ] && [[ ${COMPOSE_FILE:-} != *"deploy/docker/$sampling.yml"* || ,$COMPOSE_PROFILES, != *,"$sampling",* ]]; then
  echo "up: SEAL_SAMPLING=$sampling, but COMPOSE_FILE or COMPOSE_PROFILES of the environment or .env is without it; add" \
    "deploy/docker/$sampling.yml and $sampling there, or remove both lines from .env" >&2
  exit 2
fi
if [ -n "${COMPOSE_FILE:-}" ] && [ -f "$override" ] && [[ $COMPOSE_FILE != *"$override"* ]]; then
  echo "up: $override is not used: COMPOSE_FILE names other files; add it there" >&2
fi
SEAL_REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
export SEAL_REVISION
docker compose up --build --wait --detach "$@"
cat <<WORDS
up. To call it from this machine:
  export SEAL_ADDRESS=localhost:${SEAL_PORT:-50050} SEAL_TLS_CA=${SEAL_SECRETS:-secrets}/tls/operator/ca.crt
  export SEAL_TLS_CERT=${SEAL_SECRETS:-secrets}/tls/operator/tls.crt SEAL_TLS_KEY=${SEAL_SECRETS:-secrets}/tls/operator/tls.key
Dashboards: http://localhost:${GRAFANA_PORT:-3000} (user admin, password in ${SEAL_SECRETS:-secrets}/grafana_password)
WORDS
