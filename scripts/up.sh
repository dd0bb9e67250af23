#!/usr/bin/env bash
# Starts the stack in containers with the profile for this machine. More arguments go to `docker compose up`:
# --scale trainer=2, say.
#   SEAL_SAMPLING=vllm or tgi   with a server that samples text (docs/backends.md); needs a GPU
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/secrets.sh
if nvidia-smi -L >/dev/null 2>&1; then
  files=(-f docker-compose.yml -f deploy/docker/gpu.yml) profile=gpu
else
  files=(-f docker-compose.yml) profile=cpu
  # Threads of two services on one core wait for each other, up to forty times as long, so each gets its own cores.
  cores=$(nproc) helper=$(( $(nproc) / 4 > 0 ? $(nproc) / 4 : 1 ))
  export GENERATOR_THREADS=${GENERATOR_THREADS:-$helper} EVALUATOR_THREADS=${EVALUATOR_THREADS:-$helper}
  export TRAINER_THREADS=${TRAINER_THREADS:-$(( cores - 2 * helper > 0 ? cores - 2 * helper : 1 ))}
  export TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
fi
if [ -n "${SEAL_SAMPLING:-}" ]; then
  files+=(-f "deploy/docker/$SEAL_SAMPLING.yml" --profile "$SEAL_SAMPLING")
fi
SEAL_REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
export SEAL_REVISION
docker compose "${files[@]}" --profile "$profile" --profile "${SEAL_OBSERVE:-observability}" up --build --wait --detach "$@"
cat <<'WORDS'
up. To call it from this machine:
  export SEAL_ADDRESS=localhost:50050 SEAL_TLS_CA=secrets/tls/operator/ca.crt
  export SEAL_TLS_CERT=secrets/tls/operator/tls.crt SEAL_TLS_KEY=secrets/tls/operator/tls.key
Dashboards: http://localhost:3000 (user admin, password in secrets/grafana_password)
WORDS
