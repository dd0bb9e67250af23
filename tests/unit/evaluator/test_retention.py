"""Retention over the suite and over the queries of contexts learned earlier: what counts, and what it is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from evaluator_fakes import BASE_POLICY, POLICY, TRIAL, TUNED_POLICY, FakeBackend, evaluate, queries
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Generation, OnText
from sealkit.judges import Answer, Judgement
from sealkit.types import AdapterRef, EarlyStopping, Evaluation, FinishReason, Outcome, Policy, Prompt, Sampling, Usage

BOTH = tuple[Outcome, Outcome]
"""Before, by the policy; after, by the trial."""
side = st.sampled_from(Outcome)
right_or_wrong = st.sampled_from((Outcome.CORRECT, Outcome.INCORRECT))


class Scripted(FakeBackend):
    """The base model answers everything right; policy and trial as they are told to."""

    def __init__(self, told: dict[str, BOTH]) -> None:
        super().__init__({})
        self.told = told

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        adapter: AdapterRef | None = None,
        on_text: OnText | None = None,
    ) -> Generation:
        before, after = self.told[prompt.user]
        of_policy = before if policy and policy.adapter else Outcome.CORRECT
        said = after if adapter else of_policy
        return Generation(text=said.value, finish_reason=FinishReason.STOP, usage=Usage(completion_tokens=1))


class ByTheWord:
    """The answer is its own verdict."""

    name, version = "by the word", "1"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        return Judgement(Outcome(answers[0].text))


def answered(suite: dict[str, BOTH], earlier: dict[str, BOTH]) -> Evaluation:
    asked = {"retention_queries": queries(*suite), "earlier_queries": queries(*earlier)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluator_svc.evaluate.load_judge", lambda name, settings: ByTheWord())
        evaluator = Evaluator(Scripted(suite | earlier), kept_verdicts=99)
        return asyncio.run(evaluate(evaluator, TUNED_POLICY, TRIAL, **asked))


@given(
    pairs=st.lists(st.tuples(side, side), max_size=12),
    kept=st.lists(st.tuples(right_or_wrong, right_or_wrong), max_size=9),
)
def test_both_suites_count_by_their_questions(pairs: list[BOTH], kept: list[BOTH]) -> None:
    earlier = {f"c{i}": pair for i, pair in enumerate(pairs)}
    found = answered({f"r{i}": pair for i, pair in enumerate(kept)}, earlier).retention
    known = {
        name: after is Outcome.CORRECT
        for name, (before, after) in earlier.items()
        if before is Outcome.CORRECT and after is not Outcome.UNGRADED
    }
    if not kept and not known:
        assert found is None
        return
    right = [(before is Outcome.CORRECT, after is Outcome.CORRECT) for before, after in kept]
    assert found is not None
    assert found.kept == len(kept) + len(known)
    lost = sum(was - now for was, now in right) + sum(not now for now in known.values())
    assert abs(found.forgetting - lost / found.kept) < 1e-9
    assert abs(found.accuracy_before - found.accuracy_after - found.forgetting) < 1e-9
    assert found.forgetting_low <= found.forgetting <= found.forgetting_high
    of_suite = [f"q/r{i}" for i, (was, now) in enumerate(right) if was and not now]
    assert found.lost_query_ids == (*of_suite, *(f"q/{name}" for name, now in known.items() if not now))


async def ask(backend: FakeBackend, *names: str, suite: str = "", earlier: str = "", **more: Any) -> Evaluation:
    """One letter a query."""
    asked = {"retention_queries": queries(*suite), "earlier_queries": queries(*earlier)}
    return await evaluate(Evaluator(backend, kept_verdicts=99), TUNED_POLICY, TRIAL, *names, **asked, **more)


async def test_what_was_learned_since_counts_though_the_base_model_does_not_know_it() -> None:
    backend = FakeBackend({(None, None): {"r"}, (POLICY, None): {"r", "e", "f"}, (POLICY, TRIAL): {"r", "e", "g"}})
    found = (await ask(backend, suite="rs", earlier="efg")).retention
    assert found is not None
    assert (found.kept, found.accuracy_before, found.lost_query_ids) == (3, 1.0, ("q/f",))
    assert found.forgetting == pytest.approx(1 / 3)


async def test_the_limit_is_of_the_suite_alone() -> None:
    names = set("rstef")
    backend = FakeBackend({(None, None): names, (POLICY, None): names, (POLICY, TRIAL): names})
    found = (await ask(backend, suite="rst", earlier="ef", retention_limit=1)).retention
    assert found is not None
    assert found.kept == 1 + 2


async def test_where_nothing_is_known_a_suite_has_a_retention_of_nothing_and_earlier_queries_have_none() -> None:
    assert (await ask(FakeBackend({}), earlier="ef")).retention is None
    found = (await ask(FakeBackend({}), suite="r", earlier="ef")).retention
    assert found is not None
    assert (found.kept, found.forgetting_low, found.forgetting_high) == (0, -1.0, 1.0)


async def test_what_the_earlier_queries_took_is_counted() -> None:
    backend = FakeBackend({(None, None): {"r"}})
    got = await ask(backend, "a", suite="r", earlier="ef")
    assert got.usage.completion_tokens == backend.asked.total() == 2 + 3 + 4


async def test_a_subject_that_was_stopped_early_is_asked_the_earlier_queries_and_not_the_suite() -> None:
    names = tuple("abcdefgh")
    backend = FakeBackend({(None, None): {"r"}, (POLICY, None): {*names, "x"}})
    got = await ask(backend, *names, suite="r", earlier="x", early_stopping=EarlyStopping(interval=2))
    assert got.stopped_early
    assert got.retention is not None
    assert (got.retention.kept, got.retention.lost_query_ids) == (1, ("q/x",))
    assert not backend.asked["r", None, None]


async def test_prometheus_hears_of_the_suite_alone() -> None:
    def observed() -> tuple[float, float]:
        found = [REGISTRY.get_sample_value(f"seal_retention_accuracy_{end}") or 0.0 for end in ("count", "sum")]
        return found[0], found[1]

    count, total = observed()
    backend = FakeBackend({(None, None): {"r", "s", "e"}, (None, TRIAL): {"r"}})
    suites = {"retention_queries": queries("r", "s"), "earlier_queries": queries("e")}
    await evaluate(Evaluator(backend, kept_verdicts=99), BASE_POLICY, TRIAL, **suites)
    assert observed() == (count + 1, total + 0.5)
