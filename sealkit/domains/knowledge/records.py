"""SEAL's dataset format for passages: {title, context, questions: [{question, answer}]}, and optionally `split`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sealkit.domains.base import Context
from sealkit.errors import InvalidDataset
from sealkit.types import digest_of

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500_000)]


class Question(BaseModel):
    # Datasets have ids and other fields of their own; unused ones are ignored.
    model_config = ConfigDict(frozen=True, extra="ignore")

    question: Text
    answer: Text


class Passage(BaseModel):
    """One record. Unknown keys are ignored, so that published datasets load as they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: Text
    context: LongText
    questions: tuple[Question, ...] = Field(max_length=10_000)
    split: Literal["train", "heldout"] = "train"

    @property
    def context_id(self) -> str:
        """Derives only from title and text, so that it is stable when records are added, dropped or reordered."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:48] or "passage"
        return f"{slug}-{digest_of(self.title, self.context)[:8]}"


def read_passages(records: Sequence[Mapping[str, Any]]) -> list[Context]:
    """Contexts of the records, in order. Raises InvalidDataset with every faulty field of every record."""
    faults: list[tuple[str, str]] = []
    contexts: dict[str, Context] = {}
    for number, record in enumerate(records):
        try:
            passage = Passage.model_validate(record)
        except ValidationError as error:
            faults += [(".".join(str(part) for part in (number, *e["loc"])), e["msg"]) for e in error.errors()]
            continue
        if not passage.questions:
            faults.append((f"{number}.questions", "a passage needs at least one question"))
        elif passage.context_id in contexts:
            faults.append((str(number), f"duplicate passage: {passage.title!r}"))
        else:
            contexts[passage.context_id] = Context(
                context_id=passage.context_id, split=passage.split, payload=passage.model_dump(mode="json")
            )
    if faults:
        shown = "; ".join(f"record {path}: {message}" for path, message in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InvalidDataset(f"faulty dataset: {shown}{more}", fields=tuple(faults))
    return list(contexts.values())
