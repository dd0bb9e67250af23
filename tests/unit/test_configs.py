"""Every config that ships loads, and what it names is there."""

from pathlib import Path

import pytest

from seal_cli.recipe import load_recipe
from sealkit.config import load_config
from sealkit.domain import load_domain

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_with_its_domain_and_dataset(path: Path) -> None:
    config = load_config(path)
    domain = load_domain(config.domain.name)(config.domain.options, config.inner_loop)
    if config.dataset.path:
        records = load_recipe(path, dataset=None, limit=None, settings=()).records
        assert domain.contexts(records)


def test_the_demo_and_the_paper_ship() -> None:
    assert {"arc_llama1b", "arc_smoke", "demo", "knowledge"} <= {path.stem for path in CONFIGS}
