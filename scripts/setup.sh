#!/usr/bin/env bash
# Creates .venv with the project and all its dependencies. Safe to interrupt and to call again: a second call without
# changes ends at once. Works with the bash 3.2 of macOS.
#
#   PYTHON       the interpreter to use (default: the first of python3, python3.13, python3.12, python3.11 that is >= 3.11)
#   TORCH_INDEX  a pip index to take torch from, beside pip's own. Unset, on Linux without an NVIDIA GPU: PyTorch's
#                index of CPU builds (about 200 MB) if it is reachable, since PyPI's torch includes some GB of CUDA.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=torch==2.13.0
CPU_INDEX=https://download.pytorch.org/whl/cpu
VENV=.venv
STAMP=$VENV/.seal-setup
SPACE_MB=6000

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
say() { printf 'setup: %s\n' "$*" >&2; }

find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer is needed; found: $("${PYTHON:-python3}" --version 2>&1 || true). Install one, or name it: PYTHON=/path/to/python3.12 make setup"
}

fingerprint() { cat pyproject.toml constraints.txt scripts/setup.sh | cksum; printf '%s\n' "${TORCH_INDEX:-}" "$PWD"; }

reachable() {
  "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "$1/torch/" 2>/dev/null
}

pip_install() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

python=$(find_python)
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "$python has no venv module. On Debian and Ubuntu: apt install python3-venv"
free_mb=$(df -Pk . | awk 'NR == 2 {print int($4 / 1024)}')
[ "$free_mb" -ge "$SPACE_MB" ] || [ -f "$STAMP" ] ||
  fail "$free_mb MB are free here and setting up takes up to $SPACE_MB MB; make room, or clone to another disk"

# An incomplete venv is recreated; a working one is updated.
"$VENV/bin/python" -m pip --version >/dev/null 2>&1 || { rm -rf "$VENV"; "$python" -m venv "$VENV"; }
rm -f "$STAMP"

no_network="pip failed (see above). Without a network, set up once where there is one; behind a proxy, set HTTPS_PROXY"
say "installing torch (1 of 2); a first time, both steps take some minutes"
index=${TORCH_INDEX:-}
if [ -z "$index" ] && [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1 && reachable "$CPU_INDEX"; then
  index=$CPU_INDEX
fi
pip_install "$TORCH" -c constraints.txt ${index:+--extra-index-url "$index"} || fail "$no_network"
say "installing the project and what else it needs (2 of 2)"
pip_install -c constraints.txt -e '.[embedded,dev]' || fail "$no_network"

# Written last: whatever was interrupted before this line is repeated.
fingerprint > "$STAMP.partial"
mv "$STAMP.partial" "$STAMP"
say "done: $VENV ($("$VENV/bin/python" --version))"
