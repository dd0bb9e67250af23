"""Where a version comes from, by digest, and how two versions differ, verdict by verdict."""

from __future__ import annotations

import hashlib

import pytest

from controller.db import trials
from controller.db.access import FULL_ACCESS, AccessScope
from controller.report.lineage import lineage, origin
from sealkit.errors import UnknownAlias
from sealkit.learning import difference
from sealkit.reports import Lineage
from sealkit.types import digest_of
from tests.unit.controller.controller_system import System
from tests.unit.controller.learn_fakes import LearningServices, document, learned, reports

TWO = {"arun.txt": document("Arun"), "bela.md": document("Bela")}


@pytest.fixture
def taught(system: System) -> System:
    system.services = LearningServices()
    return system


async def lineage_of(system: System, name: str) -> Lineage:
    return lineage(await system.database.read(origin, FULL_ACCESS, name), ())


async def test_a_version_is_traced_to_its_documents_self_edits_writer_and_base(taught: System) -> None:
    await learned(taught, TWO, request_id="first")
    run = await learned(taught, {"cato.txt": document("Cato")}, request_id="second")
    found = await lineage_of(taught, "aliases/main")
    assert (found.alias, found.version.name) == ("aliases/main", (await reports(taught, run))[0].policy)
    assert found.base_model == (await taught.services.info()).digest
    assert [(one.name, one.digest) for one in found.documents] == [
        (name, hashlib.sha256(content).hexdigest()) for name, content in {**TWO, "cato.txt": document("Cato")}.items()
    ]
    for one in found.documents:
        (trial,) = one.trials
        stored = await taught.database.read(trials.get, FULL_ACCESS, trial.name)
        assert (trial.self_edit, trial.adapter) == (digest_of(stored.completion), stored.adapter)
        assert trial.teacher_answers == digest_of(*stored.teacher_answers)
        assert (trial.editor, trial.policy_adapter) == ("base", None)
        assert [query.generated for query in one.queries] == [True, True]
        assert (one.accuracy_before, one.accuracy_after) == (0.0, 1.0)
    with pytest.raises(UnknownAlias):
        await taught.database.read(origin, AccessScope("others"), "aliases/main")


async def test_two_versions_differ_question_by_question(taught: System) -> None:
    assert isinstance(taught.services, LearningServices)
    taught.services.crowded_out.add(("Bela", "Arun"))
    run = await learned(taught, {"arun.txt": TWO["arun.txt"]}, request_id="first")
    older = (await reports(taught, run))[0].policy
    await learned(taught, {"bela.md": TWO["bela.md"]}, request_id="second")
    found = difference(await lineage_of(taught, older), await lineage_of(taught, "aliases/main"))
    assert found.first == older
    assert [(one.document, one.question, one.asked) for one in found.learned] == [
        ("bela.md", "What is the colour of Bela?", False),
        ("bela.md", "What is the keeper of Bela?", False),
    ]
    (lost,) = found.lost
    assert (lost.document, lost.gold, lost.before, lost.after) == ("arun.txt", "red", "red", "unknown")
    back = difference(await lineage_of(taught, "aliases/main"), await lineage_of(taught, older))
    assert back.lost == tuple(one.changed(asked=True, before=one.gold, after="") for one in found.learned)
