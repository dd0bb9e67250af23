#!/usr/bin/env bash
# The demo: starts the stack, runs configs/demo.toml, shows the table, stops the stack. A stack that was already running
# is left running. Ctrl-C, SIGTERM or a closed terminal at any time cancels the run and leaves no process behind.
# Arguments go to `seal run`.
set -euo pipefail
cd "$(dirname "$0")/.."
seal=.venv/bin/seal
child=

# In the background, because bash runs a trap only once its foreground command has ended.
run() {
  "$@" &
  child=$!
  wait "$child"
  child=
}
# A command in the background ignores SIGINT, so it gets SIGTERM.
interrupt() { # EXIT-CODE
  trap '' INT TERM HUP
  [ "$1" != 129 ] || exec >/dev/null 2>&1 # nobody reads it, and writing to a closed terminal fails
  [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null || true; wait "$child" || true; }
  exit "$1"
}
finish() {
  code=$?
  trap '' INT TERM HUP
  [ "$ours" = no ] || "$seal" down || code=1
  exit "$code"
}

if "$seal" status --quiet; then
  ours=no
else
  ours=yes
fi
trap finish EXIT
trap 'interrupt 129' HUP
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

run "$seal" up
run "$seal" run configs/demo.toml --cancel-on-interrupt "$@"
