"""SEAL's dataset format for passages: {title, context, questions: [{question, answer}]}, and optionally `split`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from sealkit import limits
from sealkit.domains.base import Context, record_path, refuse_faulty
from sealkit.golds import golds_of
from sealkit.types import digest_of

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500_000)]


class Question(BaseModel):
    """One question. Its gold answers are read by `golds_of`; without one, `answer` is empty."""

    # Datasets have ids and other fields of their own; unused ones are ignored.
    model_config = ConfigDict(frozen=True, extra="ignore")

    question: Text
    answer: Annotated[str, Field(max_length=10_000)]
    other_answers: tuple[Text, ...] = Field((), max_length=limits.OTHER_GOLDS)

    @model_validator(mode="before")
    @classmethod
    def _with_golds(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        first, *others = golds_of(raw) or ("",)
        return {**raw, "answer": first, "other_answers": others}


class Passage(BaseModel):
    """One record. Unknown keys are ignored, so that published datasets load as they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: Text
    context: LongText
    questions: tuple[Question, ...] = Field(max_length=10_000)
    split: Literal["train", "heldout"] = "train"
    largest_overlap: float | None = Field(None, exclude_if=lambda value: value is None)
    """Of a generated exam: the largest overlap of one of its facts with one that a self-edit studies."""

    @field_validator("split", mode="before")
    @classmethod
    def _default_split(cls, raw: Any) -> Any:
        return "train" if raw is None else raw

    @property
    def context_id(self) -> str:
        """Derives only from title and text, so that it is stable when records are added, dropped or reordered."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:48] or "passage"
        return f"{slug}-{digest_of(self.title, self.context)[:8]}"


def read_passages(records: Sequence[Mapping[str, Any]]) -> list[Context]:
    """Contexts of the records, in order, without the questions that have no answer. Raises InvalidDataset with every
    faulty field of every record."""
    faults: list[tuple[str, str]] = []
    contexts: dict[str, Context] = {}
    for number, record in enumerate(records):
        try:
            passage = Passage.model_validate(record)
        except ValidationError as error:
            faults += [(record_path(number, *e["loc"]), e["msg"]) for e in error.errors()]
            continue
        answerable = tuple(question for question in passage.questions if question.answer)
        if not answerable:
            faults.append((record_path(number, "questions"), "a passage needs at least one question with an answer"))
        elif passage.context_id in contexts:
            faults.append((record_path(number), f"duplicate passage: {passage.title!r}"))
        else:
            contexts[passage.context_id] = Context(
                context_id=passage.context_id,
                split=passage.split,
                payload=passage.model_copy(update={"questions": answerable}).model_dump(mode="json"),
            )
    refuse_faulty("dataset", faults)
    return list(contexts.values())
