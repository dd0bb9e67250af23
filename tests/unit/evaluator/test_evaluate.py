"""What an evaluation says, over a backend that answers from a table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from evaluator_fakes import BASE_POLICY, POLICY, TRIAL, TUNED_POLICY, FakeBackend, evaluate, queries, request, right
from prometheus_client import REGISTRY

from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Generation
from sealkit.errors import InvalidInput, QueueFull, Unavailable, UnknownJudge
from sealkit.judges import Answer, Judgement
from sealkit.types import NOT_ANSWERED, AdapterRef, Evaluation, Outcome, Policy, Prompt, Sampling, View, accuracy


async def test_a_trial_stands_beside_its_policy_in_the_order_of_the_queries() -> None:
    backend = FakeBackend({(POLICY, TRIAL): {"a", "c"}, (POLICY, None): {"b"}})
    got = await evaluate(Evaluator(backend, kept_verdicts=99), TUNED_POLICY, TRIAL, "a", "b", "c")
    assert [v.query_id for v in got.verdicts] == ["q/a", "q/b", "q/c"] == [v.query_id for v in got.baseline_verdicts]
    assert right(got.verdicts) == [True, False, True]
    assert right(got.baseline_verdicts) == [False, True, False]


async def test_without_an_adapter_the_policy_stands_beside_the_base() -> None:
    backend = FakeBackend({(POLICY, None): {"a"}, (None, None): {"b"}})
    got = await evaluate(Evaluator(backend, kept_verdicts=99), TUNED_POLICY, None, "a", "b")
    assert right(got.verdicts) == [True, False]
    assert right(got.baseline_verdicts) == [False, True]


async def test_an_answer_that_is_one_of_the_other_golds_is_right() -> None:
    asked = [q.model_copy(update={"other_golds": ("perhaps", "no")}) for q in queries("a", "b")]
    found = await Evaluator(FakeBackend({}), kept_verdicts=9).evaluate(
        request(BASE_POLICY, TRIAL, queries=(asked[0], asked[1].model_copy(update={"other_golds": ()})))
    )
    assert right(found.verdicts) == [True, False]


async def test_subject_baseline_and_retention_are_asked_at_once() -> None:
    backend = FakeBackend({(None, None): {"r", "s"}})
    suites = {"retention_queries": queries("r", "s"), "earlier_queries": queries("e")}
    await evaluate(Evaluator(backend, kept_verdicts=99), BASE_POLICY, TRIAL, "a", "b", **suites)
    assert backend.most_running == 8


async def test_three_trials_at_once_have_the_baseline_answered_once() -> None:
    backend = FakeBackend({})
    evaluator = Evaluator(backend, kept_verdicts=99)
    trials = [AdapterRef(digest=str(i) * 64) for i in range(3)]
    got = await asyncio.gather(*(evaluate(evaluator, TUNED_POLICY, trial, "a", "b") for trial in trials))
    assert backend.asked["a", POLICY, None] == backend.asked["b", POLICY, None] == 1
    assert sum(g.usage.completion_tokens for g in got) == 3 * 2 + 2


async def test_the_baseline_outlives_the_trial_that_asked_for_it_first() -> None:
    backend = FakeBackend({})
    evaluator = Evaluator(backend, kept_verdicts=99)
    first = asyncio.ensure_future(evaluate(evaluator, BASE_POLICY, TRIAL, "a"))
    second = asyncio.ensure_future(evaluate(evaluator, BASE_POLICY, AdapterRef(digest="c" * 64), "a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert len((await second).baseline_verdicts) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(temperature=0, max_tokens=5)},
        {"judge": "content"},
        {"policy": BASE_POLICY},
        {"queries": tuple(q.model_copy(update={"gold": "no"}) for q in queries("a"))},
        {"queries": tuple(q.model_copy(update={"other_golds": ("no",)}) for q in queries("a"))},
    ],
)
async def test_a_baseline_is_not_taken_for_another(change: dict[str, object]) -> None:
    backend = FakeBackend({})
    evaluator = Evaluator(backend, kept_verdicts=99)
    usual = request(TUNED_POLICY, TRIAL, "a")
    asked = []
    for one in (usual, usual, usual.changed(**change)):
        await evaluator.evaluate(one)
        asked.append(sum(times for (_, _, trial), times in backend.asked.items() if trial is None))
    assert asked == [1, 1, 2]


async def test_routed_policies_share_the_answers_of_an_adapter_and_of_the_base_model() -> None:
    """Only what no version with the same route was asked before is asked: here, the question on the new passage."""
    first, second = (AdapterRef(digest=digit * 64) for digit in "12")
    old, new = (AdapterRef(digest=digit * 64) for digit in "34")
    backend = FakeBackend({(None, None): {"general"}, (old, None): {"of old"}, (new, None): {"of new"}})
    backend.routes = {
        (first, "of old"): old, (first, "general"): None, (first, "of new"): None,
        (second, "of old"): old, (second, "general"): None, (second, "of new"): new,
    }  # fmt: skip
    evaluator = Evaluator(backend, kept_verdicts=100)

    async def measured(adapter: AdapterRef) -> list[Outcome]:
        policy = Policy(name="policies/r", adapter=adapter)
        found = await evaluate(evaluator, policy, None, "of old", "general", "of new")
        return [verdict.outcome for verdict in found.verdicts]

    right, wrong = Outcome.CORRECT, Outcome.INCORRECT
    assert await measured(first) == [right, right, wrong]
    backend.asked.clear()
    assert await measured(second) == [right, right, right]
    assert backend.asked == {("of new", new, None): 1}


async def test_baseline_and_subject_draw_the_same_noise_and_queries_their_own() -> None:
    backend = FakeBackend({})
    sampling = Sampling(temperature=1, seed=4)
    await evaluate(Evaluator(backend, kept_verdicts=9), BASE_POLICY, TRIAL, "a", "b", sampling=sampling)
    assert [len(seeds) for seeds in backend.seeds.values()] == [1, 1]
    assert backend.seeds["a"] != backend.seeds["b"]


class TestRetention:
    async def ask(self, backend: FakeBackend, limit: int, names: str, policy: Policy = BASE_POLICY) -> Evaluation:
        suite = {"retention_queries": queries(*names), "retention_limit": limit}
        return await evaluate(Evaluator(backend, kept_verdicts=99), policy, TRIAL, **suite)

    async def test_forgetting_is_before_minus_after_on_what_the_base_knows(self) -> None:
        backend = FakeBackend({(None, None): set("abcd"), (POLICY, None): set("abcx"), (POLICY, TRIAL): set("axd")})
        retention = (await self.ask(backend, 0, "axbcyd", TUNED_POLICY)).retention
        assert retention is not None
        assert (retention.kept, retention.accuracy_before, retention.accuracy_after) == (4, 0.75, 0.5)
        assert retention.forgetting == 0.25
        assert retention.lost_query_ids == ("q/b", "q/c")

    async def test_the_first_that_the_base_knows_are_kept_up_to_the_limit_and_no_more_are_asked(self) -> None:
        backend = FakeBackend({(None, None): set("bdf"), (None, TRIAL): set("b")})
        retention = (await self.ask(backend, 2, "abcdefgh")).retention
        assert retention is not None
        assert (retention.kept, retention.accuracy_before, retention.lost_query_ids) == (2, 1.0, ("q/d",))
        assert {text for text, _, trial in backend.asked if trial} == {"b", "d"}
        assert not {text for text, _, _ in backend.asked} & set("efgh")

    async def test_a_suite_that_the_base_knows_nothing_of_forgets_nothing(self) -> None:
        retention = (await self.ask(FakeBackend({}), 0, "abc")).retention
        assert retention is not None
        assert (retention.kept, retention.forgetting) == (0, 0.0)

    async def test_no_suite_no_retention(self) -> None:
        assert (await self.ask(FakeBackend({}), 0, "")).retention is None

    async def test_its_interval_is_as_wide_as_few_queries_and_flips_make_it(self) -> None:
        few, many = "abcd", "abcdefghijklmnopqrstuvwxyz"
        widths = []
        for names, variance in ((few, 0.0), (many, 0.0), (many, 0.05)):
            backend = FakeBackend({(None, None): set(many), (None, TRIAL): set(many[1::2])})
            backend.batch_variant_rate = variance
            got = await self.ask(backend, 0, names)
            assert got.retention is not None
            assert got.retention.forgetting_low < got.retention.forgetting == 0.5 < got.retention.forgetting_high
            assert got.batch_variant_rate == variance
            widths.append(got.retention.forgetting_high - got.retention.forgetting_low)
        assert widths[0] > widths[1]
        assert widths[2] == pytest.approx(widths[1] + 4 * 0.05)

    async def test_without_a_query_in_use_the_interval_is_all_there_is(self) -> None:
        retention = (await self.ask(FakeBackend({}), 0, "abc")).retention
        assert retention is not None
        assert (retention.forgetting_low, retention.forgetting_high) == (-1.0, 1.0)


class FlakyJudge:
    """Fails on the questions in `fails`."""

    name, version = "flaky", "1"

    def __init__(self, *fails: str) -> None:
        self.fails = set(fails)

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        answer = answers[0].text
        if question in self.fails:
            raise Unavailable("the judge does not answer")
        return Judgement(Outcome.CORRECT if answer == gold else Outcome.INCORRECT)


class TestUngraded:
    @pytest.fixture
    def judge(self, monkeypatch: pytest.MonkeyPatch) -> FlakyJudge:
        judge = FlakyJudge("b")
        monkeypatch.setattr("evaluator_svc.evaluate.load_judge", lambda name, settings: judge)
        return judge

    async def test_it_is_counted_apart_and_never_taken_for_wrong(self, judge: FlakyJudge) -> None:
        backend = FakeBackend({(None, TRIAL): {"a", "b"}})
        got = await evaluate(Evaluator(backend, kept_verdicts=99), BASE_POLICY, TRIAL, "a", "b")
        assert [v.outcome for v in got.verdicts] == [Outcome.CORRECT, Outcome.UNGRADED]
        assert "does not answer" in got.verdicts[1].reason
        assert accuracy(got.verdicts) == 1.0

    async def test_a_baseline_that_was_not_graded_is_asked_again(self, judge: FlakyJudge) -> None:
        evaluator = Evaluator(FakeBackend({}), kept_verdicts=99)
        await evaluate(evaluator, BASE_POLICY, TRIAL, "a", "b")
        judge.fails.clear()
        got = await evaluate(evaluator, BASE_POLICY, TRIAL, "a", "b")
        assert [v.outcome for v in got.baseline_verdicts] == [Outcome.INCORRECT] * 2

    async def test_retention_counts_what_was_graded_before_and_after(self, judge: FlakyJudge) -> None:
        backend = FakeBackend({(None, None): {"a", "b", "c"}, (None, TRIAL): {"a"}})
        evaluator = Evaluator(backend, kept_verdicts=99)
        got = await evaluate(evaluator, BASE_POLICY, TRIAL, judge="flaky", retention_queries=queries("a", "b", "c"))
        assert got.retention is not None
        assert (got.retention.kept, got.retention.forgetting, got.retention.lost_query_ids) == (2, 0.5, ("q/c",))


async def test_reasoning_is_not_judged_and_an_answer_that_ends_in_it_is_wrong_with_that_reason() -> None:
    said = {"a": ("no", "The answer is yes."), "b": ("", "So the answer is yes"), "c": ("", ""), "d": ("yes", "No?")}

    class Thinking(FakeBackend):
        async def generate(self, prompt: Prompt, *args: Any, **kwargs: Any) -> Generation:
            text, reasoning = said[prompt.user]
            return (await super().generate(prompt, *args, **kwargs)).changed(text=text, reasoning=reasoning)

    got = await evaluate(Evaluator(Thinking({}), kept_verdicts=9), BASE_POLICY, TRIAL, *said, judge="content")
    assert [v.outcome.value for v in got.verdicts] == ["incorrect", "incorrect", "incorrect", "correct"]
    assert [(v.answer, v.reasoning) for v in got.verdicts] == list(said.values())
    cut = [v.query_id for v in got.verdicts if v.reason.startswith(NOT_ANSWERED)]
    assert cut == ["q/b"], "the reason is not for an empty answer without reasoning"
    assert "evaluation.sampling.max_tokens" in got.verdicts[1].reason


async def test_views_that_ended_in_their_reasoning_have_no_say_in_the_verdict() -> None:
    class Thinking(FakeBackend):
        async def generate(self, prompt: Prompt, *args: Any, **kwargs: Any) -> Generation:
            got = await super().generate(prompt, *args, **kwargs)
            return got.changed(text="", reasoning="[[2]]") if prompt.user == "cut" else got.changed(text="[[1]]")

    (query,) = queries("asked")
    view = View(label="identity/1", prompt=Prompt(user="cut"))
    asked = {"queries": (query.changed(gold="[[1]]", views=(view, view.changed(label="identity/2"))),), "judge": "grid"}
    (verdict,) = (await evaluate(Evaluator(Thinking({}), kept_verdicts=9), BASE_POLICY, TRIAL, **asked)).verdicts
    assert (verdict.outcome, verdict.reasoning) == (Outcome.CORRECT, "")


async def test_a_failing_row_ends_the_evaluation_with_its_own_error_and_frees_the_others() -> None:
    backend = FakeBackend({})
    backend.fault = QueueFull("full", retry_after=3)
    with pytest.raises(QueueFull) as caught:
        await evaluate(Evaluator(backend, kept_verdicts=9), BASE_POLICY, TRIAL, "a", "b", "c")
    assert caught.value.retry_after == 3
    assert backend.running == 0


async def test_an_unknown_judge_and_a_query_that_comes_twice_are_refused() -> None:
    evaluator = Evaluator(FakeBackend({}), kept_verdicts=9)
    with pytest.raises(UnknownJudge):
        await evaluate(evaluator, BASE_POLICY, None, "a", judge="oracle")
    for suite in ("queries", "earlier_queries", "retention_queries"):
        with pytest.raises(InvalidInput, match="q/a"):
            await evaluate(evaluator, BASE_POLICY, None, **{suite: queries("a", "a")})


async def test_a_fresh_evaluation_takes_nothing_from_what_was_kept_and_leaves_it_be() -> None:
    backend = FakeBackend({(POLICY, None): {"a"}, (None, None): {"r"}})
    evaluator = Evaluator(backend, kept_verdicts=99)
    suite = {"retention_queries": queries("r")}
    await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", **suite)
    await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", **suite, fresh=True)
    assert backend.asked["a", POLICY, None] == backend.asked["r", None, None] == 2
    await evaluate(evaluator, TUNED_POLICY, TRIAL, "a", **suite)
    assert backend.asked["a", POLICY, None] == backend.asked["r", None, None] == 2


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_prometheus_hears_of_answers_baselines_and_retention() -> None:
    names = [("seal_answers_total", {"outcome": o}) for o in ("correct", "incorrect", "ungraded")]
    names += [("seal_cache_lookups_total", {"cache": "baseline", "result": r}) for r in ("hit", "miss")]
    names += [("seal_retention_accuracy_count", {}), ("seal_retention_accuracy_sum", {})]
    before = [sample(name, **labels) for name, labels in names]
    evaluator = Evaluator(FakeBackend({(None, None): {"r", "s"}, (None, TRIAL): {"a", "s"}}), kept_verdicts=99)
    for _ in range(2):
        await evaluate(evaluator, BASE_POLICY, TRIAL, "a", "b", retention_queries=queries("r", "s"))
    after = [sample(name, **labels) for name, labels in names]
    # Right: r and s by the base, once, a and s by the trial, twice. Wrong: a and b by the base, b and r by the trial.
    assert [b - a for a, b in zip(before, after, strict=True)] == [6, 6, 0, 1, 1, 2, 1.0]
