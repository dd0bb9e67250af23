"""The texts of the trials: the base model's self-edits, the teacher's answers, the anchors. Sampled once and stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.ways import Way
from controller.rules.anchors import anchors_of, answering, bundled_anchors, draw
from sealkit.backends.base import Backend
from sealkit.config import AnchorsConfig
from sealkit.domains.base import Context, Study, study_of
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.types import Prompt, Sampling, TrainingExample, TrainingSpec, seed_of

WRITING = Sampling(temperature=0.7, top_p=0.95, max_tokens=160)
TEACHING = Sampling(temperature=0.0, max_tokens=18, stop=("\n",))
ANCHORS = AnchorsConfig(source="bundled", count=64, max_tokens=16)


class Material:
    """Texts by key, in one JSON file; missing ones are sampled from the backend."""

    def __init__(self, file: Path, backend: Backend) -> None:
        self._file, self._backend = file, backend
        self._texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    async def spec(self, way: Way, context: Context, seed: int) -> TrainingSpec:
        """A trial's spec for one epoch, without its anchors. Raises Rejected if the self-edit is not usable."""
        domain = way.domain
        if way.edit == "none":
            return domain.context_only(context, seed)
        if way.edit == "cues":
            alone = domain.context_only(context, seed)
            return alone.changed(examples=(*domain.cues(context, seed), *alone.examples))
        completion = await self.self_edit(way, domain, context, seed)
        study = study_of(domain, context, completion)
        if study is None:
            return domain.compile(context, completion, seed)
        return domain.teach(context, study, await self.answers(study), seed)

    async def self_edit(self, way: Way, domain: KnowledgeDomain, context: Context, seed: int) -> str:
        """The base model's self-edit on a passage; for the ceiling the held-out questions."""
        if way.edit == "exam":
            return "\n".join(query.question for query in domain.queries(context))
        sampling = WRITING.model_copy(update={"seed": seed_of("self-edit", way.edit, context.context_id, seed)})
        return (await self._texts_of([(domain.prompt(context), sampling)]))[0]

    async def answers(self, study: Study) -> list[str]:
        """The teacher's answers, greedy, with the passage in its prompt."""
        return await self._texts_of([(item.teacher_prompt, TEACHING) for item in study.items])

    async def anchors(self) -> tuple[TrainingExample, ...]:
        """The project's anchors with the base model's answers."""
        drawn = draw(bundled_anchors(), ANCHORS.count, 0)
        prompts = {record["id"]: Prompt(user=record["prompt"]) for record in drawn}
        texts = await self._texts_of([(prompt, answering(ANCHORS)) for prompt in prompts.values()])
        return anchors_of(prompts, dict(zip(prompts, texts, strict=True)))

    async def _texts_of(self, asked: Sequence[tuple[Prompt, Sampling]]) -> list[str]:
        keys = [
            json.dumps([prompt.model_dump(mode="json"), sampling.model_dump(mode="json")]) for prompt, sampling in asked
        ]
        missing = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in self._texts}
        found = await asyncio.gather(*(self._backend.generate(*pair) for pair in missing.values()))
        if found:
            self._texts.update({key: got.text for key, got in zip(missing, found, strict=True)})
            self._file.write_text(json.dumps(self._texts, ensure_ascii=False, indent=0), encoding="utf-8")
        return [self._texts[key] for key in keys]


def passages(file: Path, split: str, count: int) -> list[dict[str, Any]]:
    """The first records of a split."""
    records = json.loads(file.read_text(encoding="utf-8"))
    return [record for record in records if record["split"] == split][:count]
