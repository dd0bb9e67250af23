#!/usr/bin/env bash
# The demo, in two parts. First a text is learned (configs/demo/learn.toml) by the model of the stack, which is started
# unless one runs already; that one is left running. Then one round of ReST^EM (configs/demo/rounds.toml) on a stack of its own,
# with the model in configs/arc_smoke/model. At the end one page shows both. Ctrl-C, SIGTERM or a closed terminal at any
# time cancels the run and leaves no process behind. Arguments go to `seal adapt` and to `seal run`.
set -euo pipefail
cd "$(dirname "$0")/.."
unset SEAL_ADDRESS
seal=.venv/bin/seal
page=".venv/bin/python -m scripts.demo_page"
child=
results=$(mktemp -d)
second=${SEAL_DATA:-.seal}/demo

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
  stop || code=1
  rm -rf "$results"
  exit "$code"
}
# The stack that this script started last, if it still runs.
ours=
stop() {
  local data=$ours
  ours=
  [ -z "$data" ] || "$seal" down --data "$data"
}
start() { # DATA ARGUMENTS…
  ours=$1
  run "$seal" up --data "$@"
}

trap finish EXIT
trap 'interrupt 129' HUP
trap 'interrupt 130' INT
trap 'interrupt 143' TERM

"$seal" status --quiet || start "${SEAL_DATA:-.seal}"
echo "1 of 2: learning a text that the model does not know" >&2
run "$seal" adapt configs/demo/learn.toml --cancel-on-interrupt --json "$@" >"$results/learned.json"
$page answers "$results/learned.json" >"$results/answers.json"
stop
echo "2 of 2: a round of ReST^EM on small ARC tasks, with a model of 280,000 weights" >&2
start "$second" --model configs/arc_smoke/model --port 0
run "$seal" run configs/demo/rounds.toml --data "$second" --cancel-on-interrupt --json "$@" >"$results/rounds.json"
stop
$page show "$results/learned.json" "$results/answers.json" "$results/rounds.json"
