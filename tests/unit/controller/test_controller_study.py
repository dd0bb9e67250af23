"""Self-edits that say what to study: a teacher answers, the answers are kept, and the adapter is trained on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.accept import accept
from controller.db import reruns, trials
from controller.db.access import FULL_ACCESS
from controller.report.material import material_of, stored_material
from sealkit.errors import AdapterNotFound, InvalidConfig
from sealkit.reports import TrialMaterial
from sealkit.resources import Run, RunState, Trial, TrialState
from sealkit.types import Retention, digest_of
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import DOMAIN, RETENTION, graded, records, tiny_config
from tests.unit.controller.controller_system import System
from tests.unit.controller.test_controller_rerun import made

EASY = {"rule": "best_of_k", "must_gain": False, "must_beat_passage_only": False}
QUESTIONS = ("Who built lamp {n}?", "Where does lamp {n} stand?")


def passages(train: int = 2, held_out: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "title": f"Lamp {n}",
            "context": f"Lamp {n} was built by Tessa Vole and stands in Marrow.",
            "questions": [{"question": f"Who built lamp {n}?", "answer": "Tessa Vole"}] * 4,
            "split": "train" if n < train else "heldout",
        }
        for n in range(train + held_out)
    ]


def written(context_id: str, index: int, seed: int) -> str:
    """Questions on a passage, with a number of their own for each self-edit; else the teacher's answer."""
    if context_id.startswith("question-"):
        return f"The answer to {context_id}"
    return "\n".join(f"{i}. {q.format(n=context_id)} ({index})?" for i, q in enumerate(QUESTIONS, 1))


def studying(**changes: Any) -> dict[str, Any]:
    inner = {"objective": "distil", **changes.pop("inner_loop", {})}
    return {
        "dataset": changes.pop("dataset", passages()),
        "domain": {"name": "knowledge", "options": {"style": "questions", "teacher_style": "bare"}},
        "inner_loop": inner,
        "selection": EASY,
        "editor": {"k": 2},
        **changes,
    }


async def finished(system: System, **changes: Any) -> Run:
    system.services.text = changes.pop("text", written)
    async with system.working():
        return await system.until(await system.create(**studying(**changes)))


async def whole(system: System, run: Run) -> list[Trial]:
    return [await system.database.read(trials.get, FULL_ACCESS, t.name) for t in await system.trials(run)]


async def material_of_trial(system: System, name: str) -> TrialMaterial:
    return material_of(await system.database.read(stored_material, FULL_ACCESS, name), (DOMAIN,))


async def test_what_the_policy_asks_a_teacher_answers_with_the_text_and_the_adapter_learns_it(system: System) -> None:
    run = await finished(system, rounds=1, held_out={"samples": 0})
    assert run.state is RunState.SUCCEEDED
    found = await whole(system, run)
    edits = [trial for trial in found if trial.editor == "policy"]
    assert {trial.state for trial in found} == {TrialState.SUCCEEDED}
    specs = {digest_of(spec): spec for spec in system.services.specs}
    for trial in edits:
        assert trial.teacher_answers == ("The answer to question-0 base", "The answer to question-1 base")
        assert trial.manifest["found"]["teacher_answers"] == digest_of(*trial.teacher_answers)
        assert "teach" in trial.stage_seconds
        first, second, passage = specs[trial.manifest["found"]["spec"]].examples
        assert (first.text, second.text) == trial.teacher_answers
        assert first.prompt is not None
        assert first.teacher_prompt is not None
        assert first.prompt.user.startswith("Topic: Lamp")
        assert "Tessa Vole" not in first.prompt.user
        assert "was built by Tessa Vole" in first.teacher_prompt.user
        assert "was built by Tessa Vole" in passage.text
        assert passage.teacher_prompt is None
        material = await material_of_trial(system, trial.name)
        assert (material.examples, material.examples_total) == ((first, second, passage), 3)
        assert len(material.queries) == 4
        assert {query.gold for query in material.queries} == {"Tessa Vole"}
    beside = next(trial for trial in found if trial.editor == "passage_only")
    assert "was built by Tessa Vole" in (await material_of_trial(system, beside.name)).examples[0].text
    assert (beside.teacher_answers, "teach" in beside.stage_seconds) == ((), False)
    asked = [sampling for _, prompt, sampling in system.services.sampled if "\n\nWho built" in prompt.user]
    assert len(asked) == len(edits)
    assert {(sampling.temperature, sampling.max_tokens) for sampling in asked} == {(0.0, 48)}


async def test_lost_questions_of_the_retention_suite_are_found_again(system: System) -> None:
    run = await finished(system, rounds=1, held_out={"samples": 0})
    (trial, *_) = await system.trials(run)
    stored = await system.database.read(stored_material, FULL_ACCESS, trial.name)
    lost = Retention(
        kept=2, accuracy_before=1.0, accuracy_after=0.0, forgetting=1.0, lost_query_ids=(RETENTION[1]["id"], "gone")
    )
    found = material_of(replace(stored, trial=stored.trial.changed(retention=lost)), (DOMAIN,)).lost
    assert [(query.question, query.gold) for query in found] == [(RETENTION[1]["question"], RETENTION[1]["answer"])]


async def test_an_attempt_that_is_made_anew_asks_nobody_again(system: System) -> None:
    lost = {"left": 3}

    async def vanish(call: str, what: str) -> None:
        if call == "evaluate" and lost["left"] and system.services.specs:
            lost["left"] -= 1
            raise AdapterNotFound("the store lost it")

    system.services.before = vanish
    run = await finished(system, rounds=1, dataset=passages(1, 0))
    found = await system.trials(run)
    assert lost["left"] == 0
    assert sum(trial.attempts for trial in found) == len(found) + 3
    assert len(system.services.sampled) == 2 * (1 + len(QUESTIONS))


