#!/usr/bin/env bash
# The contract's own checks: lint, format, no breaking change against the last commit, generated code up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=.venv/bin/buf

"$buf" lint
"$buf" format --diff --exit-code --path protos/seal

# Uncommitted work is held against HEAD, a clean tree against the commit before it.
base=HEAD
git diff --quiet HEAD -- protos 2>/dev/null && base=HEAD~1
if git rev-parse --quiet --verify "$base:protos/seal" >/dev/null; then
  "$buf" breaking --against ".git#ref=$(git rev-parse "$base")"
  echo "buf breaking: nothing broken since $base"
else
  echo "buf breaking: no earlier protos to compare with"
fi

.venv/bin/python scripts/generate_protos.py --check
echo "gen/ matches protos/"
