"""Rehearsal against forgetting: examples of what the model could do before, mixed into every training.

The retention suite is split once a run, by seed: what is rehearsed is never measured, so that a model cannot look as if
it remembered by having just been told. The answers are the suite's own, or the base model's: self-synthesized
rehearsal (arXiv 2403.01244) on given questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealkit.types import Query, TrainingExample, seed_of


def split(suite: Sequence[Query], count: int, seed: int) -> tuple[tuple[Query, ...], tuple[Query, ...]]:
    """(to rehearse, to measure): `count` queries that the seed and their ids alone decide, and the rest; each in the
    order of the suite."""
    drawn = sorted(suite, key=lambda query: seed_of(seed, "rehearsal", query.query_id))[:count]
    rehearsed = {query.query_id for query in drawn}
    return (
        tuple(query for query in suite if query.query_id in rehearsed),
        tuple(query for query in suite if query.query_id not in rehearsed),
    )


def examples_of(queries: Sequence[Query], answers: Mapping[str, str] | None = None) -> tuple[TrainingExample, ...]:
    """What to train on: each question with the suite's answer, or with that of `answers` by query id; an empty answer
    teaches nothing and is left out."""
    said = {query.query_id: query.gold for query in queries} if answers is None else answers
    return tuple(
        TrainingExample(text=said[query.query_id], prompt=query.prompt)
        for query in queries
        if said.get(query.query_id, "").strip()
    )
