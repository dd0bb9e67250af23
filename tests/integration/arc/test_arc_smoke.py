"""ARC from end to end: a small model is taught made-up grids, then configs/arc_smoke.toml runs on the real services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.arc_model import make_arc_model
from seal_cli.stack import process
from seal_cli.stack.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `seal` finds a stack that holds the model."""
    folder = tmp_path_factory.mktemp("arc")
    model = make_arc_model(folder / "model")
    layout = Layout.at(folder / "data")
    environment = dict(os.environ) | {"SEAL_DATA": str(layout.data), "SEAL_MODEL": str(model)}
    assert seal(environment, "up", "--port", "0").returncode == 0
    yield environment
    state = layout.read_state()
    process.stop(state.services if state else (), grace=0)


def seal(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    code = "from seal_cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_smoke_config_runs_and_an_adapter_learns_what_the_model_does_not_solve(stack: dict[str, str]) -> None:
    ran = seal(stack, "run", "configs/arc_smoke.toml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    name = ran.stdout.partition(":")[0]
    report = json.loads(seal(stack, "runs", "report", name, "--json").stdout)
    accuracy = {row["key"]: row["accuracy"]["mean"] for row in report["rows"]}
    trained, base = (
        [accuracy[f"{s}.{who}"] for s in ("train", "held_out")] for who in ("oracle.self_edit.mean", "base")
    )
    assert sum(trained) > sum(base)
    listed = [line.split("\t") for line in seal(stack, "trials", "list", name).stdout.splitlines()]
    assert {editor for _, editor, *_ in listed} == {"policy", "oracle", "passage_only"}
    assert not any("failed" in line for line in listed)

    solved = seal(stack, "arc", "solved", name).stdout
    assert "of 8 tasks are learned" in solved
    assert json.loads(solved.splitlines()[-1].partition("=")[2])


def test_tasks_that_the_model_can_learn_are_found(stack: dict[str, str]) -> None:
    found = seal(stack, "arc", "filter", "configs/arc_smoke.toml", "--limit", "2")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "of 2 tasks are learned" in found.stdout
