"""The table "Knowledge in small": SmolLM2-135M-Instruct on invented passages, one round; what the runs are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.study.experiment import SPENT, Experiment
from benchmarks.surrogate import contained
from seal_cli.recipe import load_recipe
from sealkit.config import RunConfig
from sealkit.domains.base import Context, Rejected, spec_of
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.resources import Trial

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/knowledge_quoted.toml"
MODEL = ROOT / ".seal/models/smollm2-135m-instruct"
PASSAGES = 'dataset.path="demo/passages.json"'
CHEAPER = (
    "dataset.held_out=0",
    "inner_loop.anchors.max_tokens=16",
    "evaluation.retention_limit=4",
    "evaluation.divergence=false",
)
"""What differs in every variant from `configs/knowledge_quoted.toml`. The passages say which of them are held out."""
VARIANTS = {
    "taught": (
        'domain.options.answers="teacher"',
        'inner_loop.objective="distil"',
        r'inner_loop.teaching={temperature=0.0, max_tokens=24, stop=["\n"]}',
        "inner_loop.optimisation.epochs=8",
        "inner_loop.optimisation.batch_size=64",
    ),
    "quoted_taught": (),
    "quoted": ("editor.k=4", 'editor.arms=["policy"]', 'selection.learn_from=["policy"]'),
}
"""By name: the teacher's answers, in as many steps as it takes to learn from them (docs/results/LOG.md); quoted
answers; quoted answers, and only the policy's own self-edits."""
LABELS = {
    "taught": "teacher's answers, exam tried too",
    "quoted_taught": "quoted answers, exam tried too",
    "quoted": "quoted answers, own self-edits",
}


def experiment(seed: int, variant: str, *, quick: bool) -> Experiment:
    """One run."""
    settings = (*CHEAPER, *VARIANTS[variant], *(("contexts_per_round=1", "editor.k=2") if quick else ()))
    run = on_passages("knowledge", seed, variant, CONFIG, settings, quick=quick)
    return replace(run, more={**run.more, "found": Found.of(run.config, run.records)})


def on_passages(
    table: str, seed: int, variant: str, config: Path, settings: tuple[str, ...], *, quick: bool
) -> Experiment:
    """A run on the demo's passages."""
    own = (f"seed={seed}", f'name="study-{table}-{variant}-{seed}"', PASSAGES, *settings)
    recipe = load_recipe(config, dataset=None, limit=None, settings=own)
    records = few(recipe.records) if quick else recipe.records
    return Experiment(table=table, seed=seed, variant=variant, config=recipe.config, records=records, more=SPENT)


def few(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two passages to learn from and two held out."""
    return [record for split in ("train", "heldout") for record in [r for r in records if r["split"] == split][:2]]


@dataclass(frozen=True)
class Found:
    """The share of the exam's gold answers in what an adapter is trained on, the answers to a self-edit's questions;
    None if the self-edit is rejected. `contexts`: by id."""

    domain: KnowledgeDomain
    contexts: Mapping[str, Context]

    @classmethod
    def of(cls, config: RunConfig, records: Sequence[dict[str, Any]]) -> Found:
        """For the passages of a run."""
        domain = KnowledgeDomain(config.domain.options, config.inner_loop)
        return cls(domain, {context.context_id: context for context in domain.contexts(records)})

    def __call__(self, trial: Trial) -> float | None:
        context = self.contexts[trial.context_id]
        try:
            spec = spec_of(self.domain, context, trial.completion, trial.teacher_answers, seed=0)
        except Rejected:
            return None
        exam = [(query.question, query.gold) for query in self.domain.queries(context)]
        return round(contained(exam, "\n".join(example.text for example in spec.examples)), 3)


def quick_model(folder: Path) -> Path:
    """A tiny random model."""
    from sealkit.testing.tiny import make_tiny_model

    return make_tiny_model(folder, "llama", hidden=32, layers=2, vocab=512, context=1024)


def learned(way: str, file: Path = ROOT / "docs/results/learning.json") -> dict[str, float]:
    """Accuracy of a method of `benchmarks.learning` by context, the mean over its seeds: on some of the held-out
    passages, with 4,500 trained tokens. `open_book`: the base model with the passage in its prompt."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["way"] == way:
            found[row["context"]].append(row["accuracy"])
    return {context: fmean(scores) for context, scores in found.items()}
