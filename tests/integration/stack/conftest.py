import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from seal_cli.stack import process
from seal_cli.stack.layout import Layout
from sealkit.testing.tiny import make_tiny_model
from tests.integration.stack import learning, support
from tests.integration.stack.support import SMALL_ADAPTATION, RunningStack, Seal, environment_of, seal_in


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that starts in no time; what it writes is noise."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", context=2048)


@pytest.fixture(scope="session")
def one_stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[dict[str, str], Layout]]:
    layout = Layout.at(tmp_path_factory.mktemp("stack") / "data")
    environment = environment_of(layout, tiny_model) | {
        "SEAL_CONTROLLER_DOMAIN_PLUGINS": f"{support.PLUGIN},{learning.PLUGIN}",
        "SEAL_CONTROLLER_LEASE_SECONDS": "4",  # what a killed controller leaves is taken over after this time
    }
    started = seal_in(environment, layout.data.parent)("up", "--port", "0")
    assert started.returncode == 0, started.stderr
    yield environment, layout
    end(layout)


@pytest.fixture(scope="session")
def adapted(one_stack: tuple[dict[str, str], Layout], tmp_path_factory: pytest.TempPathFactory) -> str:
    """An alias of the shared stack whose policy was trained until it answers otherwise than the base model."""
    environment, _ = one_stack
    folder = tmp_path_factory.mktemp("adapted")
    questions = [{"question": "How is the lake?", "answer": "deep"}]
    passage = {"title": "T", "context": "The lake of T is deep.", "questions": questions}
    (folder / "passages.json").write_text(json.dumps([passage]))
    (folder / "adapt.toml").write_text(SMALL_ADAPTATION)
    training = [f"inner_loop.optimisation.{setting}" for setting in ("learning_rate=1e-2", "epochs=20")]
    done = seal_in(environment, folder)(
        "adapt", "adapt.toml", "--alias", "pond", "--set", training[0], "--set", training[1], timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return "pond"


@pytest.fixture
def stack(one_stack: tuple[dict[str, str], Layout], tmp_path: Path) -> RunningStack:
    """The shared stack, for tests that only use one. `seal` runs in the test's own folder."""
    environment, layout = one_stack
    return RunningStack(environment, layout, seal_in(environment, tmp_path))


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """Layout of the test's own data folder; processes that still run there at the end are killed."""
    layout = Layout.at(tmp_path / "data")
    yield layout
    end(layout)


@pytest.fixture
def environment(layout: Layout, tiny_model: Path) -> dict[str, str]:
    """Environment of the test's own stack."""
    return environment_of(layout, tiny_model)


@pytest.fixture
def seal(environment: dict[str, str], tmp_path: Path) -> Seal:
    """The command line in that environment."""
    return seal_in(environment, tmp_path)


def end(layout: Layout) -> None:
    """Kills the processes of that data folder."""
    state = layout.read_state() if layout.data.exists() else None
    process.stop(state.services if state else (), grace=0)
