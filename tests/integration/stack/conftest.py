import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from sealkit.testing.tiny import make_tiny_model
from tests.integration.stack.support import ROOT, Seal, command


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that starts in no time; what it writes is noise."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", context=2048)


@pytest.fixture
def environment(tmp_path: Path, tiny_model: Path) -> dict[str, str]:
    """A data folder of this test's own."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    return dict(os.environ) | {"SEAL_DATA": str(tmp_path / "data"), "SEAL_MODEL": str(tiny_model), "PYTHONPATH": paths}


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """The data folder's layout; whatever still runs there at the end is ended."""
    layout = Layout.at(tmp_path / "data")
    yield layout
    state = layout.read_state() if layout.data.exists() else None
    process.stop(state.services if state else (), grace=0)


@pytest.fixture
def seal(environment: dict[str, str], layout: Layout, tmp_path: Path) -> Seal:
    """The command line in that environment."""

    def call(*words: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=timeout
        )

    return call
