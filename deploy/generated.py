"""Generated files: written, or only compared."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def settle(wanted: Mapping[Path, str], arguments: list[str], *, command: str, beside: Iterable[Path] = ()) -> int:
    """Writes the files, or with `--check` among the arguments reports which are out of date. Returns the exit code.
    `command` regenerates them. A file in `beside` that is not in `wanted` counts as out of date.
    """
    if "--check" not in arguments:
        for path, text in wanted.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    stale += [path for path in beside if path not in wanted]
    for path in stale:
        sys.stderr.write(f"{path} is out of date; run {command}\n")
    return 1 if stale else 0
