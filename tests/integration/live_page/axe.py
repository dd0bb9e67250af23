"""axe-core, which finds what people with a screen reader or a keyboard cannot use: https://github.com/dequelabs/axe-core

It is one file of npm's package, kept in a cache folder of the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "4.10.3"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seal-tests"


def axe_core() -> str | None:
    """The script; None if it is not in the cache and cannot be fetched."""
    file = _CACHE / f"axe-{VERSION}.min.js"
    npm = shutil.which("npm")
    if not file.exists() and npm:
        with tempfile.TemporaryDirectory() as folder:
            package = f"axe-core@{VERSION}"
            got = subprocess.run([npm, "pack", package, "--silent"], cwd=folder, capture_output=True, check=False)
            if got.returncode:
                return None
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                script = archive.extractfile("package/axe.min.js")
                assert script is not None
                _CACHE.mkdir(parents=True, exist_ok=True)
                file.write_bytes(script.read())
    return file.read_text(encoding="utf-8") if file.exists() else None
