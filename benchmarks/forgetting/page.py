"""The tables and the plot from the records, and the page with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.forgetting.arms import ARMS
from benchmarks.page import plotted, with_section
from controller.report.continual import continual
from sealkit.domains.base import Context
from sealkit.reports import Continual, Estimate
from sealkit.stats import mean_estimate

Record = Mapping[str, Any]


def read(folder: Path) -> list[Record]:
    """The records, by arm in the order of `ARMS` and by seed."""
    order = [arm.name for arm in ARMS]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return sorted(found, key=lambda record: (order.index(record["arm"]), record["seed"]))


def page(text: str, records: Sequence[Record]) -> str:
    """The page with the measured tables."""
    return with_section(with_section(text, "arms", _about(records) + "\n\n" + table(records)), "r", matrices(records))


def _about(records: Sequence[Record]) -> str:
    one = records[0]
    dates = sorted({record["date"] for record in records})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return (
        f"{one['model']}, {one['texts']} texts a seed, about {one['tokens']:,} trained tokens a text (consolidated: "
        f"for each text of each commit); {one['machine']}, {when}. Means over the texts of all seeds with 95 % "
        "intervals; retention and KL after the last text, means over seeds with the mean ends of their intervals; CPU "
        "seconds of all trainings of a seed."
    )


def table(records: Sequence[Record]) -> str:
    """The arms, in Markdown."""
    lines = [
        "| arm | seeds | just learned | at the end | BWT | retention lost | KL | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        own = [record for record in records if record["arm"] == arm.name and len(record["rows"]) > record["texts"]]
        if not own:
            continue
        found = [_continual(record) for record in own]
        last = [record["rows"][-1] for record in own]
        lost, low, high = (
            fmean(row["retention"][name] for row in last)
            for name in ("forgetting", "forgetting_low", "forgetting_high")
        )
        cells = [
            arm.label,
            ", ".join(str(record["seed"]) for record in own),
            _figures(_just_learned(found)),
            _figures(_at_end(found)),
            _figures(_bwt(found)),
            f"{lost:.2f} [{low:.2f}, {high:.2f}] of {last[0]['retention']['kept']}",
            f"{fmean(row['kl'] for row in last):.3f}",
            f"{fmean(row['cpu_seconds'] for row in last):,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def matrices(records: Sequence[Record]) -> str:
    """R of each record: accuracy on each text after each commit."""
    labels = {arm.name: arm.label for arm in ARMS}
    parts = []
    for record in records:
        numbers = range(1, len(record["contexts"]) + 1)
        parts += [
            f"{labels[record['arm']]}, seed {record['seed']}:",
            "",
            f"| after | {' | '.join(map(str, numbers))} | retention | KL |",
            "|---" * (len(record["contexts"]) + 3) + "|",
        ]
        for number, row in enumerate(record["rows"]):
            scores = ["" if (s := row["scores"].get(c)) is None else f"{s:.1f}" for c in record["contexts"]]
            kept = row["retention"]["accuracy_after"]
            parts.append(f"| {number} | {' | '.join(scores)} | {kept:.2f} | {row['kl'] or 0.0:.3f} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def matrix_line(row: Mapping[str, Any], contexts: Sequence[Context]) -> str:
    """A row of R, for a terminal."""
    scores = " ".join("–" if (s := row["scores"].get(c.context_id)) is None else f"{s:.1f}" for c in contexts)
    return f"R {scores}, retention {row['retention']['accuracy_after']:.2f}, KL {row['kl'] or 0.0:.3f}"


def plot(records: Sequence[Record], file: Path) -> None:
    """What is left after each text: mean accuracy on the texts so far, and of the retention suite."""
    with plotted(file) as axes:
        for arm in ARMS:
            own = [record for record in records if record["arm"] == arm.name]
            steps = range(1, min((len(record["rows"]) for record in own), default=1))
            if not steps:
                continue
            texts = [fmean(_known(record, step) for record in own) for step in steps]
            (line,) = axes.plot(steps, texts, marker="o", label=arm.label)
            kept = [fmean(record["rows"][step]["retention"]["accuracy_after"] for record in own) for step in steps]
            axes.plot(steps, kept, linestyle="--", color=line.get_color())
        axes.set(xlabel="texts learned", ylabel="accuracy on these texts (lines), retention (dashed)", ylim=(0, 1.02))
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0))


def _known(record: Record, step: int) -> float:
    return fmean(record["rows"][step]["scores"][context] for context in record["contexts"][:step])


def _continual(record: Record) -> Continual:
    rows = [{c: s for c, s in row["scores"].items() if s is not None} for row in record["rows"]]
    return continual(record["contexts"], rows)


def _just_learned(found: Iterable[Continual]) -> Estimate | None:
    return mean_estimate([value for one in found for i, value in _last_and_first(one, first=True)])


def _at_end(found: Iterable[Continual]) -> Estimate | None:
    return mean_estimate([value for one in found for i, value in _last_and_first(one, first=False)])


def _bwt(found: Iterable[Continual]) -> Estimate | None:
    """Without the last text of each sequence, after which nothing was learned."""
    changes = []
    for one in found:
        then, now = dict(_last_and_first(one, first=True)), dict(_last_and_first(one, first=False))
        changes += [now[i] - then[i] for i in list(then)[:-1]]
    return mean_estimate(changes, low=-1.0)


def _last_and_first(found: Continual, *, first: bool) -> Iterable[tuple[int, float]]:
    """For each text its accuracy just after it was learned, or at the end."""
    for i in range(len(found.contexts)):
        value = found.matrix[i + 1 if first else -1][i]
        assert value is not None  # it was asked after every later commit
        yield i, value


def _figures(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"
