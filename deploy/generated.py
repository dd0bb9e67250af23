"""Files that code makes: written, or only compared."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path


def settle(wanted: Mapping[Path, str], arguments: list[str], *, command: str, beside: Iterable[Path] = ()) -> int:
    """Writes the files, or with `--check` among the arguments says which are not as they should be; the exit code.
    `command` is what makes them; of those `beside` them, which it finds, each must be one of them."""
    if "--check" not in arguments:
        for path, text in wanted.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    stale += [path for path in beside if path not in wanted]
    for path in stale:
        sys.stderr.write(f"{path} is not what the code makes; run {command}\n")
    return 1 if stale else 0
