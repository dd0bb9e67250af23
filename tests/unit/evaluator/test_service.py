"""The evaluator's rpc: every field of a request is heeded."""

from __future__ import annotations

from typing import Any

from evaluator_fakes import BASE_POLICY, TRIAL, FakeBackend, queries, request
from seal.evaluator.v1 import evaluator_pb2

from evaluator_svc.service import EvaluatorService
from sealkit.rpc.mapping import from_pb, to_pb
from sealkit.types import EarlyStopping, Evaluation

NAMES = "abcdefghij"


async def ask(backend: FakeBackend, service: EvaluatorService | None = None, **more: Any) -> Evaluation:
    asked = request(BASE_POLICY, TRIAL, *NAMES, **{"retention_queries": queries("r"), **more})
    service = service or EvaluatorService(backend, kept_verdicts=99)
    message = to_pb(asked, evaluator_pb2.EvaluateRequest)
    return from_pb(await service.Evaluate(message, None), Evaluation)  # type: ignore[arg-type]


def backend() -> FakeBackend:
    fake = FakeBackend({(None, None): {*NAMES, "r"}})
    fake.kl = {(None, TRIAL): 0.25}
    fake.batch_variant_rate = 0.0625
    return fake


async def test_every_field_of_a_response_is_filled_in() -> None:
    full = await ask(backend(), measure_divergence=True)
    stopped = await ask(backend(), early_stopping=EarlyStopping(interval=2))
    defaults = {name: field.get_default() for name, field in Evaluation.model_fields.items()}
    missing = {name for name, empty in defaults.items() if all(getattr(got, name) == empty for got in (full, stopped))}
    assert missing == set(), "evaluator_svc/evaluate.py does not fill them in"


async def test_divergence_is_measured_when_asked_for() -> None:
    assert (await ask(backend())).divergence is None
    got = await ask(backend(), measure_divergence=True)
    assert got.divergence is not None
    assert (got.divergence.on_fixed_text, got.divergence.on_queries) == (0.25, 0.5)


async def test_a_race_ends_early_and_without_one_nothing_does() -> None:
    full = await ask(backend())
    assert not full.stopped_early
    assert full.retention is not None
    assert full.retention.forgetting == 1.0
    assert full.batch_variant_rate == 0.0625
    stopped = await ask(backend(), early_stopping=EarlyStopping(interval=2))
    assert stopped.stopped_early
    assert len(stopped.verdicts) == len(NAMES)


async def test_fresh_answers_come_from_no_cache() -> None:
    fake = backend()
    service = EvaluatorService(fake, kept_verdicts=99)
    asked = []
    for fresh in (False, False, True):
        await ask(fake, service, fresh=fresh)
        asked.append(sum(times for (_, _, trial), times in fake.asked.items() if trial is None))
    assert asked[0] == asked[1], "the baseline is kept"
    assert asked[2] == 2 * asked[0]


async def test_earlier_queries_are_part_of_the_retention() -> None:
    got = await ask(backend(), retention_queries=(), earlier_queries=queries("a", "unknown"))
    assert got.retention is not None
    assert (got.retention.kept, got.retention.lost_query_ids) == (1, ("q/a",))
