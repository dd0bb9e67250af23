"""What became of each document of a run, as a table, and what was lost by learning it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from seal_cli.console import share, styled
from sealkit.report_page.labels import duration
from sealkit.reports import DocumentReport
from sealkit.resources import DocumentState
from sealkit.shown import visible

LEGEND = (
    "Accuracy: on questions about the document itself, without seeing it, by the version before it and the one after. "
    "GENERATED questions and their answers were written by models or are blanks in the text, and only those were kept "
    "that the base model does not know: compare these numbers only with each other. A document that was not adopted "
    "changed nothing."
)
_WORDS = {
    DocumentState.WAITING: "waiting",
    DocumentState.LEARNED: "learned",
    DocumentState.NOT_ADOPTED: "NOT_ADOPTED",
    DocumentState.SKIPPED: "skipped",
    DocumentState.FORGOTTEN: "forgotten",
}
_NAME = 16
"""Least width of a document's name, so that most need no second line in 80 columns."""


def document_tables(found: Sequence[DocumentReport]) -> Iterable[RenderableType]:
    """The documents, the reasons, and the lost questions."""
    table = Table(
        title="Documents", title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    table.add_column("", overflow="fold", min_width=_NAME)
    for column in ("", "passages", "questions", "before\n→ after", "lost", "time"):
        table.add_column(column, justify="left" if not column else "right")
    for one in found:
        table.add_row(styled(one.name), *map(styled, _cells(one)))
    yield table
    for one in found:
        if one.reason:
            yield Text(visible(f"{one.name}: {one.reason}"))
        for notice in one.notices:
            yield Text(visible(f"{one.name}: {notice}"), style="dim")
    if lost := [(one, question) for one in found for question in one.lost]:
        yield Text("Lost:", style="bold")
        for one, question in lost:
            about = question.document or "the retention suite"
            said = f" ({question.after!r} instead of {question.gold!r})" if question.after else f" ({question.gold!r})"
            yield Text(visible(f"  by {one.name}, of {about}: {question.question}{said}"))
    yield Text(LEGEND, style="dim")


def _cells(one: DocumentReport) -> tuple[str, ...]:
    state = _WORDS[one.state]
    if one.replaces and one.state is DocumentState.LEARNED:
        state += ", instead of its older version"
    passages = f"{one.learned} of {one.passages}" if one.passages else ""
    exam = f"{one.questions} {'GENERATED' if one.generated else 'given'}" if one.questions else ""
    accuracies = f"{share(one.accuracy_before)} → {share(one.accuracy_after)}" if one.questions else ""
    seconds = duration(one.seconds) if one.seconds is not None else ""
    return state, passages, exam, accuracies, str(len(one.lost) or ""), seconds
