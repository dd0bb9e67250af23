"""The formats of documents: how each is recognised, and its reader. A new one is a file and a line in `_READERS`."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath

from sealkit.documents.blocks import Parsed
from sealkit.errors import EncryptedDocument, InvalidDocument, Unavailable
from sealkit.files import RECORD_SUFFIXES

Reader = Callable[[bytes], Parsed]
"""Reads a document's bytes. Raises InvalidDocument and its subclasses, without the document's name."""

_READERS = {
    "docx": ("sealkit.documents.formats.docx", "read_docx"),
    "html": ("sealkit.documents.formats.html", "read_html"),
    "markdown": ("sealkit.documents.formats.markdown", "read_markdown"),
    "pdf": ("sealkit.documents.formats.pdf", "read_pdf"),
    "text": ("sealkit.documents.formats.text", "read_text"),
}
"""Module and function of each; a module is imported when it is needed, because its packages may not be installed."""

_SUFFIXES = {
    ".docx": "docx",
    ".htm": "html",
    ".html": "html",
    ".markdown": "markdown",
    ".md": "markdown",
    ".pdf": "pdf",
    ".xhtml": "html",
}
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.S
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OTHERS = (
    (b"{\\rtf", "RTF; save it as DOCX or PDF"),
    (b"%!PS", "PostScript; convert it to PDF"),
    (b"\x89PNG", "an image; text in it needs OCR first"),
    (b"\xff\xd8\xff", "an image; text in it needs OCR first"),
    (b"GIF8", "an image; text in it needs OCR first"),
    (b"\x1f\x8b", "compressed with gzip; decompress it"),
    (b"Rar!", "an archive; unpack it"),
    (b"7z\xbc\xaf", "an archive; unpack it"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer, not the document; fetch it with: git lfs pull"),
)
_ZIPPED = (
    ("xl/workbook.xml", "a spreadsheet; export its tables as text, or as a dataset in CSV"),
    ("ppt/presentation.xml", "a presentation; save it as PDF"),
    ("META-INF/container.xml", "an EPUB; convert it to HTML or DOCX"),
    ("content.xml", "an OpenDocument file; save it as DOCX or PDF"),
)


def format_of(name: str, raw: bytes) -> str:
    """The format of a document, by its first bytes and else by its name; `text` if neither says. Raises InvalidDocument
    that says what it is instead; EncryptedDocument for an Office file with a password."""
    if raw.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in raw:
            raise EncryptedDocument("needs a password; save it without one")
        raise InvalidDocument("an Office file of before 2007 (.doc, .xls, .ppt); save it as DOCX or PDF")
    if what := next((what for mark, what in _OTHERS if raw.startswith(mark)), ""):
        raise InvalidDocument(f"is {what}")
    if b"%PDF-" in raw[:1024]:
        return "pdf"
    if raw.startswith(b"PK\x03\x04"):
        return _zipped(raw)
    suffix = PurePath(name).suffix.lower()
    if suffix in RECORD_SUFFIXES:
        raise InvalidDocument(f"is a file of records ({suffix}), not a document; a dataset is given with --dataset")
    by_name = _SUFFIXES.get(suffix, "text")
    if by_name in ("pdf", "docx"):
        raise InvalidDocument(f"is named {suffix}, but is no such file: it begins with {raw[:8]!r}; fetch it again")
    return "html" if by_name == "text" and _HTML.match(raw[:4096]) else by_name


def reader_of(format: str) -> Reader:
    """The reader of a format. Raises Unavailable if its package is not installed."""
    module, function = _READERS[format]
    try:
        reader: Reader = getattr(import_module(module), function)
    except ImportError as error:
        raise Unavailable(
            f"{format} needs the package {error.name}; install it with: pip install 'seal-suite[documents]'"
        ) from error
    return reader


def _zipped(raw: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = set(archive.namelist())
    # What zipfile raises for a damaged index, for names that are not text, and for later versions of the format.
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise InvalidDocument(f"is a DOCX or another zip file that is damaged ({error}); fetch it again") from error
    if "word/document.xml" in names:
        return "docx"
    raise InvalidDocument(f"is {next((what for part, what in _ZIPPED if part in names), 'a zip archive; unpack it')}")
