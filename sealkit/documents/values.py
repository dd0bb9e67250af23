"""What is read of documents, as values."""

from __future__ import annotations

from sealkit.types import Value


class Passage(Value):
    """A part of a document, within one section unless sections are short. `headings`: those above it, the outermost
    first, without the document's title. `tokens`: length of `text`."""

    headings: tuple[str, ...]
    text: str
    tokens: int


class Document(Value):
    """A document that was read.

    `name` is what the caller calls it: a path, or the name given with bytes. `digest` is the SHA-256 of its bytes, and
    `text_digest` that of its words: a file that was converted or reformatted has another digest, but the same words.
    `encoding` is empty for formats that say it themselves; `notices` are sentences for the caller.
    """

    name: str
    title: str
    format: str
    digest: str
    text_digest: str
    encoding: str = ""
    passages: tuple[Passage, ...]
    notices: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all passages."""
        return sum(passage.tokens for passage in self.passages)


class Skipped(Value):
    """A document that was not read. `reason` is that of the error (`sealkit.errors`)."""

    name: str
    reason: str
    message: str


class DroppedPassage(Value):
    """A passage that says nothing that `of`, the name of a document before it (or the same one), does not say. Both are
    identified by name and headings. `similarity`: Jaccard index of their runs of three words, in [0, 1]."""

    name: str
    headings: tuple[str, ...]
    of: str
    of_headings: tuple[str, ...]
    similarity: float
    text: str


class Documents(Value):
    """All that was read, in the order of the sources, and what was not."""

    documents: tuple[Document, ...]
    skipped: tuple[Skipped, ...] = ()
    dropped: tuple[DroppedPassage, ...] = ()
