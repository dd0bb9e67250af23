"""Tenants are kept apart in every call there is: what is another tenant's does not exist."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from controller.db.database import Database
from sealkit.callers import reads
from sealkit.client import AsyncSealClient
from sealkit.errors import InvalidInput, RequestIdReused, UnknownAlias, UnknownPolicy, UnknownRun
from tests.contract.tenants_harness import AWAY, METHODS, Answer, Things, call, furnish, harness, request_for
from tests.records import new_record
from tests.unit.controller.controller_fakes import records, tiny_config

Harness = tuple[Database, str]
WITHOUT_NAMES = {
    "GetCaller", "CreateRun", "CreateRunInParts", "EstimateRun", "EstimateRunInParts", "GetRunPace", "GetRunReport",
    "GetTrialMaterial", "WatchRun",
}  # fmt: skip
"""Calls whose answer, of a stream the first one, need not name what was asked for."""
OK, NOT_FOUND, FAILED_PRECONDITION = (
    grpc.StatusCode.OK,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@pytest_asyncio.fixture
async def built(tmp_path: Path) -> AsyncIterator[Harness]:
    database = new_record(tmp_path)
    async with harness(database) as address:
        yield database, address


# --- every call -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Said:
    """What a method answered of team-a's things: to another tenant, to that one of things that never were, and to their
    owner. `names` says whether the request names any of them."""

    names: bool
    foreign: Answer
    ghosts: Answer
    own: Answer


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """By method, each over a record of its own: a new rpc that forgets whose a thing is fails here, with no line
    added."""

    async def ask() -> dict[str, Said]:
        furnished = new_record(tmp_path_factory.mktemp("furnished"))
        things = await furnish(furnished, "team-a")
        await furnished.close()
        return {method: await ask_one(method, furnished, things) for method in METHODS}

    async def ask_one(method: str, furnished: Database, things: Things) -> Said:
        assert furnished.folder is not None
        folder = tmp_path_factory.mktemp(method)
        shutil.copy(furnished.folder / "record.db", folder)
        async with harness(Database(f"sqlite:///{folder}/record.db")) as address:
            return Said(
                names="secret" in str(request_for(method, things)),
                foreign=await call(address, method, request_for(method, things), "team-b"),
                ghosts=await call(address, method, request_for(method, things.as_ghosts()), "team-b"),
                own=await call(address, method, request_for(method, things), "team-a"),
            )

    return asyncio.run(ask())


def test_no_call_reaches_what_is_another_tenants(said: dict[str, Said]) -> None:
    named = {method: one.foreign for method, one in said.items() if one.names}
    assert {method: answer for method, answer in named.items() if answer.code is not NOT_FOUND} == {}
    others = {method: one.foreign for method, one in said.items() if not one.names}
    assert {method: answer for method, answer in others.items() if answer.code is not OK} == {}
    assert {method: answer.text for method, answer in others.items() if "secret" in answer.text} == {}
    assert [method for method in others if not reads(method)] == [], "these change what nobody named"


def test_its_owner_reaches_it(said: dict[str, Said]) -> None:
    """The test above would pass on calls that nobody can make."""
    refused = {method: one.own for method, one in said.items() if one.own.code not in (OK, FAILED_PRECONDITION)}
    assert refused == {}
    assert {method for method, one in said.items() if "secret" not in one.own.text} <= WITHOUT_NAMES


def test_it_is_answered_in_the_words_for_what_never_was(said: dict[str, Said]) -> None:
    told_apart = {
        method: (one.foreign, one.ghosts)
        for method, one in said.items()
        if (one.foreign.code, one.foreign.text) != (one.ghosts.code, one.ghosts.text.replace("ghosts", "secret"))
    }
    assert told_apart == {}


# --- names that two tenants share -------------------------------------------------------------------------------------
async def test_two_tenants_each_have_an_alias_of_one_name(built: Harness) -> None:
    database, address = built
    things = {tenant: await furnish(database, tenant) for tenant in ("team-a", "team-b")}
    for tenant, own in things.items():
        async with AsyncSealClient(address, tenant=tenant) as client:
            assert (await client.get_alias("aliases/secret-notes")).policy == own.policy
            assert [alias.policy async for alias in client.list_aliases()] == [own.policy]
            with pytest.raises(UnknownPolicy):
                await client.set_alias(
                    "aliases/secret-notes", things["team-a" if tenant == "team-b" else "team-b"].policy
                )
    async with AsyncSealClient(address) as admin:
        listed = [(alias.name, alias.tenant, alias.policy) async for alias in admin.list_aliases()]
        with pytest.raises(UnknownAlias):
            await admin.get_alias("aliases/secret-notes")
    assert listed == [("aliases/secret-notes", tenant, own.policy) for tenant, own in things.items()]


async def test_the_same_request_id_makes_each_tenant_its_own_run(built: Harness) -> None:
    _, address = built
    names = {}
    for tenant in ("", "team-a", "team-b"):
        async with AsyncSealClient(address, tenant=tenant) as client:
            run = await client.create_run(tiny_config(), records(), request_id="same")
            assert (await client.create_run(tiny_config(), records(), request_id="same")).name == run.name
            with pytest.raises(RequestIdReused):
                await client.create_run(tiny_config(rounds=1), records(), request_id="same")
            names[tenant], found = run.name, [run async for run in client.list_runs()]
            assert {run.tenant for run in found} == ({""} if not tenant else {tenant})
    assert len(set(names.values())) == 3


async def test_a_page_token_of_one_tenant_shows_another_nothing(built: Harness) -> None:
    database, address = built
    for number in range(3):
        await furnish(database, "team-a", request_id=f"a{number}", alias=f"x{number}")
    await furnish(database, "team-b", request_id="b", alias="z")
    for number in range(3, 6):
        await furnish(database, "team-a", request_id=f"a{number}", alias=f"x{number}")
    for method in ("ListRuns", "ListPolicies", "ListAliases", "ListAuditEntries"):
        request = request_for(method, await furnish(database, "team-c", request_id=method))
        request.page_size = 1  # type: ignore[attr-defined]
        page = (await call(address, method, request, "team-a")).text
        request.page_token = page.partition('next_page_token: "')[2].partition('"')[0]  # type: ignore[attr-defined]
        assert request.page_token  # type: ignore[attr-defined]
        foreign = (await call(address, method, request, "team-b")).text
        assert "team-a" not in foreign
        assert "secret-of-team-a" not in foreign


# --- admins -----------------------------------------------------------------------------------------------------------
async def test_an_admin_sees_all_and_acts_as_the_tenant_that_it_names(built: Harness) -> None:
    database, address = built
    things = await furnish(database, "team-a")
    async with AsyncSealClient(address) as admin, AsyncSealClient(address, tenant="team-b") as acting:
        assert [run.tenant async for run in admin.list_runs()] == ["team-a"]
        with pytest.raises(UnknownRun):
            await acting.get_run(things.run)
        made = await acting.create_run(tiny_config(), records())
        assert made.tenant == "team-b"
        assert [run.name async for run in acting.list_runs()] == [made.name]
        assert [run.name async for run in admin.list_runs()] == [made.name, things.run]
        own = await admin.create_run(tiny_config(start_policy=things.policy), records())
        assert own.tenant == ""


async def test_only_an_admin_who_acts_for_none_sees_where_the_services_are(built: Harness) -> None:
    database, address = built
    things = await furnish(database, "team-a")
    async with AsyncSealClient(address) as admin, AsyncSealClient(address, tenant="team-b") as acting:
        for client, shown, runs in (
            (admin, AWAY, [things.run]),
            (acting, AWAY.changed(address="", error=None), []),
        ):
            load = await client.get_load()
            assert load.replicas == (shown,) * 3
            assert [one.run for one in load.runs] == runs


async def test_what_is_no_tenants_name_is_refused(built: Harness) -> None:
    async with AsyncSealClient(built[1], tenant="Team A") as client:
        with pytest.raises(InvalidInput, match="seal-tenant"):
            await client.whoami()
