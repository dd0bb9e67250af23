"""The evaluator over the decoder itself, with adapters that PEFT made: forgetting, divergence and early stopping."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from evaluator_fakes import evaluate, queries

from evaluator_svc.evaluate import Evaluator
from sealkit.backends.models import ModelSettings
from sealkit.backends.transformers import TransformersBackend
from sealkit.store import AdapterStore
from sealkit.testing.peft_reference import PeftReference
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import AdapterRef, EarlyStopping, Outcome, Policy, Query, Sampling, digest_of

ADAPTERS: dict[str, dict[str, Any]] = {
    "trial": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "o_proj", "up_proj"]},
    "policy": {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "down_proj"]},
}
POLICY = Policy(name="policies/p", adapter=AdapterRef(digest=digest_of("policy")))
TRIAL = AdapterRef(digest=digest_of("trial"))
SHORT = Sampling(temperature=0, max_tokens=4)
NAMES = ("the town", "the river", "a lighthouse", "the engineer", "three books", "the province", "a school", "Ossel")


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[TransformersBackend]:
    model = make_tiny_model(tmp_path / "model", context=256)
    peft, store = PeftReference(model, ADAPTERS, std=0.3), AdapterStore((tmp_path / "store").as_uri())
    for name in ADAPTERS:
        store.put(digest_of(name), peft.files(name), {})
    backend = TransformersBackend(ModelSettings(model=str(model), device="cpu"), store, max_rows=8)
    await backend.start()
    yield backend
    await backend.close()


async def answered_by_the_base(backend: TransformersBackend) -> tuple[Query, ...]:
    """Queries whose gold answer is what the base model says."""
    texts = [(await backend.generate(q.prompt, SHORT)).text for q in queries(*NAMES)]
    said = zip(queries(*NAMES), texts, strict=True)
    return tuple(q.model_copy(update={"gold": text}) for q, text in said if any(map(str.isalnum, text)))


async def test_what_a_model_says_otherwise_than_its_base_is_forgotten_and_it_has_moved(
    backend: TransformersBackend,
) -> None:
    suite = await answered_by_the_base(backend)
    assert len(suite) >= 4
    evaluator = Evaluator(backend, kept_verdicts=99)
    asked: dict[str, Any] = {
        "queries": suite,
        "sampling": SHORT,
        "retention_queries": suite,
        "measure_divergence": True,
    }
    base = await evaluate(evaluator, Policy(name="policies/base"), None, **asked)
    policy = await evaluate(evaluator, POLICY, None, **asked)
    trial = await evaluate(evaluator, POLICY, TRIAL, **asked)
    assert base.retention
    assert base.divergence
    assert policy.divergence
    assert trial.divergence
    assert trial.retention
    assert (base.retention.kept, base.retention.forgetting) == (len(suite), 0)
    assert base.divergence.on_fixed_text == 0 < policy.divergence.on_fixed_text != trial.divergence.on_fixed_text
    said = {v.query_id: v.outcome is Outcome.CORRECT for v in policy.verdicts}
    assert trial.retention.accuracy_before == pytest.approx(sum(said.values()) / len(suite))
    stopped = await evaluate(evaluator, POLICY, TRIAL, early_stopping=EarlyStopping(to_beat=1.0, interval=2), **asked)
    right = [v for v in trial.verdicts if v.outcome is Outcome.CORRECT]
    assert stopped.stopped_early or len(right) == len(suite)
    assert stopped.usage.completion_tokens < trial.usage.completion_tokens
