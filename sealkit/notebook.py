"""What a notebook shows of values: frames of pandas (the extra `notebook`), and tables of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from sealkit.errors import FailedPrecondition
from sealkit.shown import visible

if TYPE_CHECKING:
    import pandas

_LONGEST = 500
"""Characters of a cell."""


def frame(rows: Iterable[Any], columns: Sequence[str]) -> pandas.DataFrame:
    """A frame of these rows. Raises FailedPrecondition if pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise FailedPrecondition("frames need pandas; install it with: pip install 'seal-suite[notebook]'") from error
    return pandas.DataFrame(list(rows), columns=list(columns))


def table(caption: str, rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """A table of HTML without styles and scripts. Every text is escaped, and cut if it is long."""
    head = Markup("<thead>{}</thead>").format(_row(columns, "th")) if columns else ""
    body = Markup("").join(_row(row, "td") for row in rows)
    return str(Markup("<table><caption>{}</caption>{}<tbody>{}</tbody></table>").format(_text(caption), head, body))


def _row(cells: Sequence[str], tag: str) -> Markup:
    return Markup("<tr>{}</tr>").format(
        Markup("").join(Markup(f"<{tag}>{{}}</{tag}>").format(_text(cell)) for cell in cells)
    )


def _text(value: str) -> Markup:
    shown = visible(value)
    return escape(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…")
