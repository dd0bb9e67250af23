"""The notebook of the documents runs as it is, and its stored outputs are those of such a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode, read

from tests.integration.stack.support import ROOT, RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

NOTEBOOK = ROOT / "docs/notebooks/a_run.ipynb"


def test_the_notebook_runs(stack: RunningStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = read(NOTEBOOK, as_version=4)
    executed = execute(read(NOTEBOOK, as_version=4), stack, monkeypatch, tmp_path)
    kinds = [outputs(cell) for cell in executed.cells if cell.cell_type == "code"]
    assert kinds == [outputs(cell) for cell in stored.cells if cell.cell_type == "code"]
    shown = text_of(executed)
    assert "succeeded" in shown
    assert "<caption>runs/lakes-" in shown
    assert "self-edits by θ_2, mean" in shown


def test_the_stored_outputs_name_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(home|tmp|root|Users)/|\d+\.\d+\.\d+\.\d+:(?!50050)\d+|Traceback", text)
    assert all(cell["execution_count"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


def execute(notebook: NotebookNode, stack: RunningStack, monkeypatch: pytest.MonkeyPatch, folder: Path) -> NotebookNode:
    """The notebook, executed against the stack in a kernel of this environment."""
    monkeypatch.setenv("SEAL_ADDRESS", stack.address)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "gen")]))
    executed: NotebookNode = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return executed


def outputs(cell: NotebookNode) -> list[str]:
    """The kind of each output of a cell. Of tables only the HTML is stored."""
    return ["text/html" if "text/html" in one.get("data", ()) else one.output_type for one in cell.outputs]


def text_of(notebook: NotebookNode) -> str:
    found: list[Any] = [
        one.get("text") or one["data"].get("text/html", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for one in cell.outputs
    ]
    return "\n".join(map(str, found))
