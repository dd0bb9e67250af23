"""Every config that ships loads, and what it names is there."""

from pathlib import Path

import pytest

from controller.accept import check_config
from seal_cli.recipe import load_recipe
from sealkit.config import RunConfig, load_config, parse_config
from sealkit.domains.base import load_domain
from sealkit.learning import learn_config

CONFIGS = sorted(
    path for glob in ("*.toml", "demo/*.toml") for path in (Path(__file__).parents[2] / "configs").glob(glob)
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_with_its_domain_and_dataset(path: Path) -> None:
    config = load_config(path)
    domain = load_domain(config.domain.name)(config.domain.options, config.inner_loop)
    if config.dataset.path:
        records = load_recipe(path, dataset=None, limit=None, settings=()).records
        assert domain.contexts(records)


@pytest.mark.parametrize("section", ["editor", "evaluation", "inner_loop", "m_step"])
def test_a_table_given_in_part_keeps_the_defaults_of_its_section(section: str) -> None:
    default = getattr(RunConfig(), section)
    for name in {"sampling", "lora", "optimisation"} & type(default).model_fields.keys():
        table = getattr(default, name)
        first = next(iter(type(table).model_fields))
        value = getattr(table, first) * 2 or 0.5
        parsed = getattr(getattr(parse_config({section: {name: {first: value}}}), section), name)
        assert parsed == table.model_copy(update={first: value})


def test_what_is_learned_on_the_bare_base_can_be_committed() -> None:
    config = load_config(Path(__file__).parents[2] / "configs/knowledge_distilled.toml")
    assert check_config(config.model_copy(update={"task": "adapt"})).inner_loop.start_from == "base"


def test_documents_are_learned_by_the_best_known_inner_loop() -> None:
    config = check_config(parse_config(learn_config("main")))
    best = load_config(Path(__file__).parents[2] / "configs/knowledge_distilled.toml")
    assert (config.inner_loop, config.domain, config.evaluation) == (best.inner_loop, best.domain, best.evaluation)
    assert (config.gate.alias, config.adapt.commit) == ("main", "route")


def test_the_demo_and_the_paper_ship() -> None:
    assert {"arc_llama1b", "arc_smoke", "knowledge", "knowledge_distilled", "knowledge_small", "learn", "rounds"} <= {
        path.stem for path in CONFIGS
    }


def test_the_paper_s_recipe_has_nothing_that_is_not_the_paper_s() -> None:
    inner = load_config(Path(__file__).parents[2] / "configs/knowledge.toml").inner_loop
    assert (inner.objective, inner.start_from, inner.anchors.source) == ("sft", "policy", "none")
