"""Anchors against forgetting: prompts with the base model's own answers. Every training keeps the KL to the base model
low on them (`TrainingSpec.anchors`). They are drawn once per run, by seed, and never measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources

from sealkit.config import AnchorsConfig
from sealkit.types import Prompt, Sampling, TrainingExample, seed_of


def draw(records: Sequence[Mapping[str, str]], count: int, seed: int) -> list[dict[str, str]]:
    """At most `count` of the records {id, prompt}, drawn by seed and id, in their order."""
    order = sorted(records, key=lambda record: seed_of(seed, "anchors", record["id"]))
    drawn = {record["id"] for record in order[:count]}
    return [{"id": record["id"], "prompt": record["prompt"]} for record in records if record["id"] in drawn]


def bundled_anchors() -> list[dict[str, str]]:
    """The project's own general prompts: {id, kind, prompt}."""
    text = resources.files("sealkit.data").joinpath("anchors.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def answering(config: AnchorsConfig) -> Sampling:
    """Greedy sampling of the base model's answers."""
    return Sampling(temperature=0.0, max_tokens=config.max_tokens)


def anchors_of(prompts: Mapping[str, Prompt], answers: Mapping[str, str]) -> tuple[TrainingExample, ...]:
    """The anchors of a spec: each prompt with the base model's answer, by id; prompts without an answer are left
    out."""
    return tuple(
        TrainingExample(text=answers[name], prompt=prompt)
        for name, prompt in prompts.items()
        if answers.get(name, "").strip()
    )
