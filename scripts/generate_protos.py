"""Generates `gen/` from `protos/`: messages, type stubs and gRPC stubs. `--check` fails if `gen/` is out of date."""

from __future__ import annotations

import argparse
import filecmp
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
VENDOR = PROTOS / "vendor"


def generate(out: Path) -> None:
    """Writes the generated tree to `out`. Raises RuntimeError if protoc rejects a file."""
    # The plugins are installed beside this interpreter, which need not be on the PATH.
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    ours = sorted(str(p.relative_to(PROTOS)) for p in (PROTOS / "seal").rglob("*.proto"))
    common = ["protoc", f"-I{PROTOS}", f"-I{VENDOR}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    # google.rpc comes generated from the googleapis-common-protos package; buf.validate comes with no package that
    # registers it in google.protobuf's pool, so it is generated here.
    messages = [*ours, "buf/validate/validate.proto"]
    if protoc.main([*common, f"--python_out={out}", f"--mypy_out=quiet:{out}", *messages]):
        raise RuntimeError("protoc failed on the messages")
    services = [p for p in ours if re.search(r"^service ", (PROTOS / p).read_text(), re.MULTILINE)]
    if protoc.main([*common, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services]):
        raise RuntimeError("protoc failed on the services")
    for folder in {p.parent for p in out.rglob("*_pb2.py")}:
        while folder != out:
            (folder / "__init__.py").touch()
            (folder / "py.typed").touch() if folder.parent == out else None
            folder = folder.parent


def differences(a: Path, b: Path) -> list[str]:
    """Relative paths of files that differ or exist on one side only."""
    names = {
        str(p.relative_to(r)) for r in (a, b) for p in r.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    }
    return sorted(
        n for n in names if not ((a / n).exists() and (b / n).exists() and filecmp.cmp(a / n, b / n, shallow=False))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if they differ")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        target = ROOT / "gen"
        if args.check:
            drift = differences(fresh, target)
            if drift:
                sys.stderr.write("gen/ does not match protos/; run `make proto`:\n" + "\n".join(drift) + "\n")
            return 1 if drift else 0
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(fresh, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
