"""Rehearsal: what is rehearsed is never measured, and it is in every training."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.rules.rehearsal import examples_of, split
from sealkit.types import Prompt, Query
from tests.unit.controller.controller_system import System


def suite(count: int) -> list[Query]:
    return [Query(query_id=f"q{i}", question="?", gold=f"a{i}", prompt=Prompt(user=f"q{i}?")) for i in range(count)]


@given(size=st.integers(0, 40), count=st.integers(0, 50), seed=st.integers(0, 5))
def test_the_suite_is_split_by_seed_and_nothing_is_on_both_sides(size: int, count: int, seed: int) -> None:
    rehearsed, measured = split(suite(size), count, seed)
    assert {*rehearsed, *measured} == {*suite(size)}
    assert len(rehearsed) == min(count, size)
    assert len(rehearsed) + len(measured) == size
    assert split(list(reversed(suite(size))), count, seed)[0] == tuple(reversed(rehearsed))


def test_an_empty_answer_teaches_nothing() -> None:
    queries = suite(3)
    assert [example.text for example in examples_of(queries)] == ["a0", "a1", "a2"]
    said = examples_of(queries, {"q0": " ", "q2": "the model's own"})
    assert [(example.text, example.prompt) for example in said] == [("the model's own", queries[2].prompt)]


async def test_every_training_rehearses_and_what_is_rehearsed_is_not_measured(system: System) -> None:
    async with system.working():
        await system.until(await system.create(rounds=1, rehearsal={"examples": 2}))
    rehearsed = {
        tuple(example.prompt.user for example in spec.rehearsal if example.prompt) for spec in system.services.specs
    }
    assert len(rehearsed) == 1
    (questions,) = rehearsed
    assert len(questions) == 2
    measured = {query.query_id for request in system.services.evaluated for query in request.retention_queries}
    assert len(measured) == 1
    assert {f"What is {query_id[1:]}?" for query_id in measured}.isdisjoint(questions)


async def test_the_models_own_answers_are_asked_of_the_base_model(system: System) -> None:
    async with system.working():
        await system.until(await system.create(rounds=1, rehearsal={"examples": 2, "source": "model"}))
    texts = {example.text for spec in system.services.specs for example in spec.rehearsal}
    assert len(texts) == 2
    assert all(text.endswith(" base") for text in texts)
