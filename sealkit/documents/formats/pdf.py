"""PDF: the text of its pages, joined to paragraphs. Headings are those of the outline; a PDF has no others."""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from pypdf import PdfReader
from pypdf.errors import FileNotDecryptedError, LimitReachedError, PyPdfError
from pypdf.generic import Destination

from sealkit.documents.blocks import Block, Parsed, clean
from sealkit.errors import DocumentWithoutText, EncryptedDocument, InvalidDocument, LimitExceeded

_DAMAGED = (
    PyPdfError, ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
    RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What pypdf raises on damaged files: it reads their objects without checking the types first."""
# Its warnings are about damage that it repairs.
logging.getLogger("pypdf").setLevel(logging.ERROR)
_REPEATS = 3
"""A line at the edge of at least so many pages, and of half of them unless it is a bare number, is a header or a
footer."""
_NUMBER = re.compile(r"\d+")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u2010]$")
_SENTENCE_END = re.compile(r"[.!?:;。！？][\"'”’»)\]]*$")
_ITEM = re.compile(r"(?:[•‣▪◦*–-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s")


def read_pdf(raw: bytes) -> Parsed:
    """Raises EncryptedDocument if it needs a password, DocumentWithoutText if no page has text (a scan), LimitExceeded
    if a stream is far larger unpacked, InvalidDocument if the file is damaged."""
    try:
        reader = PdfReader(io.BytesIO(raw))
        # Files that only forbid copying or printing open with the empty password.
        if reader.is_encrypted and not reader.decrypt(""):
            raise EncryptedDocument("needs a password; save it without one")
        pages = [clean(page.extract_text()) for page in reader.pages]
        title = clean((reader.metadata.title if reader.metadata else None) or "")
        outline = list(_outline(reader, reader.outline))
    except FileNotDecryptedError as error:
        raise EncryptedDocument("needs a password; save it without one") from error
    except LimitReachedError as error:
        raise LimitExceeded(f"is a PDF with parts that are too large when unpacked ({error})") from error
    except _DAMAGED as error:
        raise InvalidDocument(f"is a damaged PDF ({type(error).__name__}: {error}); print it to PDF again") from error
    empty = [number for number, text in enumerate(pages, start=1) if not any(map(str.isalnum, text))]
    if len(empty) == len(pages):
        raise DocumentWithoutText(
            f"has no text on its {len(pages)} page{'s' * (len(pages) != 1)}: a scan? Recognise the text first, for "
            "example with ocrmypdf"
        )
    lines = _without_repeated([page.split("\n") for page in pages])
    return Parsed(list(_blocks(lines, outline)), title, notices=_notices(empty, len(pages)))


def _notices(empty: Sequence[int], pages: int) -> list[str]:
    if not empty:
        return []
    shown = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
    return [f"{len(empty)} of {pages} pages have no text (scanned or empty): {shown}"]


def _outline(reader: PdfReader, entries: Any, level: int = 1) -> Iterator[tuple[int, str, int]]:
    """(page, title, level) of the outline's entries."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _outline(reader, entry, level + 1)
        elif isinstance(entry, Destination) and entry.title:
            page = reader.get_destination_page_number(entry)
            if page is not None and page >= 0:
                yield page, " ".join(clean(str(entry.title)).split()), level


def _without_repeated(pages: list[list[str]]) -> list[list[str]]:
    """The pages without headers, footers and page numbers: first and last lines that repeat, up to their numbers."""
    kept = pages
    for edge in (0, -1):
        for _ in range(2):  # a header may have two lines
            shapes = Counter(_shape(page[edge]) for page in kept if page)
            repeated = {
                shape
                for shape, count in shapes.items()
                if count >= _REPEATS and (shape == "0" or 2 * count >= len(pages))
            }
            kept = [
                (page[1:] if edge == 0 else page[:-1]) if page and _shape(page[edge]) in repeated else page
                for page in kept
            ]
    return kept


def _shape(line: str) -> str:
    return _NUMBER.sub("0", line.strip().casefold())


def _blocks(pages: Sequence[Sequence[str]], outline: Sequence[tuple[int, str, int]]) -> Iterator[Block]:
    """Paragraphs, over the ends of pages too, and the outline's headings where their lines are, or else before their
    page."""
    widths = [len(line) for page in pages for line in page if line]
    width = median(widths) if widths else 0
    paragraph: list[str] = []
    for number, page in enumerate(pages):
        headings = [(title, level) for at, title, level in outline if at == number]
        wanted = {_key(title): (title, level) for title, level in headings}
        there = {_key(line) for line in page}
        for key in [key for key in wanted if key not in there]:
            yield from _ended(paragraph)
            yield Block(*wanted.pop(key))
        for line in page:
            if heading := wanted.pop(_key(line), None):
                yield from _ended(paragraph)
                yield Block(*heading)
                continue
            if not line or _ITEM.match(line):
                yield from _ended(paragraph)
            if line:
                paragraph.append(line)
            if _SENTENCE_END.search(line) and len(line) < 0.8 * width:
                yield from _ended(paragraph)
    yield from _ended(paragraph)


def _ended(paragraph: list[str]) -> Iterator[Block]:
    """The paragraph of these lines, which are removed; a word that is split over two lines becomes one."""
    text = ""
    for line in paragraph:
        split_word = _HYPHEN.search(text) and line[:1].islower()
        text = text[:-1] + line if split_word else f"{text} {line}"
    paragraph.clear()
    if text:
        yield Block(text.strip(), part_of="list" if _ITEM.match(text.strip()) else "")


def _key(text: str) -> str:
    """A heading without its number, case and punctuation, to find its line."""
    return " ".join(re.findall(r"[^\W\d_]+", text.casefold())) or text.strip()
