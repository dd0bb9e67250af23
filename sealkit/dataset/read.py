"""Reads a dataset's rows: finds its files, their format and their encoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sealkit.dataset.json_rows import is_lines, read_json, read_lines
from sealkit.dataset.rows import HELD_OUT_NAMES, TRAIN_NAMES, Format, Row
from sealkit.dataset.sources import Source, read_sources
from sealkit.dataset.tables import delimiter_of, read_csv, read_parquet
from sealkit.encoding import decode
from sealkit.errors import InvalidDataset

_NOT_DATA = (
    (b"PK\x03\x04", "a zip archive or an Office file; unpack it, or save the table as CSV"),
    (b"ARROW1", "an Arrow file; write it as Parquet or JSON lines instead"),
    (b"\xfd7zXZ", "compressed with xz; decompress it, or use gzip"),
    (b"BZh", "compressed with bzip2; decompress it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it, or use gzip"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV"),
    (b"\x80\x04", "a Python pickle, which is never opened here; write it as JSON lines"),
    (b"%PDF", "a PDF; a dataset holds passages with questions"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data; fetch the data with: git lfs pull"),
)
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_HELD_OUT, _TRAIN = (
    re.compile(rf"(?:^|[^a-z])(?:{'|'.join(names)})(?:[^a-z]|$)") for names in (HELD_OUT_NAMES, TRAIN_NAMES)
)


def read_rows(
    path: str, *, folder: Path = Path(), format: Format = "auto", encoding: str = ""
) -> tuple[list[Row], list[str]]:
    """The rows of a file, of a folder's files, of those that match a pattern (`squad/*.json`), or of a URL; and notices
    for the caller. `path` is relative to `folder`; files may be gzipped.

    If some of several files are named `train` and others `validation`, `dev` or `test`, rows of the latter that have no
    `split` get `heldout`. Raises InvalidDataset that names file and line; Unavailable if a URL does not answer or a
    package is missing.
    """
    rows: list[Row] = []
    notices: list[str] = []
    names: list[tuple[str, int]] = []
    for source in read_sources(path, folder):
        before = len(rows)
        rows += _rows_of(source, format, encoding, notices)
        names.append((source.name, len(rows) - before))
    if not rows:
        raise InvalidDataset(f"{names[0][0]}: empty; expected a list of records, or one record per line")
    return _with_splits(rows, names, notices), notices


def _rows_of(source: Source, format: Format, encoding: str, notices: list[str]) -> Iterator[Row]:
    name, raw = source
    if format == "parquet" or (format == "auto" and raw.startswith(b"PAR1")):
        yield from read_parquet(name, raw)
        return
    if fault := next((what for mark, what in _NOT_DATA if raw.startswith(mark)), ""):
        raise InvalidDataset(f"{name}: {fault}")
    if _HTML.match(raw):
        raise InvalidDataset(
            f"{name}: a web page, not data; give the address of the file itself (on Hugging Face and GitHub it has "
            "`resolve` or `raw` in the place of `blob`)"
        )
    try:
        decoded = decode(raw, encoding)
    except ValueError as error:
        raise InvalidDataset(f"{name}: {error}; set dataset.encoding if you know it") from error
    if decoded.guessed:
        notices.append(f"{name} was read as {decoded.encoding}, a guess; set dataset.encoding if it is another")
    yield from _parsed(name, decoded.text, format)


def _parsed(name: str, text: str, format: Format) -> Iterator[Row]:
    suffix = PurePosixPath(name).suffix.lower()
    bare = text.lstrip()
    if format == "auto":
        if bare.startswith(("{", "[")):
            lines = suffix in (".jsonl", ".ndjson") and not bare.startswith("[")
            format = "jsonl" if lines or is_lines(bare) else "json"
        elif suffix in (".json", ".jsonl", ".ndjson"):
            format = "jsonl"
        elif suffix in (".csv", ".tsv") or delimiter_of(bare) in bare.partition("\n")[0]:
            format = "tsv" if suffix == ".tsv" else "csv"
        elif bare:
            raise InvalidDataset(
                f"{name}, line 1: neither JSON nor a table: {bare[:60]!r}; expected a JSON list, JSON lines, CSV or "
                "Parquet. Name the format with --format if this is one of them"
            )
    if format == "json" and bare:
        yield from read_json(name, text)
    elif format in ("csv", "tsv"):
        yield from read_csv(name, text, "\t" if format == "tsv" else "")
    elif bare:
        yield from read_lines(name, text)


def _with_splits(rows: list[Row], names: list[tuple[str, int]], notices: list[str]) -> list[Row]:
    """The rows with `split` from their files' names, if the names tell two splits apart."""
    held_out = [(name, count, _is_held_out(name)) for name, count in names]
    if len({out for _, _, out in held_out}) < 2:
        return rows
    marked = [out for _, count, out in held_out for _ in range(count)]
    notices.append("held out by the names of their files: " + ", ".join(name for name, _, out in held_out if out))
    return [
        Row({**row.values, "split": "heldout"}, row.place) if out and row.values.get("split") is None else row
        for row, out in zip(rows, marked, strict=True)
    ]


def _is_held_out(name: str) -> bool:
    path = PurePosixPath(name)
    for part in (path.name.lower(), path.parent.name.lower()):
        if _TRAIN.search(part):
            return False
        if _HELD_OUT.search(part):
            return True
    return False
