"""Early stopping ends the evaluation of a futile trial, and reports what it did not ask."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from evaluator_fakes import BASE_POLICY, GREEDY, POLICY, TRIAL, TUNED_POLICY, FakeBackend, evaluate, queries

from evaluator_svc.early_stopping import batches
from evaluator_svc.evaluate import Evaluator
from sealkit.errors import Unavailable
from sealkit.judges import Answer, Judgement
from sealkit.types import AdapterRef, EarlyStopping, Evaluation, Outcome

NAMES = [f"q{i:02}" for i in range(20)]
SUITE = {"retention_queries": queries("r", "s"), "measure_divergence": True}


def backend(*, base: int, trial: int) -> FakeBackend:
    """Of NAMES the policy and the trial get so many right, at random places."""
    fake = FakeBackend({(None, None): {"r", "s", *Random(0).sample(NAMES, base)}})
    fake.knows[None, TRIAL] = set(Random(1).sample(NAMES, trial))
    fake.kl = {(None, TRIAL): 0.5}
    return fake


async def run(fake: FakeBackend, early_stopping: EarlyStopping | None, **more: Any) -> Evaluation:
    return await evaluate(
        Evaluator(fake, kept_verdicts=99), BASE_POLICY, TRIAL, *NAMES, early_stopping=early_stopping, **more
    )


def asked_of(fake: FakeBackend) -> set[str]:
    return {text for text, _, trial in fake.asked if trial == TRIAL}


async def test_a_hopeless_trial_is_stopped_and_its_retention_and_divergence_are_not_asked() -> None:
    fake = backend(base=14, trial=0)
    got = await run(fake, EarlyStopping(), **SUITE)
    assert got.stopped_early
    assert got.retention is None
    assert got.divergence is None
    assert fake.measured == []
    assert len(asked_of(fake)) in {4, 8}
    assert not asked_of(fake) & {"r", "s"}
    not_asked = [v for v in got.verdicts if v.reason == "not asked"]
    assert {v.query_id for v in not_asked} == {f"q/{n}" for n in set(NAMES) - asked_of(fake)}
    assert {v.outcome for v in not_asked} == {Outcome.UNGRADED}
    assert [v.query_id for v in got.verdicts] == [f"q/{n}" for n in NAMES]


async def test_its_baseline_is_asked_in_full() -> None:
    got = await run(backend(base=14, trial=0), EarlyStopping())
    assert sum(v.outcome is Outcome.CORRECT for v in got.baseline_verdicts) == 14
    assert all(v.reason != "not asked" for v in got.baseline_verdicts)


@pytest.mark.parametrize("trial", [10, 14, 20])
async def test_a_trial_that_runs_to_the_end_is_scored_as_without_a_race(trial: int) -> None:
    with_race = await run(backend(base=10, trial=trial), EarlyStopping(confidence=0.99), **SUITE)
    without = await run(backend(base=10, trial=trial), None, **SUITE)
    took = {"usage": without.usage}
    assert not with_race.stopped_early
    assert with_race.model_copy(update=took) == without


async def test_what_has_to_be_beaten_may_be_named() -> None:
    stopped = await run(backend(base=0, trial=4), EarlyStopping(to_beat=0.9))
    assert stopped.stopped_early
    assert not (await run(backend(base=0, trial=4), EarlyStopping())).stopped_early  # none is below a baseline of 0


async def test_a_policy_races_against_the_base_model() -> None:
    fake = FakeBackend({(None, None): set(NAMES), (POLICY, None): set()})
    got = await evaluate(Evaluator(fake, kept_verdicts=99), TUNED_POLICY, None, *NAMES, early_stopping=EarlyStopping())
    assert got.stopped_early


async def test_fewer_queries_than_a_wave_are_all_asked_and_none_is_no_race() -> None:
    evaluator = Evaluator(backend(base=20, trial=0), kept_verdicts=99)
    assert not (await evaluate(evaluator, BASE_POLICY, TRIAL, *NAMES[:4], early_stopping=EarlyStopping())).stopped_early
    empty = await evaluate(
        evaluator, BASE_POLICY, TRIAL, early_stopping=EarlyStopping(), retention_queries=queries("r")
    )
    assert not empty.stopped_early
    assert empty.retention is not None


async def test_a_failing_judge_stops_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    class Judge:
        name, version = "flaky", "1"

        async def judge(self, question: str, gold: str, answers: list[Answer]) -> Judgement:
            if answers[0].text == "no":
                raise Unavailable("the judge does not answer")
            return Judgement(Outcome.CORRECT)

    monkeypatch.setattr("evaluator_svc.evaluate.load_judge", lambda name, settings: Judge())
    got = await run(backend(base=14, trial=0), EarlyStopping())
    assert not got.stopped_early


def test_trials_of_a_group_are_asked_in_one_order_that_is_not_the_files() -> None:
    asked = queries(*NAMES)
    first = [q.query_id for interval in batches(asked, EarlyStopping(interval=3), GREEDY.seed) for q in interval]
    again = [q.query_id for interval in batches(asked[::-1], EarlyStopping(interval=3), GREEDY.seed) for q in interval]
    other = [q.query_id for interval in batches(asked, EarlyStopping(interval=3), GREEDY.seed + 1) for q in interval]
    assert first == again
    assert first != other
    assert sorted(first) == sorted(q.query_id for q in asked) != first


async def test_only_few_of_those_who_would_tie_are_stopped() -> None:
    """1 - confidence bounds the share of trials stopped that in the end would not be below."""
    stopped = 0
    for number in range(80):
        fake = backend(base=10, trial=0)
        trial = AdapterRef(digest=f"{number:064x}")
        fake.knows[None, trial] = set(Random(number).sample(NAMES, 10))
        got = await evaluate(
            Evaluator(fake, kept_verdicts=99),
            BASE_POLICY,
            trial,
            *NAMES,
            early_stopping=EarlyStopping(confidence=0.8, interval=2),
        )
        stopped += got.stopped_early
    assert 1 < stopped < 27  # 16 of 80 expected at most; 27 lies three deviations off