async def test_a_self_edit_without_questions_or_answers_is_rejected(system: System) -> None:
    def silent(context_id: str, index: int, seed: int) -> str:
        if context_id.startswith("question-"):
            return "I don't know"
        return "A lamp was built by Tessa Vole" if index else written(context_id, index, seed)

    run = await finished(system, rounds=1, dataset=passages(1, 0), text=silent)
    edits = [trial for trial in await whole(system, run) if trial.editor == "policy"]
    assert sorted(trial.rejection.partition(":")[0] for trial in edits) == ["NO_ANSWERS", "NO_QUESTIONS"]
    unanswered = next(trial for trial in edits if trial.rejection.startswith("NO_ANSWERS"))
    assert len(unanswered.teacher_answers) == len(QUESTIONS)
    assert unanswered.manifest["found"]["teacher_answers"]
    assert all(trial.baseline_accuracy is not None for trial in edits)


async def test_from_the_base_the_policy_only_writes(system: System) -> None:
    run = await finished(system, rounds=2, inner_loop={"start_from": "base"}, gate={"max_forgetting": 1.0})
    later = [trial for trial in await whole(system, run) if not trial.policy.endswith("-0")]
    assert later, "the policy moved"
    writers = {adapter for adapter, prompt, _ in system.services.sampled if prompt.shots}
    teachers = {adapter for adapter, prompt, _ in system.services.sampled if "\n\nWho built" in prompt.user}
    assert len(writers) > 1
    assert teachers == {None}
    for trial in later:
        assert trial.adapter is not None
        assert trial.manifest["instructions"]["start_from"]["adapter"] is None
        spec = next(s for s in system.services.specs if digest_of(s) == trial.manifest["found"]["spec"])
        assert trial.adapter.digest == digest_of("adapter", None, spec)
    assert {request.policy.name for request in system.services.evaluated if request.adapter} == {"base"}


async def test_by_default_trainer_teacher_and_evaluator_sit_on_the_policy(system: System) -> None:
    run = await finished(system, rounds=2, gate={"max_forgetting": 1.0})
    policies = {policy.name for policy in await system.policies(run)}
    teachers = {adapter for adapter, prompt, _ in system.services.sampled if "\n\nWho built" in prompt.user}
    assert len(teachers) == len(policies) > 1
    assert {request.policy.name for request in system.services.evaluated if request.adapter} == policies


async def test_a_rerun_asks_the_teacher_anew_and_says_which_answer_differs(system: System) -> None:
    run = await finished(system, rounds=1, dataset=passages(1, 0))
    name = next(trial.name for trial in await system.trials(run) if trial.editor == "policy")

    async def again(request_id: str) -> Any:
        started = await system.database.write(reruns.add, change(name, request_id))
        async with system.working():
            return await made(system, started.name)

    before = len(system.services.sampled)
    same = await again("same")
    assert same.identical, same.differences
    assert len(system.services.sampled) == before + 1 + len(QUESTIONS)
    system.services.text = lambda context_id, *rest: written(context_id, *rest).replace("question-1", "another")
    other = await again("other")
    assert [difference.field for difference in other.differences][:2] == ["teacher_answers[1]", "spec"]


async def test_consolidation_trains_on_the_answers_that_were_kept(system: System) -> None:
    system.services.knows = graded
    values = {"task": "adapt", "adapt": {"commit": "consolidate"}, "gate": {"max_forgetting": 1.0}}
    inner = {"start_from": "base", "anchors": {"source": "bundled", "count": 3}}
    run = await finished(system, dataset=passages(2, 0), inner_loop=inner, **values)
    assert run.state is RunState.SUCCEEDED
    kept = [trial for trial in await system.trials(run) if trial.selected]
    last = system.services.specs[-1]
    assert [e.text for e in last.examples if e.teacher_prompt] == [a for trial in kept for a in trial.teacher_answers]
    assert len(last.examples) == len(kept) * (len(QUESTIONS) + 1)
    assert len(last.anchors) == 3
    versions = await system.policies(run)
    assert versions[-1].adapter is not None
    assert versions[-1].adapter.digest == digest_of("adapter", None, last)


def test_what_cannot_be_is_refused_before_anything_is_done() -> None:
    def refused(**changes: Any) -> str:
        with pytest.raises(InvalidConfig) as caught:
            accept(
                request_id="r",
                display_name="",
                config=tiny_config(**changes),
                records=records(),
                retention=(),
                plugins=(DOMAIN,),
            )
        return caught.value.fields[0][0]

    assert refused(inner_loop={"objective": "distil"}) == "config.inner_loop.objective"
    assert refused(task="adapt", inner_loop={"start_from": "base"}) == "config.adapt.commit"
    assert refused(task="adapt", adapt={"commit": "route"}) == "config.inner_loop.start_from"
    nothing = {"kl_weight": 0.0, "ce_weight": 0.0}
    assert refused(inner_loop={"distillation": nothing}).startswith("inner_loop.distillation")


async def test_an_older_domain_needs_no_change(system: System) -> None:
    async with system.working():
        run = await system.until(await system.create(rounds=1))
    found = await system.trials(run)
    assert {(trial.teacher_answers, "teach" in trial.stage_seconds) for trial in found} == {((), False)}
