"""`seal judge`: calibrate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seal_cli.options import AsJson
from sealkit.errors import FailedPrecondition

if TYPE_CHECKING:
    from sealkit.judges.agreement import Ranking
    from sealkit.judges.calibration import Calibration

app = typer.Typer(help="Measure how well a judge agrees with recorded verdicts.", no_args_is_help=True)


@app.command("calibrate")
def calibrate_judge(
    verdicts: Annotated[
        Path, typer.Option(help="Recorded verdicts: JSON lines {question, gold, answer, verdict}, gzipped or not.")
    ],
    judge: Annotated[str, typer.Option(help="The judge's name; `model` reads SEAL_EVALUATOR_JUDGE_*.")] = "content",
    selection: Annotated[
        Path | None, typer.Option(help="Recorded selection: JSON lines {title, completions: [{run_verdicts}]}.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Judge only this many, drawn evenly from the file; 0: all.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare a judge with recorded verdicts, and report what selecting by it would have cost."""
    from seal_cli.console import show_json
    from seal_cli.tables import print_listing

    try:
        found = asyncio.run(_calibrate(judge, verdicts, selection, limit))
    except ImportError as error:
        raise FailedPrecondition(
            f"judges need {error.name}: pip install 'seal-suite[controller]', for `model` 'seal-suite[models]'"
        ) from error
    if as_json:
        show_json(found)
    else:
        print_listing(("", "figure"), _rows(found))


async def _calibrate(name: str, verdicts: Path, selection: Path | None, limit: int) -> Calibration:
    from sealkit.judges import close_judge, load_judge
    from sealkit.judges.calibration import calibrate, read_records

    records = read_records(verdicts)
    if limit and limit < len(records):
        records = [records[at * len(records) // limit] for at in range(limit)]
    judge = load_judge(name)
    try:
        return await calibrate(judge, records, read_records(selection) if selection else ())
    finally:
        await close_judge(judge)


def _rows(found: Calibration) -> list[tuple[str, str]]:
    rows = [("judge", f"{found.judge} {found.version}"), ("answers", str(found.n))]
    if found.agreement:
        names = ("accuracy", "kappa", "precision", "recall")
        rows += [(name, f"{getattr(found.agreement, name):.4f}") for name in names]
    rows.append(("ungraded", f"{found.ungraded_share:.4f}"))
    rows += _ranking_rows("among recorded sources", found.ranking)
    rows += _ranking_rows("among recorded completions, simulated", found.selection)
    return rows


def _ranking_rows(where: str, found: Ranking | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    return [
        (f"Spearman {where}", f"{found.spearman:.3f}"),
        (f"gain kept by selection {where}", f"{found.gain_kept:.3f}"),
    ]
