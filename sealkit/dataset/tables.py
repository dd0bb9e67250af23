"""Tables as rows: CSV and its kin, and Parquet."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any

from sealkit.dataset.rows import Row
from sealkit.errors import InvalidDataset, Unavailable

_DELIMITERS = ",\t;|"


def delimiter_of(text: str) -> str:
    """The delimiter of a table with a header: the one that its first line has most of; a comma if it has none."""
    header = text.partition("\n")[0]
    return max(_DELIMITERS, key=header.count)


def read_csv(name: str, text: str, delimiter: str = "") -> Iterator[Row]:
    """The rows of a table with a header in its first line; its delimiter is found by `delimiter_of` unless given. All
    values are texts. Raises InvalidDataset with file and line."""
    csv.field_size_limit(sys.maxsize)  # 128 KiB by default, less than a long passage
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or delimiter_of(text), strict=True)
    line = 1
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if len(set(header)) < len(header):
            raise InvalidDataset(f"{name}, line 1: the header has a column twice, or two without a name: {header}")
        line = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise InvalidDataset(
                    f"{name}, line {line}: {len(cells)} cells, but the header has {len(header)}; put quotation marks "
                    "around a text with a delimiter, a line break or a quotation mark in it (which is doubled)"
                )
            if cells:
                yield Row(dict(zip(header, cells, strict=True)), f"{name}, line {line}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise InvalidDataset(f"{name}, line {line}: not a table ({error}); is a quotation mark not closed?") from error


def read_parquet(name: str, raw: bytes) -> Iterator[Row]:
    """The rows of a Parquet file. Raises InvalidDataset; Unavailable if pyarrow is not installed."""
    try:
        from pyarrow import ArrowException, BufferReader
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise Unavailable(
            f"{name}: Parquet files need the package pyarrow; install it with: pip install 'seal-suite[parquet]'"
        ) from error
    try:
        number = 0
        for batch in ParquetFile(BufferReader(raw)).iter_batches():
            values: dict[str, Any]
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{name}, row {number}")
    except (ArrowException, OSError, ValueError) as error:
        raise InvalidDataset(f"{name}: cannot be read as Parquet ({error})") from error
