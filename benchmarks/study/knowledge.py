"""The table "Knowledge in small": SmolLM2-135M-Instruct on invented passages, one round; what the runs are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.experiment import SPENT, Experiment
from benchmarks.surrogate import contained
from seal_cli.recipe import load_recipe
from sealkit.config import RunConfig
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.resources import Trial

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs/knowledge_distilled.toml"
PASSAGES = ROOT / "configs/demo/passages.json"
MODEL = ROOT / ".seal/models/smollm2-135m-instruct"
TRIALS = (
    'dataset.path="demo/passages.json"',
    "dataset.held_out=0",
    "editor.sampling.max_tokens=128",
    "domain.options.max_questions=5",
    "domain.options.cues=0",
    "inner_loop.optimisation.epochs=8",
    "inner_loop.optimisation.batch_size=64",
    "inner_loop.anchors.per_step=0",
    "inner_loop.anchors.max_tokens=16",
    "evaluation.retention_limit=8",
    "evaluation.divergence=false",
)
"""What differs in a trial from `configs/knowledge_distilled.toml`: no cues, because the self-edit is to decide what is
learned; fewer questions, no anchors in the steps, and all examples in each of eight steps, which makes it cheaper. Not
fewer steps: with four or five little is learned (docs/results/LOG.md)."""
ROUNDS = (
    "rounds=1",
    "contexts_per_round=24",
    "editor.k=3",
    'selection.rule="positive"',
    "selection.must_beat_passage_only=true",
    'm_step.start_from="base"',
    "m_step.lora.rank=32",
    "m_step.lora.alpha=64",
    "m_step.optimisation.epochs=3",
    "m_step.optimisation.batch_size=4",
    'gate.held_out="not_worse"',
    "gate.max_forgetting=1.0",
)
"""Adapters are on the bare base model, so what θ forgets costs nothing and is only reported."""
_SCORING_ONLY = (
    "contexts_per_round=1",
    "editor.k=1",
    "passage_only=false",
    "selection.must_beat_passage_only=false",
    'selection.learn_from=["base"]',
    'gate.held_out="off"',
)
"""One trial of an E-step, of an editor that nothing is learned from; then the held-out passages."""
_ALONE = ("domain.options.passage_beside=false", "passage_only=false", "selection.must_beat_passage_only=false")
VARIANTS = {
    "rounds": (),
    "exam": (*_SCORING_ONLY, 'editor.arms=["exam"]'),
    "best_of": (*_SCORING_ONLY, "held_out.samples=3"),
    "alone": _ALONE,
    "exam_alone": (*_SCORING_ONLY, *_ALONE, 'editor.arms=["exam"]'),
    "taught": (
        *_ALONE,
        "contexts_per_round=32",
        "editor.k=1",
        'editor.arms=["policy", "exam"]',
        'selection.learn_from=["policy", "exam"]',
        'selection.rule="best_of_k"',
        "m_step.optimisation.learning_rate=1e-3",
        "evaluation.retention_limit=4",
    ),
}
"""By name: the rounds; the exam's own questions as the self-edit, a ceiling; more self-edits of θ_0, to choose from;
rounds and ceiling with the questions alone, without the passage, so that what is asked decides what is learned; and
rounds alone in which the questions that come with a train passage are tried too, as one more self-edit."""
LEARNS = ("rounds", "alone", "taught")
"""Those that have an M-step; the others only score."""
LABELS = {
    "rounds": "beside the passage",
    "exam": "the exam's questions",
    "best_of": "three self-edits of θ_0",
    "alone": "questions alone",
    "exam_alone": "the exam's questions alone",
    "taught": "questions alone, those of the train passages tried too",
}


def experiment(seed: int, variant: str, *, quick: bool) -> Experiment:
    """One run."""
    settings = (*TRIALS, *ROUNDS, *VARIANTS[variant], *(("contexts_per_round=1", "editor.k=2") if quick else ()))
    return on_passages("knowledge", seed, variant, settings, quick=quick)


def on_passages(table: str, seed: int, variant: str, settings: tuple[str, ...], *, quick: bool) -> Experiment:
    """A run on the demo's passages."""
    own = (f"seed={seed}", f'name="study-{table}-{variant}-{seed}"', *settings)
    recipe = load_recipe(CONFIG, dataset=None, limit=None, settings=own)
    records = few(recipe.records) if quick else recipe.records
    found = Found.of(recipe.config, records)
    return Experiment(
        table=table, seed=seed, variant=variant, config=recipe.config, records=records, more={**SPENT, "found": found}
    )


def few(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two passages to learn from and two held out."""
    return [record for split in ("train", "heldout") for record in [r for r in records if r["split"] == split][:2]]


@dataclass(frozen=True)
class Found:
    """The share of the exam's gold answers that the teacher's answers to a trial's self-edit contain; None without a
    teacher. `exams`: questions and gold answers by context id."""

    exams: Mapping[str, Sequence[tuple[str, str]]]

    @classmethod
    def of(cls, config: RunConfig, records: Sequence[dict[str, Any]]) -> Found:
        """For the passages of a run."""
        domain = KnowledgeDomain(config.domain.options, config.inner_loop)
        contexts = domain.contexts(records)
        return cls({c.context_id: [(q.question, q.gold) for q in domain.queries(c)] for c in contexts})

    def __call__(self, trial: Trial) -> float | None:
        if not trial.teacher_answers:
            return None
        return round(contained(self.exams[trial.context_id], "\n".join(trial.teacher_answers)), 3)


def quick_model(folder: Path) -> Path:
    """A tiny random model."""
    from sealkit.testing.tiny import make_tiny_model

    return make_tiny_model(folder, "llama", hidden=32, layers=2, vocab=512, context=1024)


def open_book(file: Path = ROOT / "docs/results/learning.json") -> dict[str, float]:
    """Accuracy of the teacher, the base model with the passage in its prompt, by context: as measured by
    `benchmarks.learning`, on some of the held-out passages."""
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {row["context"]: row["accuracy"] for row in rows if row["way"] == "open_book"}
