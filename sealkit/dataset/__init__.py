"""Datasets as people have them: files, folders and URLs of JSON, JSON lines, CSV or Parquet, and sources of plug-ins.
Client side only; the controller receives records."""

from sealkit.dataset.plugins import DatasetReader, dataset_reader, dataset_schemes
from sealkit.dataset.read import read_rows
from sealkit.dataset.rows import Format, Records, Row
from sealkit.dataset.sources import is_url

__all__ = [
    "DatasetReader",
    "Format",
    "Records",
    "Row",
    "dataset_reader",
    "dataset_schemes",
    "is_url",
    "read_rows",
]
