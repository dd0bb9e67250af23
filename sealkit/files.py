"""Files in the folders that people name."""

from __future__ import annotations

from pathlib import Path

RECORD_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Suffixes of files that hold records: a dataset's, and no documents."""


def visible_files(folder: Path) -> list[Path]:
    """The files in a folder and below, in the order of their names, without hidden ones and those in hidden folders."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
