"""KL(base || subject): on what it is measured, when it is not, and what is kept."""

from __future__ import annotations

import pytest
from evaluator_fakes import BASE_POLICY, POLICY, TRIAL, TUNED_POLICY, FakeBackend, evaluate, queries
from prometheus_client import REGISTRY

from evaluator_svc.divergence import fixed_text
from evaluator_svc.evaluate import Evaluator
from sealkit.types import AdapterRef, Divergence, Policy

OTHER = AdapterRef(digest="c" * 64)


def make(**kl: float) -> tuple[FakeBackend, Evaluator]:
    backend = FakeBackend({})
    who = {"policy": (POLICY, None), "trial": (POLICY, TRIAL), "other": (POLICY, OTHER)}
    backend.kl = {who[name]: value for name, value in kl.items()}
    return backend, Evaluator(backend, kept_verdicts=99)


async def test_it_is_of_the_subject_on_the_queries_prompts_and_on_the_fixed_text() -> None:
    backend, evaluator = make(trial=0.25)
    got = await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", "b", measure_divergence=True)
    assert got.divergence == Divergence(on_queries=0.5, on_fixed_text=0.25)
    prompts = [query.prompt for query in queries("a", "b")]
    assert sorted(map(str, backend.measured)) == sorted(str((t, POLICY, TRIAL)) for t in (*prompts, *fixed_text()))


async def test_without_an_adapter_it_is_the_policys_own_and_is_kept() -> None:
    backend, evaluator = make(policy=0.125, trial=0.25)
    for _ in range(2):
        got = await evaluate(evaluator, TUNED_POLICY, None, "a", measure_divergence=True)
        assert got.divergence == Divergence(on_queries=0.25, on_fixed_text=0.125)
    assert len(backend.measured) == 1 + len(fixed_text())
    await evaluate(evaluator, TUNED_POLICY, None, "a", measure_divergence=True, fresh=True)
    assert len(backend.measured) == 2 * (1 + len(fixed_text()))


async def test_trials_are_not_taken_for_each_other_nor_for_their_policy() -> None:
    _, evaluator = make(policy=0.125, trial=0.25, other=0.5)
    found = [
        (await evaluate(evaluator, TUNED_POLICY, adapter, measure_divergence=True)).divergence
        for adapter in (None, TRIAL, OTHER)
    ]
    assert [d.on_fixed_text for d in found if d] == [0.125, 0.25, 0.5]


async def test_policies_are_not_taken_for_each_other() -> None:
    backend, evaluator = make(policy=0.125)
    assert backend.kl is not None
    backend.kl[OTHER, None] = 0.5
    found = [
        (
            await evaluate(evaluator, Policy(name="policies/p", adapter=adapter), None, measure_divergence=True)
        ).divergence
        for adapter in (POLICY, OTHER)
    ]
    assert [d.on_fixed_text for d in found if d] == [0.125, 0.5]


@pytest.mark.parametrize(("policy", "adapter"), [(BASE_POLICY, None), (TUNED_POLICY, TRIAL)])
async def test_it_costs_nothing_where_nobody_asks(policy: Policy, adapter: AdapterRef | None) -> None:
    backend, evaluator = make()
    assert (await evaluate(evaluator, policy, adapter, "a")).divergence is None
    assert backend.measured == []


async def test_the_base_model_has_not_moved() -> None:
    backend, evaluator = make()
    got = await evaluate(evaluator, BASE_POLICY, None, "a", measure_divergence=True)
    assert got.divergence == Divergence(on_queries=0.0, on_fixed_text=0.0)
    assert backend.measured == []


async def test_a_model_that_reads_little_is_measured_on_the_beginnings() -> None:
    backend, evaluator = make(trial=0.25)
    backend.info = backend.info.model_copy(update={"context_length": 40})
    await evaluate(evaluator, TUNED_POLICY, TRIAL, measure_divergence=True)
    assert [text for text, _, _ in backend.measured] == [paragraph[:32] for paragraph in fixed_text()]


async def test_without_queries_there_is_only_the_fixed_text() -> None:
    _, evaluator = make(trial=0.25)
    got = await evaluate(evaluator, TUNED_POLICY, TRIAL, measure_divergence=True, retention_queries=queries("r"))
    assert got.divergence == Divergence(on_queries=None, on_fixed_text=0.25)
    assert got.retention is not None


async def test_a_backend_that_cannot_tell_says_nothing() -> None:
    backend, evaluator = make()
    backend.kl = None
    assert (await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", measure_divergence=True)).divergence is None


async def test_prometheus_hears_of_it() -> None:
    def sums() -> list[float]:
        return [REGISTRY.get_sample_value("seal_kl_to_base_sum", {"where": w}) or 0 for w in ("queries", "fixed_text")]

    before = sums()
    _, evaluator = make(trial=0.25)
    await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", measure_divergence=True)
    assert [b - a for a, b in zip(before, sums(), strict=True)] == [0.5, 0.25]


def test_the_fixed_text_is_prose_of_several_kinds_in_short_paragraphs() -> None:
    sizes = [len(paragraph.split()) for paragraph in fixed_text()]
    assert len(sizes) >= 5
    assert 250 <= sum(sizes) <= 400
    assert max(sizes) <= 80
