#!/bin/sh
# pip install for an image: pinned versions, without files that no service needs.
set -eu
pip install -c constraints.txt --find-links /wheels "$@"
packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The packages' own tests, and torch's files for compilers.
find "$packages" -depth -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -exec rm -rf {} +
find "$packages" -path '*/torch/bin/*' ! -name torch_shm_manager -delete
