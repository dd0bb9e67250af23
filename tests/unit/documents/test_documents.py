"""Documents as people have them: what is read of each, what is not and why."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from hypothesis import given, settings
from hypothesis import strategies as st

from sealkit import limits
from sealkit.backends.tokens import token_counter
from sealkit.documents import Documents, Splitting, read_documents, source_of_bytes, source_of_stdin, sources_of
from sealkit.documents.blocks import Block
from sealkit.documents.formats import format_of, reader_of
from sealkit.documents.split import split
from sealkit.errors import SealError
from sealkit.testing.tiny import make_tiny_tokenizer
from tests.unit.documents.made import docx, pdf

LAKE = "Lake Ombrel lies in the Tavik highlands. Its amber water is coloured by a moss called sennet."
INN = "The inn at Cold Ferry was built in 1842 by Nora Birk, and burnt down in 1901."


def words(text: str) -> int:
    return len(text.split())


def read(*named: tuple[str, bytes], **how: Any) -> Documents:
    sources = [source_of_bytes(name, raw) for name, raw in named]
    return read_documents(sources, tokens=words, splitting=Splitting(**{"least": 0, **how}))


def texts(raw: bytes, name: str) -> list[tuple[tuple[str, ...], str]]:
    (document,) = read((name, raw)).documents
    return [(passage.headings, passage.text) for passage in document.passages]


MARKDOWN = f"""---
title: "Waters"
---
# Lakes

{LAKE}

## Moss

