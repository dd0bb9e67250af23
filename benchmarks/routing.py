"""Which share of questions gets the adapter of its passage, and which share of others gets one.

    python -m benchmarks.routing      measures (a minute, no model) and writes docs/results/routing.md

Passages: those of configs/demo/passages.json, all of them and drawn subsets, with their own questions and the blanks
that the domain makes of them; and 200 of SQuAD (`--squad`, a file in the format of the reference data), of which many
are about the same article. Others: the retention suite, the bundled anchors, and the questions of the other source.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.page import with_section
from controller.rules.anchors import bundled_anchors
from controller.rules.setup import retention_query
from sealkit.config import InnerLoopConfig
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.routing import Route, Router
from sealkit.stats import mean_estimate
from sealkit.types import AdapterRef, Prompt, digest_of

ROOT = Path(__file__).parents[1]
PASSAGES, SUITE = ROOT / "configs/demo/passages.json", ROOT / "sealkit/data/retention.jsonl"
SQUAD = ROOT.parent / "shared/reference/squad_A.json"
PAGE = ROOT / "docs/results/routing.md"
_OTHERS = "the questions on the other passages"
DOMAIN = KnowledgeDomain({}, InnerLoopConfig())

Asked = Sequence[tuple[Prompt, int]]
"""Prompts with the position of their passage."""


def router_of(records: Sequence[Mapping[str, Any]]) -> Router:
    """A router whose adapters are named by the position of their passage."""
    texts = [DOMAIN.passage_text(context) for context in DOMAIN.contexts(records)]
    return Router([Route(adapter=_named(place), text=text) for place, text in enumerate(texts)])


def questions(records: Sequence[Mapping[str, Any]], *, titled: bool) -> Asked:
    """The passages' own questions: bare, as a user would ask, or with the topic, as exams ask."""
    contexts = DOMAIN.contexts(records)
    return [
        (query.prompt if titled else Prompt(user=query.question), place)
        for place, context in enumerate(contexts)
        for query in DOMAIN.queries(context)
    ]


def blanks(records: Sequence[Mapping[str, Any]]) -> Asked:
    """The blanks that the domain makes of the passages, without the topic."""
    passages = [DOMAIN.of_passage(record["title"], (), record["context"]) for record in records]
    return [
        (Prompt(user=item.question), place)
        for place, passage in enumerate(passages)
        for item in DOMAIN.exam_blanks(passage)
    ]


def line(what: str, router: Router, asked: Asked) -> str:
    """Right, wrong and no adapter, with intervals over passages."""
    by_passage: dict[int, list[tuple[bool, bool]]] = {}
    for prompt, place in asked:
        found = router.choose(prompt)
        by_passage.setdefault(place, []).append((found == _named(place), found is not None and found != _named(place)))
    cells = []
    for kind in (0, 1):
        shares = [sum(one[kind] for one in of) / len(of) for of in by_passage.values()]
        estimate = mean_estimate(shares)
        assert estimate is not None
        cells.append(f"{estimate.mean:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]")
    return f"| {what} | {len(asked):,} | {' | '.join(cells)} |"


def others(router: Router, prompts: Mapping[str, Sequence[Prompt]]) -> str:
    """The share of prompts about no passage that get an adapter."""
    return " | ".join(
        f"{sum(router.choose(prompt) is not None for prompt in some) / len(some):.4f}" for some in prompts.values()
    )


def measured(squad: Path) -> str:
    """The tables."""
    demo, real = (json.loads(file.read_text(encoding="utf-8")) for file in (PASSAGES, squad))
    real = [{**record, "split": "train"} for record in real]
    suite = [retention_query(json.loads(row)).prompt for row in SUITE.read_text(encoding="utf-8").splitlines()]
    anchors = [Prompt(user=record["prompt"]) for record in bundled_anchors()]
    of_demo, of_real = ([prompt for prompt, _ in questions(some, titled=False)] for some in (demo, real))
    about = ["| prompts | n | its adapter | another one |", "|---|---|---|---|"]
    general = {"the retention suite": suite, "the anchors": anchors, _OTHERS: of_real}
    none = [
        f"| passages | {' | '.join(f'{name} ({len(some):,})' for name, some in general.items())} |",
        "|---" * (len(general) + 1) + "|",
    ]
    draw = random.Random(0)
    for count in (2, 8, 36, len(demo)):
        some = demo if count == len(demo) else draw.sample(demo, count)
        router = router_of(some)
        about += [
            line(f"{count} invented passages: their questions", router, questions(some, titled=False)),
            line("the same with the topic named, as in an exam", router, questions(some, titled=True)),
            line("their blanks", router, blanks(some)),
        ]
        none.append(f"| {count} invented | {others(router, general)} |")
    router = router_of(real)
    about += [
        line(f"{len(real)} of SQuAD: their questions", router, questions(real, titled=False)),
        line("the same with the topic named", router, questions(real, titled=True)),
    ]
    none.append(f"| {len(real)} of SQuAD | {others(router, {**general, _OTHERS: of_demo})} |")
    return "\n".join([*about, "", "The share of prompts about none of the passages that get an adapter:", "", *none])


def _named(place: int) -> AdapterRef:
    return AdapterRef(digest=digest_of("place", place))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", type=Path, default=SQUAD, help="Passages of SQuAD, in the format of the reference.")
    options = parser.parse_args(arguments)
    tables = measured(options.squad)
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), "tables", tables), encoding="utf-8")
    print(tables)
    return 0


if __name__ == "__main__":
    sys.exit(main())
