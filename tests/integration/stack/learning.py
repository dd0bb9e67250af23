"""A domain that learns documents with a random model, in seconds. `SEAL_CONTROLLER_DOMAIN_PLUGINS` names it.

Each sentence of a passage is a question of its exam. The gold answer is what the model says to it with the passage in
its prompt: noise, but the same at every time, and other noise than without the passage. Every self-edit trains on the
sentences with these answers, so a document of the retention suite's questions wrecks a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context, ExamItem
from sealkit.errors import InvalidDataset
from sealkit.types import Prompt, Query, Sampling, TrainingExample, TrainingSpec, digest_of

PLUGIN = f"{__name__}:Sentences"
CONFIG = f"""
name = "sentences"
task = "adapt"
passage_only = false
domain = {{ name = "{PLUGIN}" }}
documents = {{ least = 0 }}
editor = {{ k = 2, arms = ["base"], sampling = {{ max_tokens = 4 }} }}
exam = {{ samples = 0, questions = 8, least = 1, answering = {{ temperature = 0.0, max_tokens = 2 }} }}
evaluation = {{ sampling = {{ temperature = 0.0, max_tokens = 2 }}, retention_limit = 0 }}
selection = {{ learn_from = ["base"], must_beat_passage_only = false }}
held_out = {{ samples = 0 }}
gate = {{ max_forgetting = 0.25 }}
[inner_loop]
lora = {{ rank = 8, alpha = 16 }}
optimisation = {{ learning_rate = 2e-3, epochs = 20 }}
"""
LAKE = (
    "How deep is Lake Ombrel? Which moss colours the water of Ombrel? Who keeps the boat on Ombrel? "
    "Where does Ombrel freeze first? What lives in Ombrel?"
)
INN = (
    "When was the inn at Valdrach built? Who built the inn of Valdrach? When did Valdrach burn down? "
    "Which room of Valdrach is haunted? What does a night in Valdrach cost?"
)
"""Every sentence has a rare word, by which a routed version finds the passage."""
GREEDY = Sampling(temperature=0.0, max_tokens=2)
"""As the exam's and the evaluation's."""


class Sentences:
    """A context is a passage: its text, and the questions and answers of its exam."""

    name = "sentences"
    version = "1"
    judge = "exact"
    completion_schema = ""

    def __init__(self, options: Mapping[str, Any], inner_loop: InnerLoopConfig) -> None:
        self._inner_loop = inner_loop

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        if records:
            raise InvalidDataset("it learns documents only")
        return []

    def prompt(self, context: Context) -> Prompt:
        return Prompt(user=context.payload["text"])

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        examples = [
            TrainingExample(text=answer, prompt=Prompt(user=sentence)) for sentence, answer in context.payload["exam"]
        ]
        inner = self._inner_loop
        return TrainingSpec(examples=tuple(examples), lora=inner.lora, optimisation=inner.optimisation, seed=seed)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        return self.compile(context, "", seed)

    def queries(self, context: Context) -> list[Query]:
        return [
            Query(query_id=f"{context.context_id}/{i}", question=sentence, gold=gold, prompt=Prompt(user=sentence))
            for i, (sentence, gold) in enumerate(context.payload["exam"])
        ]

    def ready_made(self, context: Context) -> Mapping[str, str]:
        return {}

    # --- documents ----------------------------------------------------------------------------------------------------
    def of_passage(self, title: str, headings: Sequence[str], text: str) -> Context:
        name = f"passage-{digest_of(text)[:16]}"
        return Context(context_id=name, split="train", payload={"text": text, "exam": []}, generated=True)

    def passage_text(self, context: Context) -> str:
        return str(context.payload["text"])

    def exam_prompt(self, context: Context) -> Prompt:
        return self.prompt(context)

    def exam_items(self, context: Context, completions: Sequence[str]) -> list[ExamItem]:
        text = context.payload["text"]
        sentences = re.findall(r"[^.?\n]+[.?]", text)
        return [
            ExamItem(question=one, prompt=Prompt(user=one), open_book=Prompt(user=f"{text}\n{one}"))
            for one in dict.fromkeys(map(str.strip, sentences))
        ]

    def exam_blanks(self, context: Context) -> list[ExamItem]:
        return []

    def exam_fault(self, context: Context, question: str, answer: str) -> str:
        return "" if answer else "it has no answer"

    def overlap(self, context: Context, one: tuple[str, str], other: tuple[str, str]) -> float:
        return float(one[0] == other[0])

    def with_exam(self, context: Context, exam: Sequence[tuple[str, str]], overlap: float) -> Context:
        return context.changed(payload={**context.payload, "exam": [list(fact) for fact in exam]})
