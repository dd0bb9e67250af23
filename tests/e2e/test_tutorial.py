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
    said: list[tuple[str, str]] = []
    for line in "".join(blocks("bash", TUTORIAL)).splitlines():
        done = subprocess.run(
            ["bash", "-e", "-c", f"source .venv/bin/activate\n{line}"],
            cwd=workplace, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, line + done.stdout + done.stderr
        said.append((line, " ".join(done.stdout.split())))

    def outputs(begin: str) -> list[str]:
        """Of the lines that begin so, with one space where there is any."""
        return [out for line, out in said if line.startswith(begin)]

    learned = outputs("seal learn ")
    assert len(learned) == 2
    assert not any("NOT_ADOPTED" in out for out in learned)
    before, after = outputs("seal alias show local --lineage")
    assert ("marrow-lock.md" in before, "quillan-library.md" in before) == (True, True)
    assert ("marrow-lock.md" in after, "quillan-library.md" in after) == (True, False)
    question = 'seal ask local "When was the Marrow Lock built?"'
    compared, last = outputs(question)
    assert last
    assert last in compared, "the alias answers as if it had never learned the second one"
    assert last not in outputs(question.replace("local", "base"))
