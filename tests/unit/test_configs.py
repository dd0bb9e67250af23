"""Every config that ships loads, and what it names is there."""

from pathlib import Path

import pytest

from sealkit.config import load_config
from sealkit.domain import load_domain

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_with_its_domain_and_dataset(path: Path) -> None:
    config = load_config(path)
    load_domain(config.domain.name)(config.domain.options, config.inner_loop)
    for named in (config.dataset.path, config.dataset.retention_path):
        assert not named or (path.parent / named).is_file()


def test_the_demo_and_the_paper_ship() -> None:
    assert {"demo", "knowledge"} <= {path.stem for path in CONFIGS}
