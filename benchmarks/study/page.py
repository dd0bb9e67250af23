"""What the tables of docs/results/study.md share: the page, rows, and where and when the runs were made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.page import with_section
from benchmarks.study.results import Results


def page(text: str, sections: Mapping[str, str]) -> str:
    """The page with these sections written anew."""
    for name, body in sections.items():
        text = with_section(text, name, body)
    return text


def groups(runs: Sequence[Results], variants: Mapping[str, str]) -> Iterator[tuple[str, str, list[Results]]]:
    """Variant, label of the seeds and runs: each run, then all of a variant together."""
    for variant in variants:
        own = [run for run in runs if run.variant == variant]
        for run in own:
            yield variant, str(run.seed), [run]
        if len(own) > 1:
            yield variant, seeds_label([run.seed for run in own]), own


def seeds_label(seeds: Sequence[int]) -> str:
    """In a row of runs with these seeds."""
    return str(seeds[0]) if len(seeds) == 1 else "all"


def all_seeds(runs: Sequence[Results]) -> str:
    """Those of the runs."""
    return ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))


def measured(runs: Sequence[Results], variants: Mapping[str, str]) -> str:
    """Where, when and how long, and what has not ended."""
    unfinished = [f"{variants[run.variant]}, seed {run.seed}" for run in runs if not run.finished]
    dates = sorted({run.about["date"] for run in runs})
    seconds = ", ".join(
        f"{run.about['report']['wall_seconds']:,.0f} ({variants[run.variant]}, seed {run.seed})" for run in runs
    )
    return (
        f"{runs[0].about['machine']}, shared with other work, {' and '.join(dates)}; seconds from start to end "
        f"of each run: {seconds}." + (f" **Not finished**: {'; '.join(unfinished)}." if unfinished else "")
    )


def head(names: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [row(*names), "|---" * len(names) + "|"]


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def picture(title: str, file: str) -> str:
    """A plot in the page."""
    return f"![{title}](../pictures/{file})"
