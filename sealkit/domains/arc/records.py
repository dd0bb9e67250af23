"""ARC tasks as records: {id, train: [{input, output}], test: [{input, output}], split}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sealkit.domains.arc.grids import Pair, make_grid
from sealkit.domains.base import Context, record_path, refuse_faulty


def _checked(rows: list[list[int]]) -> list[list[int]]:
    make_grid(rows)
    return rows


Rows = Annotated[list[list[Annotated[int, Field(strict=True)]]], AfterValidator(_checked)]


class PairRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    input: Rows
    output: Rows

    def pair(self) -> Pair:
        """As grids."""
        return Pair(make_grid(self.input), make_grid(self.output))


class TaskRecord(BaseModel):
    """One record. Unknown keys are ignored, so that published tasks load as they are."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(min_length=1, max_length=200)
    # Published tasks have ten at most; the number of training tasks grows with n cubed.
    train: tuple[PairRecord, ...] = Field(min_length=1, max_length=20)
    test: tuple[PairRecord, ...] = Field(min_length=1, max_length=20)
    split: Literal["train", "heldout"] = "train"

    @property
    def demonstrations(self) -> tuple[Pair, ...]:
        """The demonstrations."""
        return tuple(record.pair() for record in self.train)


def read_tasks(records: Sequence[Mapping[str, Any]]) -> list[Context]:
    """Contexts of the records, in order, named by their ids. Raises InvalidDataset with every faulty field."""
    faults: list[tuple[str, str]] = []
    contexts: dict[str, Context] = {}
    for number, record in enumerate(records):
        try:
            task = TaskRecord.model_validate(record)
        except ValidationError as error:
            faults += [(record_path(number, *e["loc"]), e["msg"]) for e in error.errors()]
            continue
        if task.id in contexts:
            faults.append((record_path(number, "id"), f"the task {task.id!r} is a duplicate"))
        contexts[task.id] = Context(context_id=task.id, split=task.split, payload=task.model_dump(mode="json"))
    refuse_faulty("ARC tasks", faults)
    return list(contexts.values())
