"""`seal learn`: which files are sent, and the table at the end."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from seal_cli.commands.learn import read
from seal_cli.documents import document_tables
from sealkit.errors import InvalidDocument
from sealkit.reports import DocumentReport, LostQuestion
from sealkit.resources import DocumentState


def printed(*reports: DocumentReport) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    for part in document_tables(reports):
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_files_and_folders_are_sent_and_what_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "b.md").write_bytes(b"# B")
    (tmp_path / "notes" / ".hidden").write_bytes(b"no")
    (tmp_path / "a.txt").write_bytes(b"A")
    assert read(["a.txt", "notes", "gone.pdf"]) == {"a.txt": b"A", "notes/b.md": b"# B"}
    assert "left out: gone.pdf: cannot be read (No such file or directory)" in capsys.readouterr().err
    with pytest.raises(InvalidDocument, match=r"gone\.pdf"):
        read(["gone.pdf"])


def test_the_table_says_what_became_of_each_document_and_what_was_lost() -> None:
    lost = LostQuestion(query_id="q", document="old.md", question="Who?", gold="Ana", before="Ana", after="Jon")
    text = printed(
        DocumentReport(
            name="new.pdf", digest="0" * 64, state=DocumentState.LEARNED, passages=3, learned=2, questions=8,
            accuracy_before=0.0, accuracy_after=0.75, lost=(lost,), seconds=75.0, notices=("page 2 has no text",),
        ),
        DocumentReport(name="bad.txt", digest="1" * 64, state=DocumentState.NOT_ADOPTED, reason="nothing helped"),
        DocumentReport(name="odd\x1b.txt", digest="2" * 64, state=DocumentState.SKIPPED, reason="EMPTY: is empty"),
    )  # fmt: skip
    row = next(line for line in text.splitlines() if line.strip().startswith("new.pdf "))
    assert row.split() == ["new.pdf", "learned", "2", "of", "3", "8", "GENERATED", "0.00", "→", "0.75", "1", "1:15"]
    assert "bad.txt: nothing helped" in text
    assert "NOT_ADOPTED" in text
    assert "by new.pdf, of old.md: Who? ('Jon' instead of 'Ana')" in text
    assert "new.pdf: page 2 has no text" in text
    assert "\x1b" not in text
