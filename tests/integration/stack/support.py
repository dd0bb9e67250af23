"""What the tests of the stack share."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seal_cli.stack.layout import CONTROLLER, Layout

ROOT = Path(__file__).parents[3]
PLUGIN = "tests.integration.stack.test_own_domain:Sums"
"""A domain that is not installed as a package."""
SMALL_ADAPTATION = """
name = "small"
[dataset]
path = "passages.json"
[domain]
options = { min_letters = 1, worked_example = false }
[editor]
k = 8
sampling = { temperature = 0.5, max_tokens = 12 }
[inner_loop]
lora = { rank = 2, alpha = 4 }
optimisation = { epochs = 1 }
[evaluation]
sampling = { temperature = 0.0, max_tokens = 4 }
retention_limit = 2
[rehearsal]
examples = 2
source = "model"
[selection]
must_gain = false
must_beat_passage_only = false
[gate]
max_forgetting = 1.0
"""
"""An adaptation that a random model goes through in seconds: every usable self-edit counts as one that helps."""


class Seal(Protocol):
    """Runs `seal` with words and waits for it."""

    def __call__(self, *words: str, timeout: float = 200) -> subprocess.CompletedProcess[str]: ...


@dataclass(frozen=True)
class RunningStack:
    """A stack that is up: its environment, its data folder, and `seal` in that environment."""

    environment: dict[str, str]
    layout: Layout
    seal: Seal

    @property
    def address(self) -> str:
        """Of its controller."""
        state = self.layout.read_state()
        controller = state.find(CONTROLLER) if state else None
        assert controller is not None
        return controller.address


def command(*words: str) -> list[str]:
    """`seal` of this environment."""
    return [sys.executable, "-c", "from seal_cli.main import main; main()", *words]


def environment_of(layout: Layout, model: Path) -> dict[str, str]:
    """Environment in which `seal` uses this code, this data folder and this model."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    return dict(os.environ) | {"SEAL_DATA": str(layout.data), "SEAL_MODEL": str(model), "PYTHONPATH": paths}


def seal_in(environment: dict[str, str], folder: Path) -> Seal:
    """`seal` in that environment and working folder."""

    def call(*words: str, timeout: float = 200) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words), env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout
        )

    return call
