"""Documents in: files of text, Markdown, HTML, PDF and DOCX as passages to learn from. Needs the extra `documents`.

    found = read_documents(sources_of(["notes/", "report.pdf"]), tokens=count)
    for document in found.documents:
        print(document.name, len(document.passages))
    for skipped in found.skipped:
        print(skipped.name, skipped.reason, skipped.message)

A document that cannot be read is named in `skipped`; the others are read all the same.
"""

from sealkit.documents.read import read_documents
from sealkit.documents.sources import Source, source_of_bytes, source_of_stdin, sources_of
from sealkit.documents.split import Splitting
from sealkit.documents.values import Document, Documents, DroppedPassage, Passage, Skipped

__all__ = [
    "Document",
    "Documents",
    "DroppedPassage",
    "Passage",
    "Skipped",
    "Source",
    "Splitting",
    "read_documents",
    "source_of_bytes",
    "source_of_stdin",
    "sources_of",
]
