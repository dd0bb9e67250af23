#!/usr/bin/env bash
# Generates the code of the protos and builds the example as FOLDER/learn: build.sh [FOLDER], by default `build` beside
# this file. Needs go, buf, protoc-gen-go and protoc-gen-go-grpc; the packages come from the Go module proxy at the
# versions of go.mod, or from Debian where its packages of them are installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${1:-$here/build}"
out=$(cd "${1:-$here/build}" && pwd)
PATH=$PATH:$root/.venv/bin

# A GOPATH of its own, because Debian's packages are no modules.
source=$out/src/sealclient
mkdir -p "$source"
cp "$here"/*.go "$here/go.mod" "$source"
cd "$root"
buf generate --template "$here/buf.gen.yaml" -o "$source"
cd "$source"
if [ -d /usr/share/gocode/src/google.golang.org/grpc ]; then
  GO111MODULE=off GOPATH=$out:/usr/share/gocode go build -o "$out/learn" .
else
  go mod tidy
  go build -o "$out/learn" .
fi
