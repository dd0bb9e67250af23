#!/usr/bin/env bash
# The demo: starts the stack, runs configs/demo.toml, shows the table, stops the stack. A stack that was already running
# is left running. Ctrl-C at any time cancels the run and leaves no process behind. Arguments go to `seal run`.
set -euo pipefail
cd "$(dirname "$0")/.."
seal=.venv/bin/seal

if "$seal" status --quiet; then
  ours=no
else
  ours=yes
fi
finish() {
  code=$?
  trap '' INT TERM
  [ "$ours" = no ] || "$seal" down || code=1
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$seal" up
"$seal" run configs/demo.toml --cancel-on-interrupt "$@"
