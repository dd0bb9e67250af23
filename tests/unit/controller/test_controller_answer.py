"""Answers of aliases: who gives them, to the end, whatever happens meanwhile, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from sqlalchemy import insert

from controller.answer import Answers
from controller.db import aliases, quotas, runs, tables
from controller.db.access import FULL_ACCESS, AccessScope
from controller.db.database import Database
from sealkit.answers import Gathered
from sealkit.domains.base import Context
from sealkit.errors import QuotaExceeded, Unavailable, UnknownAlias
from sealkit.resources import AnswerBegun, AnswerUpdate, GateState, Quotas
from sealkit.types import Prompt, Sampling
from tests.records import new_record
from tests.unit.controller.changes import change, operator
from tests.unit.controller.controller_fakes import FakeServices
from tests.unit.controller.test_controller_record import new_run

TEAM = operator("team-a")
SCOPE = AccessScope("team-a")
DIGESTS = {"a": "aa" * 32, "b": "bb" * 32, "base": None}
PROMPT = Prompt(user="What is the river called?")
GREEDY = Sampling(temperature=0)


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = new_record(tmp_path)
    rows = [
        {
            "name": f"policies/{name}", "run_id": "r", "base_model": "bm" * 32, "parent": "", "trials": [],
            "create_time": tables.now(), "usage": {}, "gate": GateState.PASSED, "gate_reason": "",
            "adapter": {"digest": digest} if digest else None,
        }
        for name, digest in DIGESTS.items()
    ]  # fmt: skip
    run = change("runs/r", caller=TEAM)
    await made.write(runs.create, run, new_run("r"), [Context(context_id="c", split="train", payload={})])
    await made.write(lambda connection: connection.execute(insert(tables.policies), rows))
    await point(made, "a")
    yield made
    await made.close()


async def point(database: Database, policy: str) -> None:
    await database.write(aliases.set_to, change("aliases/notes", caller=TEAM), f"policies/{policy}", "")


async def read(answers: Answers, alias: str = "aliases/notes", scope: AccessScope = SCOPE) -> tuple[AnswerBegun, str]:
    gathered = Gathered()
    async with aclosing(answers.stream(scope, alias, PROMPT, GREEDY)) as updates:
        async for update in updates:
            gathered.add(update)
    return gathered.answer.begun, gathered.answer.text


def counted(result: str, model: str = "alias") -> float:
    return REGISTRY.get_sample_value("seal_answer_requests_total", {"model": model, "result": result}) or 0.0


async def spent(database: Database) -> float:
    return (await database.read(quotas.used, "team-a")).device_seconds_a_day


async def test_an_alias_answers_as_the_policy_that_it_points_to(database: Database) -> None:
    services, before = FakeServices(), counted("OK")
    answers = Answers(database, services)
    begun, text = await read(answers)
    assert begun == AnswerBegun(alias="aliases/notes", policy="policies/a", adapter="aa" * 32)
    assert text == "aaaaaa says What is the river called?"
    await point(database, "b")
    assert (await read(answers))[1].startswith("bbbbbb says")
    await point(database, "base")
    assert await read(answers) == (
        AnswerBegun(alias="aliases/notes", policy="policies/base"), "base says What is the river called?",
    )  # fmt: skip
    assert counted("OK") == before + 3
    assert [who and who.digest for who, _, _ in services.sampled] == ["aa" * 32, "bb" * 32, None]


async def test_without_an_alias_it_is_the_base_model(database: Database) -> None:
    assert await read(Answers(database, FakeServices()), alias="") == (
        AnswerBegun(), "base says What is the river called?",
    )  # fmt: skip


async def test_the_evaluator_is_told_which_base_model_it_must_have(database: Database) -> None:
    named: list[str] = []

    async def before(call: str, what: str) -> None:
        if call == "answer":
            named.append(what)

    answers = Answers(database, FakeServices(before))
    await read(answers)
    await read(answers, alias="")
    assert named == ["bm" * 32, ""], "any base model answers as itself"


async def test_what_is_another_tenants_does_not_exist(database: Database) -> None:
    for scope in (AccessScope("team-b"), FULL_ACCESS):
        with pytest.raises(UnknownAlias):
            await read(Answers(database, FakeServices()), scope=scope)


async def test_an_alias_that_is_moved_changes_no_answer_in_progress(database: Database) -> None:
    moved = asyncio.Event()

    async def before(call: str, what: str) -> None:
        if (call, what) == ("piece", "is"):
            await point(database, "b")
            moved.set()

    begun, text = await read(Answers(database, FakeServices(before)))
    assert moved.is_set()
    assert (begun.policy, text) == ("policies/a", "aaaaaa says What is the river called?")


async def test_a_dead_evaluator_ends_the_answer_with_an_error(database: Database) -> None:
    async def before(call: str, what: str) -> None:
        if (call, what) == ("piece", "is"):
            raise Unavailable("evaluator at 127.0.0.1:1 does not answer")

    services, said, failed = FakeServices(before), list[AnswerUpdate](), counted("UNAVAILABLE")

    async def listen() -> None:
        async with aclosing(Answers(database, services).stream(SCOPE, "aliases/notes", PROMPT, GREEDY)) as updates:
            async for update in updates:
                said.append(update)

    with pytest.raises(Unavailable):
        await listen()
    assert len(said) == 4, "who answers, and the three words before"
    assert services.calls["answer"] == 1, "nobody else goes on with it"
    assert counted("UNAVAILABLE") == failed + 1
    assert await spent(database) > 0


async def test_closing_the_stream_ends_the_decoding_and_is_charged(database: Database) -> None:
    services, before = FakeServices(), counted("CANCELLED")
    async with aclosing(Answers(database, services).stream(SCOPE, "aliases/notes", PROMPT, GREEDY)) as updates:
        await anext(updates)
        await anext(updates)
        await anext(updates)
    assert services.calls["answer closed"] == 1
    assert services.calls["piece"] < 7
    assert counted("CANCELLED") == before + 1
    assert 0 < await spent(database) < 5


async def test_device_seconds_of_answers_count_towards_the_quota(database: Database) -> None:
    await database.write(quotas.replace, {"team-a": Quotas(device_seconds_a_day=10)})
    answers = Answers(database, FakeServices())
    await read(answers)
    assert await spent(database) == 7
    await read(answers, alias="")
    assert await spent(database) == 14, "an answer that has begun is given whole"
    for alias in ("aliases/notes", ""):
        with pytest.raises(QuotaExceeded, match="device_seconds_a_day"):
            await read(answers, alias=alias)
