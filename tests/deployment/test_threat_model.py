"""docs/threat_model.md names tests that there are, so that it cannot promise what nothing holds."""

from __future__ import annotations

import ast
import re

from tests.security.harness import ROOT

PAGE = (ROOT / "docs/threat_model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
LINES = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| threat")]


def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_named_there_exists() -> None:
    assert [f"{path}::{name}" for path, name in NAMED if name not in functions(path)] == []


def test_every_threat_has_its_test() -> None:
    assert len(LINES) > 15
    for line in LINES:
        assert line.count(" | ") == 3, f"four columns: {line[:80]}"
        assert "::test_" in line.split(" | ")[2], f"no test holds: {line[:80]}"
