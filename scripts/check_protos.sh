#!/usr/bin/env bash
# The contract's own checks: lint, format, no breaking change against the last release, generated code up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=.venv/bin/buf

"$buf" lint
"$buf" format --diff --exit-code --path protos/seal

# A release must not be broken; before the first release names may still change.
release=$(git tag --list 'v*' --sort=-version:refname | head -n 1)
if [ -n "$release" ]; then
  "$buf" breaking --against ".git#tag=$release"
  echo "buf breaking: no breaking change since $release"
else
  echo "buf breaking: nothing is released yet"
fi

.venv/bin/python scripts/generate_protos.py --check
echo "gen/ matches protos/"
