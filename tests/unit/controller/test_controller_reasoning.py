"""Thinking models: a run keeps their reasoning apart from what it trains on and judges, and passes arguments to their
chat template."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.db import trials
from controller.db.access import FULL_ACCESS
from sealkit.config import parse_config
from sealkit.errors import AdapterNotFound, InvalidConfig
from sealkit.reasoning import MARKERS, split
from sealkit.resources import Run, RunState, Trial, TrialState
from sealkit.types import NOT_ANSWERED, Completion, Evaluation, EvaluationRequest, Outcome, Prompt, Verdict, digest_of
from tests.unit.controller.controller_fakes import FakeServices
from tests.unit.controller.controller_system import System
from tests.unit.controller.test_controller_study import EASY, QUESTIONS, studying

OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}


class ThinkingServices(FakeServices):
    """A generator that keeps what is marked as reasoning apart, as the backends do."""

    async def sample(self, *args: Any, **kwargs: Any) -> AsyncIterator[Completion]:
        async for one in super().sample(*args, **kwargs):
            said = split(one.text, MARKERS[0])
            yield one.changed(text=said.text, reasoning=said.reasoning)


def thinking(context_id: str, index: int, seed: int) -> str:
    """The second of two self-edits is cut inside its reasoning."""
    return f"<think>Secret {index}." + ("" if index else f"</think>good edit of {context_id}")


async def finished(system: System, **changes: Any) -> tuple[Run, list[Trial]]:
    config = {"rounds": 1, "editor": {"k": 2}, "held_out": {"samples": 0}, "selection": EASY, **changes}
    async with system.working():
        run = await system.until(await system.create(**config))
    return run, [await system.database.read(trials.get, FULL_ACCESS, t.name) for t in await system.trials(run)]


async def test_reasoning_is_kept_beside_the_self_edit_and_nothing_is_trained_on_it(system: System) -> None:
    system.services = services = ThinkingServices()
    services.text = thinking
    run, found = await finished(system)
    edits = [trial for trial in found if trial.editor == "policy"]
    assert run.state is RunState.SUCCEEDED
    good = [trial for trial in edits if trial.index == 0]
    assert {(t.reasoning, t.completion, t.state) for t in good} == {
        ("Secret 0.", f"good edit of {t.context_id} base", TrialState.SUCCEEDED) for t in good
    }
    trained = [example.text for spec in services.specs for example in spec.examples]
    trained += [completion for completions in services.taught for completion in completions]
    assert [text for text in trained if "Secret" in text or "think" in text] == []
    assert [trial.completion for trial in good if trial.selected] == services.taught[0]

    cut = [trial for trial in edits if trial.index == 1]
    assert {(t.state, t.completion, t.reasoning) for t in cut} == {(TrialState.REJECTED, "", "Secret 1. base")}
    assert cut[0].rejection.startswith("ONLY_REASONING: it ended inside its reasoning, after 14 characters; raise ")
    assert "editor.sampling.max_tokens" in cut[0].rejection


async def test_a_second_attempt_says_the_same(system: System) -> None:
    """The self-edit is not sampled again, so that it was reasoning alone must be known from the record."""
    system.services = services = ThinkingServices()
    services.text = thinking
    lost = {"left": 2}

    async def vanish(call: str, what: str) -> None:
        if call == "evaluate" and lost["left"]:
            lost["left"] -= 1
            raise AdapterNotFound("the store lost it")

    services.before = vanish
    _, found = await finished(system, contexts_per_round=1, passage_only=False)
    assert lost["left"] == 0
    assert services.calls["sample"] == 2
    assert sorted(trial.rejection.partition(":")[0] for trial in found) == ["", "ONLY_REASONING"]


async def test_a_teacher_s_reasoning_is_kept_apart_too(system: System) -> None:
    """The first self-edit's teacher answers one question, that of the second none."""
    asked: dict[str, int] = {}

    def written(context_id: str, index: int, seed: int) -> str:
        if not context_id.startswith("question-"):
            return "\n".join(f"{i}. {q.format(n=context_id)} ({index})?" for i, q in enumerate(QUESTIONS, 1))
        first = asked.setdefault(str(seed), len(asked)) == 0
        return "<think>Secret." + ("</think>Tessa Vole" if first and context_id.endswith("0") else "")

    system.services = services = ThinkingServices()
    services.text = written
    given = studying(evaluation={"chat_template_kwargs": ON}, contexts_per_round=1)
    _, found = await finished(system, passage_only=False, **{k: v for k, v in given.items() if k != "selection"})
    answered, silent = sorted(found, key=lambda trial: trial.rejection)
    assert (answered.state, answered.teacher_answers) == (TrialState.SUCCEEDED, ("Tessa Vole base", ""))
    assert answered.teacher_reasoning == ("Secret.", "Secret. base")
    assert [example.text for example in services.specs[0].examples][:-1] == ["Tessa Vole base"]
    assert (silent.state, silent.teacher_answers) == (TrialState.REJECTED, ("", ""))
    assert silent.rejection.startswith("ONLY_REASONING: the teacher's answers: it ended inside its reasoning")
    assert "inner_loop.teaching.max_tokens" in silent.rejection


