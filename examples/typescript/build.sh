#!/usr/bin/env bash
# Generates the code of the protos and builds the example as FOLDER/dist/learn.js: build.sh [FOLDER], by default `build`
# beside this file. Needs node, npm and buf.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${1:-$here/build}"
out=$(cd "${1:-$here/build}" && pwd)
PATH=$PATH:$root/.venv/bin

cp -r "$here/src" "$here"/*.json "$out"
cd "$out"
npm ci --ignore-scripts
cd "$root"
PATH=$out/node_modules/.bin:$PATH buf generate --template "$here/buf.gen.yaml" -o "$out"
cd "$out"
npx --no-install tsc
