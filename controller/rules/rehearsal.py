"""Rehearsal against forgetting: questions of the retention suite, mixed into every training.

The suite is split once per run, by seed: rehearsed questions are never measured, because a model that was just trained
on a question does not show whether it remembers. The answers are the suite's own, or the base model's: self-synthesized
rehearsal (arXiv 2403.01244) on given questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealkit.types import Query, TrainingExample, seed_of


def split(suite: Sequence[Query], count: int, seed: int) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """(to rehearse, to measure): `count` queries, drawn by seed and id, and the rest; each in the order of the
    suite."""
    drawn = sorted(suite, key=lambda query: seed_of(seed, "rehearsal", query.query_id))[:count]
    rehearsed = {query.query_id for query in drawn}
    return (
        tuple(query for query in suite if query.query_id in rehearsed),
        tuple(query for query in suite if query.query_id not in rehearsed),
    )


def examples_of(queries: Sequence[Query], answers: Mapping[str, str] | None = None) -> tuple[TrainingExample, ...]:
    """Training examples: each question with the suite's answer, or with that of `answers` by query id; questions with
    an empty answer are left out."""
    said = {query.query_id: query.gold for query in queries} if answers is None else answers
    return tuple(
        TrainingExample(text=said[query.query_id], prompt=query.prompt)
        for query in queries
        if said.get(query.query_id, "").strip()
    )
