"""The table "ARC in small": a model made for it, 60 tasks to learn from and 24 held out, three or four rounds."""

from __future__ import annotations

from pathlib import Path

from benchmarks.arc_model import records
from benchmarks.study.experiment import Experiment
from seal_cli.recipe import load_recipe
from sealkit.config import RunConfig

ROOT = Path(__file__).parents[2]
CONFIG, MODEL = ROOT / "configs/arc_smoke.toml", ROOT / "configs/arc_smoke/model"
TRAIN, HELD_OUT = 60, 24
SETTINGS = (
    "rounds=4",
    "contexts_per_round=15",
    "editor.k=12",
    "held_out.samples=4",
    'm_step.start_from="base"',
)
"""What differs from `configs/arc_smoke.toml`."""
_KEEP_BEST = 'gate.held_out="not_worse"'
VARIANTS = {
    "selective": (_KEEP_BEST, "rounds=3", "editor.sampling.temperature=0.5", "selection.must_beat_passage_only=true"),
    "keep_best": (_KEEP_BEST,),
    "always_next": ('gate.held_out="off"',),
}
"""By name: whether a policy that scores lower on the held-out tasks may be the next one, and what is kept."""


QUICK = ("rounds=1", "contexts_per_round=2", "editor.k=2", "held_out.samples=1")


def experiment(seed: int, variant: str, *, quick: bool) -> Experiment:
    """One run."""
    return with_tasks("arc", seed, variant, (*SETTINGS, *VARIANTS[variant], *(QUICK if quick else ())), quick=quick)


def with_tasks(table: str, seed: int, variant: str, settings: tuple[str, ...], *, quick: bool) -> Experiment:
    """A run on tasks that are drawn by the seed too, so that runs with different seeds share none."""
    own = (f"seed={seed}", f'name="study-{table}-{variant}-{seed}"', *settings)
    tasks = records(1000 + seed, *((4, 3) if quick else (TRAIN, HELD_OUT)))
    return Experiment(table=table, seed=seed, variant=variant, config=config(own), records=tasks)


def config(settings: tuple[str, ...]) -> RunConfig:
    """The smoke run's config with these settings."""
    return load_recipe(CONFIG, dataset=None, limit=None, settings=settings).config
