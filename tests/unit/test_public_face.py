"""What `sealkit` exports is there, is listed once, and costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import sealkit


def test_every_exported_name_is_there_and_the_list_is_sorted() -> None:
    assert sealkit.__all__ == sorted(sealkit.__all__)
    assert [name for name in sealkit.__all__ if getattr(sealkit, name).__name__ != name] == []
    assert set(sealkit.__all__) <= set(dir(sealkit))
    assert sorted(name for names in sealkit._HOMES.values() for name in names) == sealkit.__all__


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys, sealkit; print(sorted(m for m in sys.modules if m.startswith(('sealkit.', 'grpc', 'pydantic'))))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
