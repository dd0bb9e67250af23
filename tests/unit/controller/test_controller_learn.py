"""Learning documents on an alias: exams that models write, one document after the other, wholly or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.db import aliases, contexts, events, trials
from controller.db.access import FULL_ACCESS
from sealkit.config import parse_config
from sealkit.domains.knowledge.exam import overlap
from sealkit.errors import InvalidConfig, InvalidDataset
from sealkit.learning import learn_config
from sealkit.resources import DocumentState, GateState, RunState, StageStarted, TrialState
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System, science
from tests.unit.controller.learn_fakes import (
    POISON,
    LearningServices,
    create,
    document,
    learned,
    reports,
    rows,
    version,
)

TWO = {"arun.txt": document("Arun"), "bela.md": document("Bela")}
LEARNED, NOT_ADOPTED, SKIPPED = DocumentState.LEARNED, DocumentState.NOT_ADOPTED, DocumentState.SKIPPED


@pytest.fixture
def taught(system: System) -> System:
    system.services = LearningServices()
    return system


async def points_to(system: System, alias: str = "main") -> str:
    return (await system.database.read(aliases.get, FULL_ACCESS, alias)).policy


async def test_each_document_is_learned_with_an_exam_of_its_own(taught: System) -> None:
    run = await learned(taught, TWO)
    assert (run.state, run.error) == (RunState.SUCCEEDED, None)
    assert (run.progress.rounds_done, run.progress.rounds_total) == (2, 2)
    assert run.progress.trials_done == run.progress.trials_total == 4
    found = await reports(taught, run)
    assert [(one.name, one.state, one.reason) for one in found] == [("arun.txt", LEARNED, ""), ("bela.md", LEARNED, "")]
    for one in found:
        assert (one.questions, one.accuracy_before, one.accuracy_after, one.lost) == (2, 0.0, 1.0, ())
        assert (one.passages, one.learned, one.generated) == (1, 1, True)
        assert one.seconds is not None
    assert await points_to(taught) == found[1].policy
    assert all(trial.generated_exam for trial in await taught.trials(run))
    both = await version(taught, found[1].policy)
    assert {name.split("/")[3] for name in both.trials} == {"0", "1"}


async def test_no_self_edit_studies_what_the_exam_asks(taught: System) -> None:
    run = await learned(taught, {"arun.txt": document("Arun")})
    (context,) = await taught.database.read(contexts.of_split, run.name.removeprefix("runs/"), "train")
    exam = [(item["question"], item["answer"]) for item in context.payload["questions"]]
    assert [answer for _, answer in exam] == ["red", "Arunson"]
    studied = [
        (example.prompt.user.rpartition("\n")[2], example.text)
        for spec in taught.services.specs
        for example in spec.examples
        if example.prompt
    ]
    assert {text for _, text in studied} == {"Arunton", "Arunsmith"}
    assert all(overlap(context.payload["title"], fact, asked) <= 0.5 for fact in studied for asked in exam)


async def test_the_exam_has_only_what_models_agree_on_and_the_base_does_not_know(taught: System) -> None:
    assert isinstance(taught.services, LearningServices)
    taught.services.fickle.add("Arun")
    taught.services.familiar.add("Bela")
    run = await learned(taught, {**TWO, "cato.txt": document("Cato")})
    fickle, familiar, fit = await reports(taught, run)
    assert (fickle.state, familiar.state, fit.state) == (NOT_ADOPTED, NOT_ADOPTED, LEARNED)
    assert "of 2 questions, 0 can be used; 2: its answers do not agree" in fickle.reason
    assert "2: it is known" in familiar.reason
    (made,) = await taught.database.read(contexts.exams, run.name.removeprefix("runs/"), 0)
    assert [(one["answer"], one["agreed"], one["known"]) for one in made["questions"]] == [
        ("red", 0.0, False),
        ("Arunson", 0.0, False),
    ]


async def test_blanks_in_the_text_are_an_exam_where_no_question_can_be_used(taught: System) -> None:
    assert isinstance(taught.services, LearningServices)
    taught.services.fickle.add("Arun")
    found = {
        "arun.txt": document("Arun", extra="A stone otter sits on the small gate. Rowing boats pass under a bridge.")
    }
    run = await learned(taught, found)
    (one,) = await reports(taught, run)
    assert (one.state, one.generated, one.questions, one.accuracy_after) == (LEARNED, True, 2, 1.0), one.reason
    (context,) = await taught.database.read(contexts.of_split, run.name.removeprefix("runs/"), "train")
    assert [item["answer"] for item in context.payload["questions"]] == ["small gate", "bridge"]

    without = await learned(taught, found, request_id="s", alias="other", exam={"blanks": False})
    (one,) = await reports(taught, without)
    assert one.state is NOT_ADOPTED


async def test_a_poisoned_document_changes_nothing(taught: System) -> None:
    first = await learned(taught, {"arun.txt": document("Arun")}, request_id="first")
    before = await points_to(taught)
    bad = document("Bela", extra=f"It is {POISON}.")
    run = await learned(taught, {"bad.txt": bad, "cato.txt": document("Cato")}, request_id="second")
    poisoned, fit = await reports(taught, run)
    assert (poisoned.state, fit.state) == (NOT_ADOPTED, LEARNED)
    assert "forgot too much" in poisoned.reason
    assert "gate.max_adapter_forgetting is 0.5" in poisoned.reason
    history = (await taught.database.read(aliases.get, FULL_ACCESS, "main")).history
    assert [one.policy for one in history] == [fit.policy, before]
    assert (await reports(taught, first))[0].policy == before
    known = await version(taught, fit.policy)
    assert {taught.services.trained[known.adapter.digest].examples[-1].text.split()[-1]} == {"Catosmith."}
    assert not any(POISON in e.text for e in taught.services.trained[known.adapter.digest].examples)


async def test_a_version_that_is_refused_is_not_adopted(taught: System) -> None:
    """Every self-edit alone is harmless, but the version of all of them is not."""
    services = taught.services
    evaluate = services.evaluate

    async def wrecked(request: Any) -> Any:
        found = await evaluate(request)
        own = request.policy.adapter
        if own and not request.adapter and found.retention and len(services.trained[own.digest].examples) > 3:
            bad = {"forgetting": 0.9, "forgetting_low": 0.8, "forgetting_high": 1.0}
            return found.changed(retention=found.retention.changed(**bad))
        return found

    services.evaluate = wrecked  # type: ignore[method-assign]
    run = await learned(taught, TWO)
    one, other = await reports(taught, run)
    assert (one.state, other.state, one.policy) == (LEARNED, NOT_ADOPTED, await points_to(taught))
    assert "gate.max_forgetting" in other.reason
    assert [policy.gate for policy in await taught.policies(run)][1:] == [GateState.PASSED, GateState.REFUSED]


async def test_killed_over_and_over_it_ends_as_if_nothing_had_been(taught: System, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = System(tmp_path / "other")
    other.services = LearningServices()
    killed = await create(taught, TWO)
    deaths = await taught.killed_after(killed, (4, 5, 6, 9, 14, 23))
    assert deaths >= 4
    ends = []
    for each in (taught, other):
        run = await learned(each, TWO)
        versions = [policy.model_dump(exclude={"create_time", "usage"}) for policy in await each.policies(run)]
        history = (await each.database.read(aliases.get, FULL_ACCESS, "main")).history
        found = [one.model_dump(exclude={"seconds"}) for one in await reports(each, run)]
        ends.append((run.state, science(await each.trials(run)), versions, [c.policy for c in history], found))
    assert ends[0] == ends[1]
    assert ends[0][0] is RunState.SUCCEEDED
    await other.database.close()


async def test_again_goes_on_and_a_changed_document_replaces_its_old_version(taught: System) -> None:
    await learned(taught, TWO, request_id="first")
    start = await points_to(taught)
    changed = {"arun.txt": document("Arun", colour="blue"), "bela.md": TWO["bela.md"], "copy.txt": TWO["bela.md"]}
    run = await learned(taught, changed, request_id="second")
    arun, bela, copy = await reports(taught, run)
    assert (arun.state, bela.state, copy.state) == (LEARNED, SKIPPED, SKIPPED)
    assert bela.reason == "DUPLICATE_DOCUMENT: the alias knows it already"
    assert copy.reason.startswith("DUPLICATE_DOCUMENT")
    assert len(arun.replaces) == 64
    assert (await taught.policies(run))[0].parent == start
    made = await version(taught, arun.policy)
    texts = [example.text for example in taught.services.trained[made.adapter.digest].examples]
    assert any("The colour of Arun is blue." in text for text in texts)
    assert any("of Bela" in text for text in texts)
    assert not any("The colour of Arun is red." in text for text in texts)


async def test_as_shipped_a_passage_has_a_trial_of_its_cues_and_one_of_the_base_models_questions(
    taught: System,
) -> None:
    shipped = learn_config("main")
    run = await learned(taught, TWO, editor=shipped["editor"], domain=shipped["domain"], selection=shipped["selection"])
    assert [one.state for one in await reports(taught, run)] == [LEARNED, LEARNED]
    assert sorted(trial.editor for trial in await taught.trials(run)) == ["base", "base", "cues", "cues"]
    assert run.progress.trials_total == run.progress.trials_done == 4
    cued = [spec for spec in taught.services.specs if not any(e.teacher_prompt for e in spec.examples)]
    assert len(cued) == 2
    assert [len([e for e in spec.examples if e.prompt]) for spec in cued] == [8, 8], "two for each of four sentences"


async def test_a_version_has_a_route_to_the_adapter_of_each_document_and_nothing_is_trained_for_it(
    taught: System,
) -> None:
    run = await learned(taught, TWO)
    chosen = [trial for trial in await taught.trials(run) if trial.selected]
    routes = taught.services.routed[-1]
    assert [(route.adapter, route.text.split()[-1]) for route in routes] == [
        (chosen[0].adapter, "Arunsmith."),
        (chosen[1].adapter, "Belasmith."),
    ]
    assert taught.services.calls["train"] == run.progress.trials_done
    forgotten = await learned(taught, {}, request_id="forget", forget=("arun.txt",))
    assert forgotten.state is RunState.SUCCEEDED
    assert taught.services.routed[-1] == routes[1:]


async def test_with_consolidation_a_version_is_one_adapter_on_all_documents(taught: System) -> None:
    run = await learned(taught, TWO, adapt={"commit": "consolidate"})
    assert [one.state for one in await reports(taught, run)] == [LEARNED, LEARNED]
    assert taught.services.routed == []
    known = await version(taught, await points_to(taught))
    assert known.adapter is not None
    texts = " ".join(example.text for example in taught.services.trained[known.adapter.digest].examples)
    assert "Arunsmith" in texts
    assert "Belasmith" in texts


async def test_two_that_learn_on_one_alias_take_turns(taught: System) -> None:
    first = await create(taught, {"arun.txt": document("Arun")}, request_id="first")
    second = await create(taught, {"bela.md": document("Bela")}, request_id="second")
    third = await create(taught, {"cato.md": document("Cato")}, request_id="third", alias="other")
    assert second.progress.stage == f"queued behind {first.name}, on aliases/main"
    assert third.progress.stage == "queued"
    async with taught.working():
        for run in (first, second, third):
            assert (await taught.until(run)).state is RunState.SUCCEEDED
    assert (await taught.run(second)).start_time >= (await taught.run(first)).end_time  # type: ignore[operator]
    assert (await taught.policies(second))[0].parent == (await taught.policies(first))[-1].name
    assert len((await version(taught, await points_to(taught))).trials) == 2


async def test_an_alias_that_somebody_moves_is_left_to_them(taught: System) -> None:
    await learned(taught, TWO, request_id="first")
    latest, older = (one.policy for one in (await taught.database.read(aliases.get, FULL_ACCESS, "main")).history)

    async def meddle(call: str, what: str) -> None:
        if call == "train" and await points_to(taught) == latest:
            await taught.database.write(aliases.roll_back, change("aliases/main"), "")

    taught.services.before = meddle
    run = await learned(taught, {"cato.txt": document("Cato")}, request_id="second")
    assert run.error is not None
    assert (run.state, run.error.reason) == (RunState.FAILED, "ALIAS_MOVED")
    assert await points_to(taught) == older


async def test_what_cannot_be_read_is_named_and_the_others_are_learned(taught: System) -> None:
    run = await learned(taught, {"empty.txt": b" \n", "bad.pdf": b"no pdf", "arun.txt": document("Arun")})
    empty, bad, arun = await rows(taught, run)
    assert (empty.state, bad.state, arun.state) == (SKIPPED, SKIPPED, LEARNED)
    assert empty.reason == "EMPTY_DOCUMENT: is empty"
    assert bad.reason.startswith("INVALID_DOCUMENT: is named .pdf, but")
    seen, _ = await taught.database.read(events.after, FULL_ACCESS, run.name.removeprefix("runs/"), "", limit=1000)
    stages = [event.kind.stage for event in seen if isinstance(event.kind, StageStarted)]
    assert stages == ["reading the documents", "writing the exams", "E-step", "commit"]


async def test_a_document_whose_trials_all_fail_is_not_adopted(taught: System) -> None:
    async def fail(call: str, what: str) -> None:
        if call == "train" and "Arun" in what:
            raise InvalidConfig("diverged")

    taught.services.before = fail
    run = await learned(taught, TWO)
    one, other = await reports(taught, run)
    assert (one.state, other.state) == (NOT_ADOPTED, LEARNED)
    assert one.reason == "no self-edit could be tried: 2 failed (INVALID_CONFIG)"
    assert {t.state for t in await taught.database.read(trials.of_run, run.name.removeprefix("runs/"))} == {
        TrialState.FAILED,
        TrialState.SUCCEEDED,
    }


async def test_what_is_lost_is_told_question_by_question(taught: System) -> None:
    assert isinstance(taught.services, LearningServices)
    taught.services.crowded_out.add(("Bela", "Arun"))
    run = await learned(taught, TWO)
    one, other = await reports(taught, run)
    assert (one.lost, other.state) == ((), LEARNED)
    (lost,) = other.lost
    assert (lost.document, lost.question) == ("arun.txt", "What is the colour of Arun?")
    assert (lost.gold, lost.before, lost.after) == ("red", "red", "unknown")


def test_a_config_of_ones_own_learns_on_the_base_model_too() -> None:
    own = parse_config(learn_config("main", {"inner_loop": {"lora": {"rank": 4}}}))
    assert (own.task, own.adapt.commit, own.inner_loop.start_from) == ("adapt", "route", "base")
    assert own.inner_loop.lora.rank == 4


async def test_what_cannot_be_is_refused_before_anything_is_done(taught: System) -> None:
    async def refused(**changes: Any) -> str:
        with pytest.raises((InvalidConfig, InvalidDataset)) as caught:
            await create(taught, changes.pop("found", TWO), **changes)
        return caught.value.fields[0][0]

    assert await refused(task="rest_em") == "config.task"
    assert await refused(gate={}) == "config.gate.alias"
    assert await refused(start_policy="policies/x-0") == "config.start_policy"
    assert await refused(adapt={"commit": "join"}) == "config.adapt.commit"
    assert await refused(inner_loop={"start_from": "policy"}) == "config.inner_loop.start_from"
    assert await refused(exam={"editor": "nobody"}) == "config.exam.editor"
    assert await refused(found={" ": b"x"}) == "documents[0].name"
    assert await refused(domain={"name": "arc", "options": {}}) == "config.domain.name"
