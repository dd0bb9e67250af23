"""Builds the examples of clients in other languages, where their tools are."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.stack.support import ROOT

EXAMPLES = ROOT / "examples"
DEBIAN_GO = Path("/usr/share/gocode/src/google.golang.org/grpc")
NODE = 20
"""The oldest version that the packages in package-lock.json run on."""


def build_go(folder: Path) -> list[str]:
    """The command of the Go example; skips the test where it cannot be built."""
    _need("go", "protoc-gen-go", "protoc-gen-go-grpc")
    if not DEBIAN_GO.is_dir():
        _reach("the Go module proxy", ["go", "mod", "download", "google.golang.org/grpc@latest"], folder)
    _build(EXAMPLES / "go", folder)
    return [str(folder / "learn")]


def build_typescript(folder: Path) -> list[str]:
    """The command of the TypeScript example; skips the test where it cannot be built."""
    _need("node", "npm")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE:
        pytest.skip(f"the packages need Node {NODE}, and this is {version}")
    _reach("the npm registry", ["npm", "ping", "--fetch-retries=0"], folder)
    _build(EXAMPLES / "typescript", folder)
    return ["node", str(folder / "dist" / "learn.js")]


BUILD = {"go": build_go, "typescript": build_typescript}


def _need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def _reach(what: str, command: list[str], folder: Path) -> None:
    if subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60).returncode:
        pytest.skip(f"{what} does not answer")


def _build(example: Path, folder: Path) -> None:
    built = subprocess.run([example / "build.sh", folder], capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
