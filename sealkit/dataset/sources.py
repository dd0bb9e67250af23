"""Where the bytes of a dataset are: a file, a folder, a pattern, a URL."""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from sealkit.errors import InvalidDataset, Unavailable
from sealkit.files import RECORD_SUFFIXES, visible_files

_METADATA = ("dataset_info.json", "dataset_dict.json", "state.json", "dataset_infos.json")
"""Files that the Hugging Face libraries put beside the data."""
_SECONDS = 60


class Source(NamedTuple):
    """The bytes of one file, decompressed, and its name for messages and for finding its format."""

    name: str
    raw: bytes


def is_url(path: str) -> bool:
    """Whether a path is a URL."""
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def read_sources(path: str, folder: Path) -> Iterator[Source]:
    """The files that `path` names, relative to `folder`, one after the other, in the order of their names. Raises
    InvalidDataset; Unavailable if a URL does not answer."""
    if is_url(path):
        yield _unpacked(_shown(path), _fetch(path))
        return
    for file in _files(folder / path):
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise InvalidDataset(f"{file}: cannot be read ({error.strerror})") from error
        yield _unpacked(str(file), raw)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and glob.has_magic(str(path)):
        # Path.glob takes no absolute pattern.
        named = glob.glob(str(path), recursive=True)  # noqa: PTH207
        if files := sorted(file for name in named if (file := Path(name)).is_file()):
            return files
        raise InvalidDataset(f"{path}: no file matches this pattern")
    return [path]


def _of_folder(folder: Path) -> list[Path]:
    files = [
        file
        for file in visible_files(folder)
        if file.name.removesuffix(".gz").endswith(RECORD_SUFFIXES) and file.name not in _METADATA
    ]
    if files:
        return files
    if next(folder.rglob("*.arrow"), None):
        raise InvalidDataset(
            f"{folder}: Arrow files, as `save_to_disk` writes them; write the dataset as Parquet or JSON lines instead "
            "(`to_parquet`, `to_json` of the package datasets)"
        )
    raise InvalidDataset(f"{folder}: a folder without a file that ends in {', '.join(RECORD_SUFFIXES)} (or .gz)")


def _fetch(url: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        return _fetch_by_fsspec(url)
    shown = _shown(url)
    try:
        with urlopen(Request(url, headers={"User-Agent": "seal"}), timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except HTTPError as error:
        raise InvalidDataset(f"{shown}: the server answers {error.code} {error.reason}") from error
    except (URLError, OSError, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise Unavailable(f"{shown}: cannot be fetched ({why})") from error
    return content


def _fetch_by_fsspec(url: str) -> bytes:
    """Any other URL (s3://, gs://, hf://), as far as fsspec and the package for its scheme are installed."""
    shown = _shown(url)
    try:
        import fsspec
    except ImportError as error:
        raise Unavailable(f"{shown}: URLs other than http(s) need the package fsspec") from error
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read()
    except FileNotFoundError as error:
        raise InvalidDataset(f"{shown}: there is no such file") from error
    except (ImportError, ValueError) as error:
        raise InvalidDataset(f"{shown}: cannot be opened ({error})") from error
    except OSError as error:
        raise Unavailable(f"{shown}: cannot be fetched ({error})") from error
    return content


def _shown(url: str) -> str:
    """A URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _unpacked(name: str, raw: bytes) -> Source:
    if not raw.startswith(b"\x1f\x8b"):
        return Source(name, raw)
    try:
        return Source(name.removesuffix(".gz"), gzip.decompress(raw))
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidDataset(f"{name}: a gzip file that is cut off or damaged ({error}); fetch it again") from error