class Unanswered(FakeServices):
    """No question of the baseline is answered, and none of the subject if `subject` says so."""

    subject = True

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        found = await super().evaluate(request)

        def unanswered(verdicts: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
            return tuple(v.changed(outcome=Outcome.INCORRECT, reason=NOT_ANSWERED + "why") for v in verdicts)

        found = found.changed(baseline_verdicts=unanswered(found.baseline_verdicts))
        return found.changed(verdicts=unanswered(found.verdicts)) if self.subject else found


@pytest.mark.parametrize("subject", [True, False])
async def test_a_trial_in_which_no_question_is_answered_measures_nothing(system: System, subject: bool) -> None:
    system.services = services = Unanswered()
    services.subject = subject
    services.text = lambda context_id, index, seed: "good"
    run, found = await finished(system)
    assert {(t.state, t.error.reason if t.error else "") for t in found if t.editor == "policy"} == (
        {(TrialState.FAILED, "ONLY_REASONING")} if subject else {(TrialState.SUCCEEDED, "")}
    )
    if subject:
        assert run.error is not None
        assert "without the adapter either: not answered: why" in run.error.message


async def test_arguments_for_the_template_are_in_every_prompt_and_in_the_manifest(system: System) -> None:
    given = {
        "editor": {"k": 1, "chat_template_kwargs": ON},
        "evaluation": {"judge": "exact", "retention_limit": 2, "earlier_contexts": 1, "chat_template_kwargs": OFF},
        "rehearsal": {"examples": 1, "source": "model"},
        "inner_loop": {"anchors": {"source": "suite", "count": 1}},
    }
    system.services.text = lambda context_id, index, seed: "good"
    _, found = await finished(system, rounds=2, **given)
    services, own = system.services, []

    def kwargs(*prompts: Prompt | None) -> list[dict[str, Any]]:
        own.append(len(prompts))
        return [prompt.chat_template_kwargs for prompt in prompts if prompt is not None]

    edits, asked = [], []
    for _, prompt, _ in services.sampled:
        (edits if prompt.user.startswith("Rewrite") else asked).append(prompt)
    spec = services.specs[-1]
    questions = [q.prompt for e in services.evaluated for q in (*e.queries, *e.retention_queries, *e.earlier_queries)]
    assert kwargs(*edits) == [ON] * len(edits) != []
    assert kwargs(*asked, *questions) == [OFF] * (len(asked) + len(questions))
    assert kwargs(*(e.prompt for e in (*spec.rehearsal, *spec.anchors))) == [OFF] * 2
    assert 0 not in own
    instructions = found[0].manifest["instructions"]
    assert (instructions["editor_template"], instructions["question_template"]) == (ON, OFF)


def test_arguments_are_part_of_a_prompt_s_digest_and_none_leave_it_as_it_was() -> None:
    plain, off, on = (Prompt(user="u", chat_template_kwargs=kwargs) for kwargs in ({}, OFF, ON))
    assert plain.model_dump(mode="json") == {"user": "u", "system": "", "format": "auto", "shots": []}
    assert len({digest_of(prompt) for prompt in (plain, off, on)}) == len({plain, off, on}) == 3


def test_arguments_that_no_template_can_get_are_refused_with_their_key() -> None:
    faults = []
    for section in ("editor", "evaluation"):
        for name, value in (("messages", []), ("add_generation_prompt", False), ("day", {1, 2}), ("x", float("nan"))):
            try:
                parse_config({section: {"chat_template_kwargs": {name: value}}})
            except InvalidConfig as error:
                if f"{section}.chat_template_kwargs" in error.message:
                    continue
            faults.append((section, name))
    assert faults == []
    assert parse_config({"editor": {"chat_template_kwargs": ON}}).editor.chat_template_kwargs == ON