* sennet, *amber*
* [bog moss](http://example.org)

| name | year |
|---|---|
| Ombrel | 1842 |

```
depth = 12
```

Inns
====
{INN}
<!-- not shown -->
"""
HTML = f"""<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html><html><head><title>Waters</title><style>p {{ color: red }}</style></head><body>
<header>Log in</header><nav><a href="/">Home</a></nav><script>alert("{LAKE}")</script>
<form action="/page"><main><h1>Lakes</h1><p>{LAKE.replace(" in ", " in<br>")}</p>
<h2>Moss</h2><ul><li>sennet, <em>amber</em><li><p>bog&nbsp;moss</p></ul>
<table><tr><th>name</th><th>year</th></tr><tr><td>Ombrel</td><td>1842</td></tr></table>
<pre>depth = 12</pre><p hidden>Not shown.</p><div style="display: none">Nor this.</div>
<h1>Inns</h1>{INN}<!-- a comment --></main></form>
<footer>Imprint</footer></body></html>"""
STRUCTURE = [
    (("Lakes",), LAKE),
    (("Lakes", "Moss"), "- sennet, amber\n- bog moss\n\nname | year\nOmbrel | 1842\n\ndepth = 12"),
    (("Inns",), INN),
]


def test_markdown_and_html_say_the_same() -> None:
    assert texts(MARKDOWN.encode(), "waters.md") == STRUCTURE
    got = texts(HTML.encode(), "waters.html")
    assert got == [(STRUCTURE[0][0], LAKE.replace(" in ", " in\n")), *STRUCTURE[1:]]
    assert texts(HTML.encode(), "page") == got  # found by looking
    both = read(("a.md", MARKDOWN.encode()), ("b.html", HTML.encode()))
    assert [(d.name, d.title, d.format) for d in both.documents] == [("a.md", "Waters", "markdown")]
    assert [(s.name, s.reason) for s in both.skipped] == [("b.html", "DUPLICATE_DOCUMENT")]


def test_docx_is_read_with_its_changes_accepted_and_its_content_controls() -> None:
    def write(document: Any) -> None:
        document.add_heading("Waters", level=0)
        document.add_heading("Lakes", level=1)
        paragraph = document.add_paragraph("Lake Ombrel lies ")
        paragraph._p.append(
            parse_xml(f"<w:ins {nsdecls('w')} w:id='1'><w:r><w:t>in the highlands.</w:t></w:r></w:ins>")
        )
        paragraph._p.append(
            parse_xml(f"<w:del {nsdecls('w')} w:id='2'><w:r><w:delText>in a cave.</w:delText></w:r></w:del>")
        )
        document.add_paragraph("sennet", style="List Bullet")
        table = document.add_table(rows=1, cols=2)
        table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Ombrel", "1842"
        control = "<w:sdt {0}><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        document.element.body.insert(-1, parse_xml(control.format(nsdecls("w"))))

    assert texts(docx(write), "waters.docx") == [
        (("Lakes",), "Lake Ombrel lies in the highlands.\n\n- sennet\n\nOmbrel | 1842\n\nIn a control.")
    ]


def test_a_pdf_has_its_outlines_headings_and_no_page_headers() -> None:
    pages = [
        ["Waters of Tavik", "1 Lakes", "Lake Ombrel lies in the Tavik highlands. Its am-", "ber water is coloured by a",
         "moss called sennet.", "1"],
        ["Waters of Tavik", "The inn at Cold Ferry was built in 1842 by Nora Birk, and", "2"],
        ["Waters of Tavik", "burnt down in 1901.", "3"],
    ]  # fmt: skip
    outline = [("Preface", 0), ("1 Lakes", 0), ("Inns", 1)]
    (document,) = read(("w.pdf", pdf(*pages, outline=outline, title="Waters"))).documents
    assert document.title == "Waters"
    assert [(passage.headings, passage.text) for passage in document.passages] == [
        (("1 Lakes",), LAKE),
        (("Inns",), INN),
    ]
    partly = read(("w.pdf", pdf(pages[0], [], []))).documents[0]
    assert partly.notices == ("2 of 3 pages have no text (scanned or empty): 2, 3",)


def test_plain_text_in_any_encoding() -> None:
    text = f"Lakes\n=====\n{LAKE}\n\n\n{INN}\nIt was called «café».\n"
    for encoding, guessed in (("utf-8", False), ("utf-16", False), ("utf-8-sig", False), ("cp1252", True)):
        (document,) = read(("x.txt", text.replace("\n", "\r\n").encode(encoding))).documents
        assert [passage.text for passage in document.passages] == [f"{LAKE}\n\n{INN}\nIt was called «café»."], encoding
        assert (document.title, document.encoding) == ("Lakes", encoding)
        assert bool(document.notices) is guessed
    for short in ("El niño comió una piña.", "São Paulo é uma cidade.", "Øresund ligger ved Ålborg."):
        (document,) = read(("x.txt", short.encode("cp1252"))).documents
        assert (document.passages[0].text, document.encoding) == (short, "cp1252")
    declared = "<html><meta charset=windows-1251><p>Озеро Омбрель лежит в горах.".encode("cp1251")
    assert texts(declared, "x.html") == [((), "Озеро Омбрель лежит в горах.")]


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, b"x")
    return out.getvalue()


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * (limits.DOCUMENT_BYTES + 1))
    return out.getvalue()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
REFUSED: list[tuple[str, bytes, str, str]] = [
    ("scan.pdf", pdf([], []), "DOCUMENT_WITHOUT_TEXT", "no text on its 2 pages: a scan"),
    ("locked.pdf", pdf(["Secret."], password="open"), "ENCRYPTED_DOCUMENT", "needs a password"),
    ("locked.docx", OLE + "EncryptedPackage".encode("utf-16-le"), "ENCRYPTED_DOCUMENT", "needs a password"),
    ("old.doc", OLE + b"WordDocument", "INVALID_DOCUMENT", "before 2007"),
    ("cut.pdf", pdf(["Text."])[:90], "INVALID_DOCUMENT", "damaged PDF"),
    ("no.pdf", b"Not found", "INVALID_DOCUMENT", "no such file: it begins with b'Not foun'"),
    ("cut.docx", docx(lambda d: d.add_paragraph("Text."))[:900], "INVALID_DOCUMENT", "damaged"),
    ("half.docx", zipped("word/document.xml"), "INVALID_DOCUMENT", "damaged DOCX"),
    ("bomb.docx", bomb(), "LIMIT_EXCEEDED", "when unpacked"),
    ("sheet.xlsx", zipped("xl/workbook.xml"), "INVALID_DOCUMENT", "a spreadsheet"),
    ("book.epub", zipped("META-INF/container.xml"), "INVALID_DOCUMENT", "an EPUB"),
    ("some.zip", zipped("a.txt"), "INVALID_DOCUMENT", "unpack it"),
    ("photo.png", b"\x89PNG\r\n", "INVALID_DOCUMENT", "OCR"),
    ("notes.rtf", b"{\\rtf1 text}", "INVALID_DOCUMENT", "RTF"),
    ("data.jsonl", b"{}", "INVALID_DOCUMENT", "a dataset is given with --dataset"),
    ("lfs.md", b"version https://git-lfs.github.com/spec/v1\n", "INVALID_DOCUMENT", "git lfs pull"),
    (
        "deep.html",
        b"<div>" * 3000 + b"bottom",
        "INVALID_DOCUMENT",
        "read to its end (excessive depth in document: 2048)",
    ),
    ("raw.txt", bytes(range(256)) * 9, "INVALID_DOCUMENT", "not a text"),
    ("empty.txt", b"", "EMPTY_DOCUMENT", "is empty"),
    ("blank.md", b" \n\n", "EMPTY_DOCUMENT", "is empty"),
    ("blank.html", b"<html><body><script>1</script></body></html>", "EMPTY_DOCUMENT", "has no text"),
    ("marks.txt", b"* * *", "EMPTY_DOCUMENT", "has no text"),
    ("big.txt", b"a" * (limits.DOCUMENT_BYTES + 1), "LIMIT_EXCEEDED", "larger than the limit of 64 MiB"),
]


def test_what_cannot_be_read_is_named_and_the_others_go_on() -> None:
    found = read(("a.txt", LAKE.encode()), *((name, raw) for name, raw, _, _ in REFUSED), ("z.txt", INN.encode()))
    assert [document.name for document in found.documents] == ["a.txt", "z.txt"]
    wrong = [
        (name, reason, said, skipped)
        for (name, _, reason, said), skipped in zip(REFUSED, found.skipped, strict=True)
        if (skipped.name, skipped.reason) != (name, reason) or said not in skipped.message
        or not skipped.message.startswith(f"{name}: ")
    ]  # fmt: skip
    assert wrong == []


def test_a_pdf_that_only_forbids_printing_is_read() -> None:
    assert texts(pdf([INN], owner_password="owner"), "x.pdf") == [((), INN)]


def test_files_folders_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text(INN)
    (tmp_path / "sub" / ".hidden.md").write_text("Hidden.")
    (tmp_path / "a.txt").write_text(LAKE)
    (tmp_path / "none").mkdir()
    stdin = io.BytesIO(b"From a pipe.")
    paths = [str(tmp_path), "-", str(tmp_path / "gone.txt"), str(tmp_path / "none")]
    found = read_documents(sources_of(paths, stdin), tokens=words)
    assert [document.name for document in found.documents] == [
        str(tmp_path / "a.txt"), str(tmp_path / "sub" / "b.md"), "standard input",
    ]  # fmt: skip
    assert [(skipped.name, skipped.reason) for skipped in found.skipped] == [
        (str(tmp_path / "gone.txt"), "INVALID_DOCUMENT"),
        (str(tmp_path / "none"), "INVALID_DOCUMENT"),
    ]
    assert found.skipped[0].message == f"{tmp_path / 'gone.txt'}: cannot be read (No such file or directory)"
    assert found.documents[0].digest == hashlib.sha256(LAKE.encode()).hexdigest()
    assert Documents.model_validate_json(found.model_dump_json()) == found
    assert read_documents([source_of_stdin(io.BytesIO(gzip.compress(b"x")))], tokens=words).skipped[0].message == (
        "standard input: is compressed with gzip; decompress it"
    )


def test_duplicates_are_dropped_and_said_but_never_another_fact() -> None:
    long = " ".join(f"Fact {n} of the lake is that it is deep in place {n}." for n in range(20))
    shorter = long.removesuffix(" Fact 19 of the lake is that it is deep in place 19.")
    changed = long.replace("place 7.", "place 77.")
    found = read(
        ("a.txt", long.encode()),
        ("again.md", long.replace(" ", "  ").replace(".", ",").upper().encode()),
        ("shorter.txt", f"{INN}\n\nShorter\n---\n{shorter}".encode()),
        ("changed.txt", changed.encode()),
        ("only.txt", f"{shorter}\n".encode()),
        most=400,
    )
    assert [document.name for document in found.documents] == ["a.txt", "shorter.txt", "changed.txt"]
    assert [passage.text for passage in found.documents[1].passages] == [INN]
    assert [(skipped.name, skipped.reason) for skipped in found.skipped] == [
        ("again.md", "DUPLICATE_DOCUMENT"),
        ("only.txt", "DUPLICATE_DOCUMENT"),
    ]
    assert "the same text as a.txt" in found.skipped[0].message
    (first, second) = found.dropped
    assert (first.name, first.headings, first.of, first.text) == ("shorter.txt", ("Shorter",), "a.txt", shorter)
    assert 0.8 <= first.similarity < 1
    assert second.name == "only.txt"


def test_short_sections_are_joined_below_the_heading_that_they_share() -> None:
    blocks = [
        Block("Guide", 1), Block("a b c"), Block("Use", 2), Block("d e"), Block("Fast", 3), Block("f g"),
        Block("Slow", 3), Block("h i"), Block("Costs", 2), Block(" ".join("jklmnopqrstuv")),
    ]  # fmt: skip

    def parts(**how: int) -> list[tuple[tuple[str, ...], str]]:
        return [(p.headings, p.text) for p in split(blocks, words, Splitting(**how), title="Guide")]

    assert parts(most=50, least=0) == [
        ((), "a b c"), (("Use",), "d e"), (("Use", "Fast"), "f g"), (("Use", "Slow"), "h i"),
        (("Costs",), "j k l m n o p q r s t u v"),
    ]  # fmt: skip
    assert parts(most=50, least=10) == [
        ((), "a b c\n\nUse\n\nd e\n\nUse – Fast\n\nf g\n\nUse – Slow\n\nh i"),
        (("Costs",), "j k l m n o p q r s t u v"),
    ]
    assert parts(most=8, least=4)[0] == ((), "a b c\n\nUse\n\nd e")


TOKENIZER = token_counter(make_tiny_tokenizer())
paragraphs = st.lists(
    st.one_of(
        st.text(alphabet="ab é湖。.!\n\t", max_size=300),
        st.sampled_from((LAKE, INN, "x" * 900, "湖は高地にあります。" * 30, "word " * 200)),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None)
@given(paragraphs, st.integers(8, 64), st.integers(0, 8))
def test_no_passage_is_too_long_and_nothing_is_lost(written: list[str], most: int, least: int) -> None:
    blocks = [Block(text) for text in written if text.strip()]
    passages = split(blocks, TOKENIZER, Splitting(most=most, least=least))
    assert [p for p in passages if TOKENIZER(p.text) > most or p.tokens != TOKENIZER(p.text)] == []
    assert "".join("".join(p.text for p in passages).split()) == "".join("".join(b.text for b in blocks).split())


def test_a_long_paragraph_is_cut_behind_its_sentences() -> None:
    sentences = [f"This is sentence number {n} of the text." for n in range(40)]
    passages = split([Block(" ".join(sentences))], words, Splitting(most=30, least=0))
    assert " ".join(p.text for p in passages) == " ".join(sentences)
    assert {p.text[-1] for p in passages} == {"."}
    assert all(p.tokens == 24 for p in passages[:-1])


def test_deep_and_broken_html_is_read_to_its_end() -> None:
    deep = "<div>" * 2000 + "bottom" + "</div>" * 2000 + "<p>after <b>all<p>1 < 2 &amp; 3"
    assert [text for _, text in texts(deep.encode(), "x.html")] == ["bottom\n\nafter all\n\n1 < 2 & 3"]


GOOD = {
    "pdf": pdf(["Lake Ombrel."], ["The inn."], outline=[("A", 0)]),
    "docx": docx(lambda document: document.add_heading("Lake").insert_paragraph_before("Ombrel.")),
    "html": HTML.encode(),
    "markdown": MARKDOWN.encode(),
}


@pytest.mark.parametrize("format", sorted(GOOD))
def test_a_damaged_document_is_read_or_refused(format: str) -> None:
    raw = GOOD[format]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=8), st.integers(1, len(raw)))
    def damage(changes: list[tuple[int, int]], end: int) -> None:
        broken = bytearray(raw)
        for place, value in changes:
            broken[place] = value
        for content in (bytes(broken), bytes(broken[:end])):
            with contextlib.suppress(SealError):
                reader_of(format)(content)
            with contextlib.suppress(SealError):
                format_of(f"damaged.{format}", content)

    damage()
