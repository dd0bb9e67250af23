"""An alias whose documents were learned with one domain is not continued with another, which cannot read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from controller.db import aliases, policies
from controller.db.access import FULL_ACCESS
from controller.report.lineage import lineage, origin
from sealkit.domains.base import Context
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.errors import FailedPrecondition
from sealkit.learning import difference
from sealkit.reports import Lineage
from sealkit.resources import DocumentState, GateState, RunState
from tests.unit.controller.controller_fakes import records
from tests.unit.controller.controller_system import System
from tests.unit.controller.learn_fakes import LearningServices, create, document, learned, learning_config, reports

NOTES = f"{__name__}:NotesDomain"


class NotesDomain(KnowledgeDomain):
    """A plug-in that learns documents too; its contexts have another form."""

    name = "notes"

    def of_passage(self, title: str, headings: Sequence[str], text: str) -> Context:
        return _as_note(super().of_passage(title, headings, text))

    def with_exam(self, context: Context, exam: Sequence[tuple[str, str]], overlap: float) -> Context:
        return _as_note(super().with_exam(_as_passage(context), exam, overlap))


def _as_note(context: Context) -> Context:
    return context.changed(payload={"note": context.payload})


def _as_passage(context: Context) -> Context:
    return context.changed(payload=context.payload["note"])


def _of_note(name: str) -> Any:
    def method(self: NotesDomain, context: Context, *args: Any) -> Any:
        return getattr(KnowledgeDomain, name)(self, _as_passage(context), *args)

    return method


for _name in (
    "prompt", "compile", "study", "teach", "queries", "ready_made", "passage_text", "exam_prompt", "exam_items",
    "exam_blanks", "exam_fault", "overlap",
):  # fmt: skip
    setattr(NotesDomain, _name, _of_note(_name))

IN_NOTES = {"name": NOTES, "options": {**learning_config()["domain"]["options"], "cues": 0}}


async def lineage_of(system: System, name: str) -> Lineage:
    return lineage(await system.database.read(origin, FULL_ACCESS, name), system.plugins)


async def test_documents_of_another_domain_are_neither_continued_nor_forgotten(system: System) -> None:
    system.services, system.plugins = LearningServices(), (NOTES,)
    first = await create(system, {"arun.txt": document("Arun")}, request_id="first", domain=IN_NOTES)
    queued = await create(system, {"bela.md": document("Bela")}, request_id="queued")
    async with system.working():
        for run in (first, queued):
            await system.until(run)
    (known,) = await reports(system, first)
    assert known.state is DocumentState.LEARNED

    failed = await system.run(queued)
    assert failed.error is not None
    assert (failed.state, failed.error.reason) == (RunState.FAILED, "FAILED_PRECONDITION")
    assert f"{known.policy}, which knows documents of the domain {NOTES}" in failed.error.message
    assert await system.policies(queued) == []
    assert [one.state for one in await reports(system, queued)] == [DocumentState.WAITING]
    for found, forget in (({"bela.md": document("Bela")}, ()), ({}, ("arun.txt",))):
        with pytest.raises(FailedPrecondition, match="take another alias, or a config with that domain") as refused:
            await create(system, found, request_id="later", forget=forget)
        assert refused.value.metadata == {"alias": "aliases/main", "policy": known.policy}

    assert (await system.database.read(aliases.get, FULL_ACCESS, "main")).policy == known.policy
    now = await lineage_of(system, "aliases/main")
    assert [(one.name, len(one.queries)) for one in now.documents] == [("arun.txt", 2)]
    start = (await system.policies(first))[0].name
    assert [one.document for one in difference(await lineage_of(system, start), now).learned] == ["arun.txt"] * 2
    forgotten = await learned(system, {}, request_id="forget", forget=("arun.txt",), domain=IN_NOTES)
    assert forgotten.state is RunState.SUCCEEDED
    again = await learned(system, {"bela.md": document("Bela")}, request_id="again")
    assert [one.state for one in await reports(system, again)] == [DocumentState.LEARNED], "it knows nothing of notes"


async def test_an_alias_of_an_adaptation_learns_no_documents_and_can_be_read(system: System) -> None:
    system.services.lost = lambda subject: 0.0
    one = records(train=1, held_out=0)
    run = await system.create(
        dataset=one, task="adapt", gate={"alias": "main"}, adapt={"commit": "join"}, held_out={"samples": 0}
    )
    async with system.working():
        await system.until(run)
    adapted = (await system.database.read(aliases.get, FULL_ACCESS, "main")).policy
    assert (await system.database.read(policies.get, FULL_ACCESS, adapted)).gate is GateState.PASSED
    for found, forget in (({"bela.md": document("Bela")}, ()), ({}, ("arun.txt",))):
        with pytest.raises(FailedPrecondition, match=r"not made by learning documents.*`seal adapt`"):
            await create(system, found, request_id="learn", forget=forget)
    system.plugins = ()  # as a controller that has not the adaptation's domain
    assert (await lineage_of(system, "aliases/main")).documents == ()
