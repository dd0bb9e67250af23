"""DOCX: the text as Word shows it with all changes accepted: insertions are in it, deletions are not."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

from docx import Document as open_docx
from docx.document import Document as DocxDocument
from docx.opc.exceptions import PackageNotFoundError
from docx.oxml.ns import qn
from docx.text.paragraph import Paragraph
from lxml import etree

from sealkit import limits
from sealkit.documents.blocks import Block, Parsed, clean
from sealkit.errors import InvalidDocument, LimitExceeded

_DAMAGED = (
    PackageNotFoundError, zipfile.BadZipFile, zlib.error, etree.LxmlError, AttributeError, EOFError, LookupError,
    NotImplementedError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What python-docx, zipfile and lxml raise on damaged files: they read parts without checking first what they are."""
_TEXT, _TAB, _BREAKS = qn("w:t"), qn("w:tab"), (qn("w:br"), qn("w:cr"))
_NOT_SHOWN = (
    qn("w:del"),
    qn("w:moveFrom"),
    qn("w:pPr"),  # tab stops
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",  # the same again, for old versions
)
_CONTENTS = "Table of Contents"


def read_docx(raw: bytes) -> Parsed:
    """Raises InvalidDocument if the file is damaged, LimitExceeded if it is far larger unpacked."""
    try:
        _check_unpacked(raw)
        document = open_docx(io.BytesIO(raw))
        title = clean(document.core_properties.title or "")
        blocks = list(_blocks(document, document.element.body))
    except _DAMAGED as error:
        raise InvalidDocument(f"is a damaged DOCX ({type(error).__name__}: {error}); save it again") from error
    return Parsed(blocks, title)


def _check_unpacked(raw: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        unpacked = sum(part.file_size for part in archive.infolist() if part.filename.endswith((".xml", ".rels")))
    if unpacked > limits.DOCUMENT_BYTES:
        raise LimitExceeded(
            f"is {unpacked >> 20} MiB of XML when unpacked; the limit is {limits.DOCUMENT_BYTES >> 20} MiB; split it",
            metadata={"limit": "document_bytes", "allowed": str(limits.DOCUMENT_BYTES), "asked": str(unpacked)},
        )


def _blocks(document: DocxDocument, parent: etree._Element) -> Iterator[Block]:
    """The paragraphs and rows of a body, in order; also those in content controls, which python-docx passes over."""
    for element in parent:
        if element.tag == qn("w:p"):
            yield from _paragraph(document, element)
        elif element.tag == qn("w:tbl"):
            for row in element.iter(qn("w:tr")):
                if text := " | ".join(filter(None, (_cell(cell) for cell in row.iter(qn("w:tc"))))):
                    yield Block(text, part_of="table")
        elif element.tag in (qn("w:sdt"), qn("w:customXml")) and not _is_contents(element):
            content = element.find(qn("w:sdtContent"))
            yield from _blocks(document, element if content is None else content)


def _paragraph(document: DocxDocument, element: etree._Element) -> Iterator[Block]:
    text = clean(_text(element))
    if not text:
        return
    style = Paragraph(element, document).style
    name = (style.name if style is not None else None) or ""
    if name == "Title" or name.startswith("Heading "):
        yield Block(" ".join(text.split()), int(name[-1]) if name[-1].isdigit() else 1)
    elif not name.lower().startswith("toc "):
        is_item = name.startswith("List") or element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
        yield Block(f"- {text}", part_of="list") if is_item else Block(text)


def _cell(cell: etree._Element) -> str:
    return clean(" ".join(_text(paragraph) for paragraph in cell.iter(qn("w:p"))))


def _text(paragraph: etree._Element) -> str:
    """The text of all runs that are shown, in fields, links, insertions and text boxes too."""
    parts: list[str] = []
    walker = etree.iterwalk(paragraph, events=("start",))
    for _, element in walker:
        if element.tag in _NOT_SHOWN:
            walker.skip_subtree()
        elif element.tag == _TEXT:
            parts.append(element.text or "")
        elif element.tag == _TAB:
            parts.append("\t")
        elif element.tag in _BREAKS:
            parts.append("\n")
    return "".join(parts)


def _is_contents(element: etree._Element) -> bool:
    """Whether a content control holds the table of contents."""
    return any(part.get(qn("w:val")) == _CONTENTS for part in element.iter(qn("w:docPartGallery")))
