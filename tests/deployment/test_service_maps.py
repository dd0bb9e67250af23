"""The README of a service: the files that it names exist, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["trainer_svc", "evaluator_svc"])
def test_the_example_of_a_services_readme_holds(package: str) -> None:
    text = (ROOT / package / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(block, f"{package}/README.md", "exec"), {})


@pytest.mark.parametrize("package", ["trainer_svc", "evaluator_svc", "controller"])
def test_the_files_that_a_services_readme_names_exist(package: str) -> None:
    named = re.findall(r"`((?:\w+/)*\w+\.py|\w+/)`", (ROOT / package / "README.md").read_text(encoding="utf-8"))
    assert len(named) > 5
    assert [name for name in named if not ((ROOT / package / name).exists() or (ROOT / name).exists())] == []
