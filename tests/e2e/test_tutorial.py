"""The tutorial's blocks as they stand, in order, on the real model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from tests.e2e.readme import ROOT, blocks

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
MODEL = ROOT / ".seal" / "models" / "smollm2-135m-instruct"


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """A folder with what the tutorial uses. Its stack is ended after."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    yield tmp_path
    state = Layout.at(tmp_path / ".seal").read_state()
    process.stop(state.services if state else (), grace=0)


@pytest.mark.e2e
@pytest.mark.timeout(2400)
def test_two_documents_are_learned_asked_about_and_one_is_taken_back(workplace: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SEAL_")}
    environment = plain | {"SEAL_MODEL": str(MODEL)}
    said = []
    for block in blocks("bash", TUTORIAL):
        done = subprocess.run(
            ["bash", "-e", "-c", f"source .venv/bin/activate\n{block}"],
            cwd=workplace, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
        said.append((block, done.stdout))
    learned = [out for block, out in said if block.startswith("seal learn")]
    assert len(learned) == 2
    assert not any("NOT_ADOPTED" in out for out in learned)
    before, after = [out for block, out in said if "--lineage" in block]
    assert "quillan-library.md" in before
    assert "quillan-library.md" not in after
    assert "marrow-lock.md" in after
