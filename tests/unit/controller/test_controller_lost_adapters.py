"""A route whose adapter is no longer in the store: the next run on the alias trains it again, as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select

from controller.answer import Answers
from controller.db import aliases
from controller.db.access import FULL_ACCESS
from controller.db.tables import runs
from sealkit.errors import AdapterCorrupt, AdapterNotFound
from sealkit.resources import DocumentState, RunState, StageStarted
from sealkit.types import AdapterRef, AnswerDelta, Policy, Prompt, Sampling, TrainingResult, TrainingSpec
from tests.unit.controller.controller_system import System
from tests.unit.controller.learn_fakes import LearningServices, document, learned, reports

TWO = {"arun.txt": document("Arun"), "bela.md": document("Bela")}


@pytest.fixture
async def services(system: System) -> LearningServices:
    """Those of an alias that knows two documents, and whose adapter of the first is lost."""
    system.services = services = LearningServices()
    await learned(system, TWO, request_id="first")
    services.gone = {services.routed[-1][0].adapter.digest}
    return services


async def points_to(system: System) -> str:
    return (await system.database.read(aliases.get, FULL_ACCESS, "main")).policy


async def test_it_is_trained_again_and_the_next_document_is_learned(system: System, services: LearningServices) -> None:
    (lost,), before = services.gone, services.routed[-1]
    run = await learned(system, {"cato.txt": document("Cato")}, request_id="second")
    assert (run.state, run.error, services.gone) == (RunState.SUCCEEDED, None, set())
    assert services.specs.count(services.trained[lost]) == 2
    assert services.routed[-1][:2] == before
    assert [one.state for one in await reports(system, run)] == [DocumentState.LEARNED]
    stages = [event.kind.stage for event in await system.events(run) if isinstance(event.kind, StageStarted)]
    assert stages[:2] == ["training lost adapters again", "reading the documents"]


async def test_the_document_itself_is_skipped_but_its_adapter_is_there_again(
    system: System, services: LearningServices
) -> None:
    version = await points_to(system)
    run = await learned(system, {"arun.txt": TWO["arun.txt"]}, request_id="again")
    assert (run.state, run.error, services.gone) == (RunState.SUCCEEDED, None, set())
    assert [one.state for one in await reports(system, run)] == [DocumentState.SKIPPED]
    assert await points_to(system) == version
    spent = select(runs.c.spent_tokens).where(runs.c.run_id == run.name.removeprefix("runs/"))
    assert await system.database.read(lambda connection: connection.scalar(spent)) == 10, "of that training"


async def test_one_that_comes_out_otherwise_ends_the_run_and_names_the_document(
    system: System, services: LearningServices
) -> None:
    (lost,), train, version = services.gone, services.train_adapter, await points_to(system)

    async def newer(policy: Policy, spec: TrainingSpec, **options: Any) -> AsyncIterator[Any]:
        async for update in train(policy, spec, **options):
            yield update.changed(adapter=AdapterRef(digest="9" * 64)) if isinstance(update, TrainingResult) else update

    services.train_adapter = newer  # type: ignore[method-assign]
    run = await learned(system, {"cato.txt": document("Cato")}, request_id="second")
    assert run.error is not None
    assert (run.state, run.error.reason) == (RunState.FAILED, "NOT_REPRODUCIBLE")
    assert "the adapter of arun.txt (" in run.error.message
    assert f"restore {lost} from a backup" in run.error.message
    assert await points_to(system) == version


async def test_questions_about_it_name_the_document_and_others_are_answered(
    system: System, services: LearningServices
) -> None:
    (lost,) = services.gone
    kind = AdapterNotFound

    async def refuse(call: str, what: str) -> None:
        if call == "answer" and kind is not None:
            raise kind(f"adapter {lost} is not right", metadata={"digest": lost})

    services.before = refuse
    answers = Answers(system.database, services)

    async def asked() -> str:
        stream = answers.stream(FULL_ACCESS, "aliases/main", Prompt(user="Hello"), Sampling())
        return "".join([update.text async for update in stream if isinstance(update, AnswerDelta)])

    for kind in (AdapterNotFound, AdapterCorrupt):
        with pytest.raises(kind, match=r"aliases/main cannot answer what is about arun\.txt.*`seal learn`") as refused:
            await asked()
        assert refused.value.metadata == {"digest": lost, "document": "arun.txt"}
    lost = "8" * 64
    with pytest.raises(AdapterCorrupt, match=f"^adapter {lost} is not right$"):
        await asked()
    kind = None
    assert "says Hello" in await asked()
