"""ARC from end to end: configs/arc_smoke.toml with fewer trials, on the real services.

Its model is the output of `python -m benchmarks.arc_model` (eighty CPU seconds), converted to half precision by
`sealkit.backends.models.export_model`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.arc_model import make_arc_model
from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from tests.integration.stack.support import ROOT, command, environment_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

MODEL = ROOT / "configs/arc_smoke/model"
FEWER = ("--set", "editor.k=2", "--set", "held_out.samples=1")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `seal` finds a stack that holds the model."""
    layout = Layout.at(tmp_path_factory.mktemp("arc") / "data")
    environment = environment_of(layout, MODEL)
    assert seal(environment, "up", "--port", "0").returncode == 0
    yield environment
    state = layout.read_state()
    process.stop(state.services if state else (), grace=0)


def seal(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_smoke_config_runs_and_an_adapter_learns_what_the_model_does_not_solve(stack: dict[str, str]) -> None:
    ran = seal(stack, "run", "configs/arc_smoke.toml", *FEWER)
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


def test_the_model_is_still_one_that_the_recipe_makes(tmp_path: Path) -> None:
    """Everything but the weights. If the prompts change, the model must be trained again."""
    made = make_arc_model(tmp_path / "made", steps=1)
    assert (made / "tokenizer.json").read_text() == (MODEL / "tokenizer.json").read_text()
    configs = [json.loads((folder / "config.json").read_text()) for folder in (made, MODEL)]
    for config in configs:
        del config["dtype"], config["transformers_version"]
    assert configs[0] == configs[1]
