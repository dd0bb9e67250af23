"""Forgetting a document: the alias is trained again without it, and what was stored of it is deleted everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controller.db import aliases
from controller.db.access import FULL_ACCESS
from sealkit.errors import GateRefused, NothingToRollBack
from sealkit.resources import DocumentState, Run, RunState
from tests.unit.controller.changes import change
from tests.unit.controller.controller_system import System
from tests.unit.controller.learn_fakes import LearningServices, document, learned, reports, version

TWO = {"arun.txt": document("Arun"), "bela.md": document("Bela")}


@pytest.fixture
def taught(system: System) -> System:
    system.services = LearningServices()
    return system


def files_with(folder: Path, text: str) -> list[str]:
    """Names of the files that contain a text, also as JSON escapes it."""
    spellings = {text.encode(), json.dumps(text).strip('"').encode()}
    return [
        path.name for path in folder.rglob("*") if path.is_file() and any(s in path.read_bytes() for s in spellings)
    ]


async def forgotten(system: System, name: str = "arun.txt", request_id: str = "forget") -> Run:
    return await learned(system, {}, request_id=request_id, forget=(name,))


async def test_nothing_is_left_of_a_forgotten_document_and_the_others_are_still_known(
    taught: System, tmp_path: Path
) -> None:
    await learned(taught, TWO, request_id="first")
    latest = (await taught.database.read(aliases.get, FULL_ACCESS, "main")).policy
    await learned(taught, {"arun.txt": document("Arun", colour="blue")}, request_id="changed")
    known = await version(taught, (await taught.database.read(aliases.get, FULL_ACCESS, "main")).policy)
    assert files_with(tmp_path, "Arunson")
    run = await forgotten(taught)
    assert (run.state, run.error) == (RunState.SUCCEEDED, None)
    (told,) = await reports(taught, run)
    assert (told.name, told.state, told.questions) == ("arun.txt", DocumentState.FORGOTTEN, 2)
    assert (told.accuracy_before, told.accuracy_after) == (1.0, 0.0)
    assert "answered no better than before it was learned" in told.reason

    await taught.database.close()  # as a process that ends
    assert files_with(tmp_path, "Arun") == []
    assert files_with(tmp_path, "Belason")

    deleted = set(taught.services.deleted)
    assert known.adapter is not None
    assert known.adapter.digest in deleted
    texts = {digest: [e.text for e in spec.examples] for digest, spec in taught.services.trained.items()}
    assert {digest for digest, found in texts.items() if any("Arun" in text for text in found)} <= deleted
    taught.database = type(taught.database)(taught.url)
    now = await version(taught, (await taught.database.read(aliases.get, FULL_ACCESS, "main")).policy)
    assert now.adapter is not None
    assert now.adapter.digest not in deleted
    assert any("of Bela" in text for text in texts[now.adapter.digest])
    assert latest != now.name
    with pytest.raises(NothingToRollBack):
        await taught.database.write(aliases.roll_back, change("aliases/main"), "")


async def test_an_adapter_that_another_alias_routes_to_is_kept(taught: System) -> None:
    await learned(taught, TWO, request_id="first")
    await learned(taught, {"arun.txt": TWO["arun.txt"]}, request_id="other", alias="other")
    (shared,) = taught.services.routed[-1]
    first = taught.services.routed[1]
    assert shared.adapter == first[0].adapter, "the same training, so the same adapter"
    run = await forgotten(taught)
    assert run.state is RunState.SUCCEEDED
    assert shared.adapter.digest not in taught.services.deleted
    assert taught.services.deleted, "the versions of main that knew it"
    await learned(taught, {}, request_id="forget other", alias="other", forget=("arun.txt",))
    assert shared.adapter.digest in taught.services.deleted


async def test_a_version_that_knew_it_is_not_published_again(taught: System) -> None:
    run = await learned(taught, TWO, request_id="first")
    await forgotten(taught)
    one, both = (await taught.policies(run))[1:]
    for policy in (one, both):
        with pytest.raises(GateRefused, match="a document that was forgotten"):
            await taught.database.write(aliases.set_to, change("aliases/main"), policy.name, "")
    again = await learned(taught, {"arun.txt": TWO["arun.txt"]}, request_id="again")
    assert [one.state for one in await reports(taught, again)] == [DocumentState.LEARNED]


async def test_the_only_document_leaves_the_base_model(taught: System) -> None:
    await learned(taught, {"arun.txt": document("Arun")}, request_id="first")
    run = await forgotten(taught)
    assert run.state is RunState.SUCCEEDED
    now = await version(taught, (await taught.database.read(aliases.get, FULL_ACCESS, "main")).policy)
    assert (now.adapter, now.trials) == (None, ())


async def test_what_is_not_known_cannot_be_forgotten(taught: System) -> None:
    await learned(taught, {"arun.txt": document("Arun")}, request_id="first")
    run = await forgotten(taught, "bela.md")
    assert run.error is not None
    assert (run.state, run.error.reason) == (RunState.FAILED, "NOTHING_TO_FORGET")
    assert "it knows arun.txt" in run.error.message


async def test_another_alias_that_knows_it_stops_it(taught: System) -> None:
    await learned(taught, {"arun.txt": document("Arun")}, request_id="first")
    latest = (await taught.database.read(aliases.get, FULL_ACCESS, "main")).policy
    await taught.database.write(aliases.set_to, change("aliases/copy"), latest, "")
    run = await forgotten(taught)
    assert run.error is not None
    assert "aliases/copy points to a version that knows the document too" in run.error.message
    assert taught.services.deleted == []
