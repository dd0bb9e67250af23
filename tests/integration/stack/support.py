"""What the tests of the stack share."""

import subprocess
import sys
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[3]


class Seal(Protocol):
    """Runs `seal` with words and waits for it."""

    def __call__(self, *words: str, timeout: float = 100) -> subprocess.CompletedProcess[str]: ...


def command(*words: str) -> list[str]:
    """`seal` of this environment."""
    return [sys.executable, "-c", "from seal_cli.main import main; main()", *words]
