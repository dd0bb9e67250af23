#!/usr/bin/env bash
# The tests of the stack in containers, for CI: all but the operations (backup, rotation and the like, five minutes more,
# in `make e2e`), or those of the given pytest arguments. Uses the running Docker Engine, or else starts one with the
# script SEAL_ENGINE, and stops it afterwards. Without either it skips the tests with exit code 0.
#   SEAL_ENGINE  that script (default ../shared/tools/docker-engine.sh), called with `up FOLDER` and `down FOLDER`
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${SEAL_ENGINE:-../shared/tools/docker-engine.sh}
skip() { echo "the stack in containers is not tested: $*"; exit 0; }

if ! docker info >/dev/null 2>&1; then
  [ "$(id -u)" = 0 ] && [ -x "$engine" ] || skip "no Docker Engine answers, and none can be started here"
  folder=$(mktemp -d)
  stop() {
    "$engine" down "$folder" >/dev/null 2>&1 || true
    for _ in $(seq 100); do [ -e "$folder/dockerd.pid" ] || break; sleep 0.2; done
    rm -rf "$folder"
  }
  trap stop EXIT
  timeout 600 "$engine" up "$folder" > "$folder/up.log" 2>&1 || skip "the engine did not start: $(tail -n 1 "$folder/up.log")"
  . "$folder/env"
fi
[ $# -gt 0 ] || set -- --ignore tests/e2e/compose/test_operations.py
.venv/bin/python -m pytest tests/e2e/compose tests/deployment/test_compose_config.py -s --durations=5 "$@"
