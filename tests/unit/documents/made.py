"""Documents in binary formats, made by the formats' own libraries."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from docx import Document as DocxDocument
from docx import Document as new_docx
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject


def pdf(
    *pages: Sequence[str],
    outline: Sequence[tuple[str, int]] = (),
    password: str = "",
    owner_password: str = "",
    title: str = "",
) -> bytes:
    """A PDF with these lines on its pages; a page without lines has no text, like a scanned one. `outline`: (title,
    page)."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
            NameObject("/Encoding"): NameObject("/WinAnsiEncoding"),
        }
    )
    for lines in pages:
        page = writer.add_blank_page(width=612, height=792)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        stream = DecodedStreamObject()
        shown = (line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") for line in lines)
        drawn = "".join(f"({line}) Tj 0 -14 Td\n" for line in shown)
        stream.set_data(f"BT /F1 11 Tf 72 720 Td\n{drawn}ET".encode("cp1252"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    for name, page_number in outline:
        writer.add_outline_item(title=name, page_number=page_number)
    if title:
        writer.add_metadata({"/Title": title})
    if password or owner_password:
        writer.encrypt(password, owner_password or None, algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx(write: Callable[[DocxDocument], object]) -> bytes:  # type: ignore[valid-type]
    """A DOCX with what `write` writes."""
    document = new_docx()
    document.core_properties.title = ""
    write(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()
