"""Where documents come from: files, folders, standard input, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sealkit import limits
from sealkit.errors import InvalidDocument, LimitExceeded
from sealkit.files import visible_files

STDIN = "-"
"""The path that means standard input."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document before it is read. `load` returns its bytes, and raises InvalidDocument or LimitExceeded, without its
    name in the message."""

    name: str
    load: Callable[[], bytes]


def sources_of(paths: Iterable[str], stdin: BinaryIO | None = None) -> Iterator[Source]:
    """The sources of files, of all files in folders and below (hidden ones left out, in the order of their names), and
    of `-`, which is `stdin`. A path that does not exist is a source too, which cannot be loaded."""
    for path in paths:
        if path == STDIN and stdin is not None:
            yield source_of_stdin(stdin)
        elif Path(path).is_dir():
            yield from _of_folder(Path(path))
        else:
            yield _of_file(Path(path))


def source_of_bytes(name: str, raw: bytes) -> Source:
    """A document in memory. The name's suffix helps to find its format."""

    def load() -> bytes:
        _check_size(len(raw))
        return raw

    return Source(name, load)


def source_of_stdin(stream: BinaryIO, name: str = "standard input") -> Source:
    """The document on a stream, which is read once, when it is loaded."""

    def load() -> bytes:
        raw = stream.read(limits.DOCUMENT_BYTES + 1)
        _check_size(len(raw))
        return raw

    return Source(name, load)


def _of_folder(folder: Path) -> Iterator[Source]:
    if files := visible_files(folder):
        yield from map(_of_file, files)
    else:
        yield Source(str(folder), lambda: _refuse("is a folder without a file"))


def _of_file(path: Path) -> Source:
    def load() -> bytes:
        try:
            _check_size(path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise InvalidDocument(f"cannot be read ({error.strerror})") from error

    return Source(str(path), load)


def _check_size(size: int) -> None:
    if size > limits.DOCUMENT_BYTES:
        raise LimitExceeded(
            f"is larger than the limit of {limits.DOCUMENT_BYTES >> 20} MiB for a document; split it",
            metadata={"limit": "document_bytes", "allowed": str(limits.DOCUMENT_BYTES), "asked": str(size)},
        )


def _refuse(message: str) -> bytes:
    raise InvalidDocument(message)
