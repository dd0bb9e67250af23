"""What is read of a dataset: rows, each with the place where an editor shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sealkit.errors import InvalidDataset, InvalidInput

Format = Literal["auto", "json", "jsonl", "csv", "tsv", "parquet"]
"""Format of a file; `auto`: by its first bytes, its name and its first line."""

TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("heldout", "validation", "valid", "val", "dev", "test", "eval", "evaluation")
"""What published datasets call the two splits of a run, in file names and in a column."""
_OF_RECORD = re.compile(r"records\[(\d+)\]\.?(.*)", re.DOTALL)
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, one line of JSON lines, or one entry of a JSON list.

    Attributes:
        values: Its values by key.
        place: File and line, counted from 1 as an editor counts.
    """

    values: dict[str, Any]
    place: str


@dataclass(frozen=True)
class Records:
    """The records to send, in the domain's format.

    Attributes:
        records: The records.
        places: For each record, where it begins.
        notices: What the caller should know, one sentence each: how the text was decoded, what was left out.
    """

    records: list[dict[str, Any]]
    places: list[str]
    notices: list[str] = field(default_factory=list)

    @classmethod
    def of_rows(cls, rows: Sequence[Row], notices: Sequence[str] = ()) -> Records:
        """The rows as they are."""
        return cls([row.values for row in rows], [row.place for row in rows], list(notices))

    def first(self, limit: int | None) -> Records:
        """The first `limit` records; None: all."""
        return Records(self.records[:limit], self.places[:limit], self.notices)

    def located(self, error: InvalidInput) -> InvalidInput:
        """The error with the place of each faulty record instead of its number, if its fields name records
        (`records[3].title`)."""
        found = [(_OF_RECORD.fullmatch(path), message) for path, message in error.fields]
        faults = [(self._place(int(match[1])), match[2], message) for match, message in found if match]
        if not faults:
            return error
        shown = "; ".join(
            f"{place}: {f'{path}: ' if path else ''}{message}" for place, path, message in faults[:_SHOWN]
        )
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return InvalidDataset(f"{shown}{more}", fields=error.fields)

    def _place(self, index: int) -> str:
        return self.places[index] if index < len(self.places) else f"record {index + 1}"


def keys_of(values: Mapping[str, Any]) -> str:
    """The keys of a row, for a message."""
    shown = [str(key)[:40] for key in list(values)[:12]]
    return ", ".join([*shown, *(["…"] if len(values) > len(shown) else [])]) or "none"
