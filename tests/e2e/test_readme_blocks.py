"""The README's blocks as they stand, on a tiny random model with a smaller recipe; `make demo` on the real one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import CONTROLLER, Layout
from sealkit.testing.tiny import make_tiny_model
from tests.e2e.readme import ROOT, block_with, blocks

SMALLER = {"rounds = 2": "rounds = 1", "max_tokens = 512": "max_tokens = 24", "epochs = 10": "epochs = 1"}
DEMO = "--set contexts_per_round=1 --set editor.k=1 --set inner_loop.optimisation.epochs=1 --set held_out.samples=1"


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Path]:
    """A folder as the README assumes it: .venv, configs, the dataset of the JSON block. Its stack is ended after."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    recipe = (tmp_path / "configs" / "knowledge.toml").read_text()
    for usual, small in SMALLER.items():
        assert usual in recipe
        recipe = recipe.replace(usual, small)
    (tmp_path / "configs" / "knowledge.toml").write_text(recipe)
    (tmp_path / "my_passages.json").write_text(blocks("json")[0])
    yield tmp_path
    state = Layout.at(tmp_path / ".seal").read_state()
    process.stop(state.services if state else (), grace=0)


@pytest.fixture
def environment(workplace: Path) -> dict[str, str]:
    """Nothing of the outside's settings but a tiny model."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SEAL_")}
    return plain | {"SEAL_MODEL": str(make_tiny_model(workplace / "tiny", context=2048))}


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_own_dataset_and_python_client(workplace: Path, environment: dict[str, str]) -> None:
    shell = block_with("bash", "--dataset")
    assert shell.rstrip().endswith("seal down")
    before, down = shell.rsplit("seal down", 1)
    sh(before, workplace, environment)

    layout = Layout.at(workplace / ".seal")
    state = layout.read_state()
    assert state is not None
    controller = state.find(CONTROLLER)
    assert controller is not None
    # The usual port, unless something else on this machine has it.
    snippet = blocks("python")[0].replace("127.0.0.1:50050", controller.address)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "RL step" in done.stdout.splitlines()[-1]

    sh("source .venv/bin/activate\nseal down" + down, workplace, environment)
    assert all(process.has_ended(record) for record in state.services)


def sh(script: str, folder: Path, environment: dict[str, str]) -> None:
    """Runs lines of the README as a person pastes them; the first that fails ends it."""
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.timeout(1200)
def test_make_demo_ends_with_its_page_and_leaves_the_stack_as_it_was() -> None:
    layout = Layout.at(ROOT / ".seal")
    before = layout.read_state()
    done = subprocess.run(["make", "demo", f"ARGS={DEMO}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Learning a text" in done.stdout
    assert "θ_0" in done.stdout
    assert layout.read_state() == before
