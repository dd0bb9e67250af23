"""Writes constraints.txt: the version of every direct and transitive dependency in this environment.

Follows the project's own requirements, so packages that were installed by hand are left out. CUDA's packages are left
to torch, which pins them itself.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = "seal-suite"
EXTRAS = ("embedded", "dev")
OURS = {"nvidia-ml-py"}
"""NVIDIA's packages that the project itself requires."""
HEADER = """\
# Every direct and transitive dependency of seal-suite[embedded,dev], for `pip install -c`. Written by
# scripts/write_constraints.py from an environment that passes the tests.
"""


def closure(project: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Canonical name → public version of every installed package that `project` with `extras` requires."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(project, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate({"extra": extra}):
                continue
            child = canonicalize_name(needed.name)
            try:
                version = metadata.version(child)
            except metadata.PackageNotFoundError:
                continue  # for another platform
            if child != project:
                pins[child] = Version(version).public
            waiting += [(child, wanted) for wanted in ("", *needed.extras)]
    return pins


def main() -> int:
    pins = closure(PROJECT, EXTRAS)
    shown = {name for name in pins if name in OURS or not name.startswith(("nvidia-", "cuda-"))}
    lines = [f"{name}=={pins[name]}\n" for name in sorted(shown)]
    Path(__file__).resolve().parent.parent.joinpath("constraints.txt").write_text(HEADER + "".join(lines), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
