"""Reads documents, splits them into passages and leaves out what comes twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import PurePath

from sealkit.documents.duplicates import SeenTexts, words_digest
from sealkit.documents.formats import format_of, reader_of
from sealkit.documents.sources import Source
from sealkit.documents.split import Splitting, Tokens, split
from sealkit.documents.values import Document, Documents, DroppedPassage, Passage, Skipped
from sealkit.errors import DuplicateDocument, EmptyDocument, SealError

_Place = tuple[str, tuple[str, ...]]
"""Name of a document, and headings of a passage."""


def read_documents(sources: Iterable[Source], *, tokens: Tokens, splitting: Splitting | None = None) -> Documents:
    """The documents of the sources, in their order, as passages of at most `splitting.most` tokens.

    A document that cannot be read, is empty or says nothing new is in `skipped` with the reason; the others are read
    all the same. A passage that says nothing new is in `dropped`. No fault of a document is raised.
    """
    reading = _Reading(tokens, splitting or Splitting())
    for source in sources:
        try:
            reading.add(source)
        except SealError as error:
            skipped = Skipped(name=source.name, reason=error.reason, message=f"{source.name}: {error.message}")
            reading.skipped.append(skipped)
    return Documents(documents=tuple(reading.documents), skipped=tuple(reading.skipped), dropped=tuple(reading.dropped))


class _Reading:
    def __init__(self, tokens: Tokens, splitting: Splitting) -> None:
        self._tokens = tokens
        self._splitting = splitting
        self._texts: SeenTexts[_Place] = SeenTexts()
        self._by_words: dict[str, str] = {}
        self.documents: list[Document] = []
        self.skipped: list[Skipped] = []
        self.dropped: list[DroppedPassage] = []

    def add(self, source: Source) -> None:
        """Adds a document. Raises SealError if it is not added."""
        raw = source.load()
        if not raw.strip():
            raise EmptyDocument("is empty")
        format = format_of(source.name, raw)
        parsed = reader_of(format)(raw)
        outermost = [block.text for block in parsed.blocks if block.level == 1]
        title = parsed.title or (outermost[0] if len(outermost) == 1 else "")
        passages = split(parsed.blocks, self._tokens, self._splitting, title=title)
        if not any(character.isalnum() for passage in passages for character in passage.text):
            raise EmptyDocument("has no text")
        words = words_digest(passage.text for passage in passages)
        if words in self._by_words:
            raise DuplicateDocument(f"has the same text as {self._by_words[words]}")
        self._by_words[words] = source.name
        document = Document(
            name=source.name,
            title=title or PurePath(source.name).stem,
            format=format,
            digest=hashlib.sha256(raw).hexdigest(),
            text_digest=words,
            encoding=parsed.encoding,
            passages=tuple(passage for passage in passages if self._is_new(source.name, passage)),
            notices=tuple(parsed.notices),
        )
        if not document.passages:
            raise DuplicateDocument("says nothing that the documents before it do not say")
        self.documents.append(document)

    def _is_new(self, name: str, passage: Passage) -> bool:
        """Whether a passage says something new; if not, it is noted as dropped."""
        twin = self._texts.add(passage.text, (name, passage.headings))
        if twin is None:
            return True
        of, of_headings = twin.item
        self.dropped.append(
            DroppedPassage(
                name=name,
                headings=passage.headings,
                of=of,
                of_headings=of_headings,
                similarity=twin.similarity,
                text=passage.text,
            )
        )
        return False
