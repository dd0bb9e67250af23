"""The audit log: an entry with each change and none without, refused ones too, and who may read it."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection, func, select

import controller
from controller.db import aliases, audit, policies, runs
from controller.db.access import FULL_ACCESS, AccessScope, ChangeRequest
from controller.db.database import Database
from controller.db.tables import audit as table
from controller.service import ControllerService
from controller.services import Services
from sealkit.callers import CALLER, Caller, Role, reads
from sealkit.errors import InvalidDataset, PermissionDenied, RequestIdReused, SealError, UnknownPolicy, UnknownRun
from sealkit.resources import AuditEntry, GateState
from tests.contract.tenants_harness import METHODS, furnish, request_for
from tests.records import new_record
from tests.unit.controller.changes import change, operator
from tests.unit.controller.controller_fakes import DOMAIN, FakeServices
from tests.unit.controller.test_controller_record import create, driven

TEAM = operator("team-a")
_WRITES = ("insert", "insert_new", "update", "delete")


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = new_record(tmp_path)
    yield made
    await made.close()


async def entries(database: Database, scope: AccessScope = FULL_ACCESS, **only: str) -> list[AuditEntry]:
    return (await database.read(audit.page, scope, 1000, "", **only)).items


def asked(request_id: str, caller: Caller = TEAM) -> ChangeRequest:
    return change("runs/a", request_id, caller, action="CancelRun")


# --- with the change --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", [method for method in METHODS if not reads(method)])
async def test_every_call_that_changes_something_leaves_an_entry(database: Database, method: str) -> None:
    """A new rpc that changes something past the audit log fails here."""
    things = await furnish(database, "team-a")
    service = ControllerService(database, (DOMAIN,), services=Services(*[FakeServices()] * 3))
    before = len(await entries(database))
    token = CALLER.set(Caller("nightly", Role.OPERATOR, "team-a"))
    request: Any = request_for(method, things)
    try:
        await getattr(service, method)(one_part(request) if method.endswith("InParts") else request, None)
        outcome = "OK"
    except SealError as error:
        await service.refused(f"/seal.controller.v1.ControllerService/{method}", request, error)
        outcome = error.reason
    finally:
        CALLER.reset(token)
    (entry,) = (await entries(database))[:-before]
    assert (entry.caller, entry.role, entry.tenant) == ("nightly", "operator", "team-a")
    assert (entry.action, entry.outcome) == (method.removesuffix("InParts"), outcome)
    assert entry.resource.startswith(("runs/", "aliases/"))
    assert entry.request_id == getattr(request, "part", request).request_id


async def one_part(request: Any) -> AsyncIterator[Any]:
    yield request


async def test_a_change_that_is_rolled_back_takes_its_entry_along(database: Database) -> None:
    await create(database, "a")

    def cancelled_and_then_some(connection: Connection) -> None:
        runs.cancel(connection, change("runs/a", "c"))
        raise RuntimeError("the process broke")

    before = await entries(database)
    with pytest.raises(RuntimeError):
        await database.write(cancelled_and_then_some)
    with pytest.raises(UnknownPolicy):
        await create(database, "b", [], config={"start_policy": "policies/none"})
    assert await entries(database) == before


async def test_the_same_request_again_is_no_change(database: Database) -> None:
    await create(database, "a")
    for _ in range(2):
        await database.write(runs.cancel, change("runs/a", "c", action="CancelRun"))
    with pytest.raises(RequestIdReused):
        await database.write(runs.pause, change("runs/a", "c", action="PauseRun"))
    assert [entry.action for entry in await entries(database, resource="runs/a")] == ["CancelRun", "Change"]


async def test_what_a_run_publishes_by_itself_is_entered_with_the_run_as_caller(database: Database) -> None:
    things = await furnish(database, "team-a")
    (row,) = await database.read(lambda c: c.execute(select(runs.runs)).all())
    theta = await database.read(policies.get, FULL_ACCESS, things.policy)
    lease = runs.RunLease(row.run_id, row.driver_token)
    await database.write(policies.begin_round, lease, 0, theta.name)
    made = theta.model_copy(update={"name": f"policies/{row.run_id}-1", "gate": GateState.PASSED})
    await database.write(policies.end_round, lease, 0, made, made, kept=1, alias="main")
    (entry, *_) = await entries(database)
    assert (entry.caller, entry.role, entry.tenant) == (things.run, "run", "team-a")
    assert (entry.action, entry.resource, entry.detail) == ("SetAlias", "aliases/main", made.name)
    assert (await database.read(aliases.get, AccessScope("team-a"), "main")).tenant == "team-a"


async def test_what_an_admin_does_to_a_tenants_run_is_the_tenants_to_read(database: Database) -> None:
    things = await furnish(database, "team-a")
    await database.write(runs.cancel, change(things.run, "c", Caller("root", Role.ADMIN), "CancelRun"))
    entry = (await entries(database, AccessScope("team-a")))[0]
    assert (entry.caller, entry.role, entry.action) == ("root", "admin", "CancelRun")


# --- refusals ---------------------------------------------------------------------------------------------------------
async def test_a_refusal_is_entered_without_what_bad_input_held(database: Database) -> None:
    await database.write(audit.enter_refusal, asked("1"), InvalidDataset("records[0].text: 'a secret' is no text"))
    await database.write(audit.enter_refusal, asked("2"), UnknownRun("there is no run runs/a"))
    (unknown, bad) = await entries(database)
    assert (bad.outcome, bad.detail) == ("INVALID_DATASET", "")
    assert (unknown.outcome, unknown.detail) == ("UNKNOWN_RUN", "there is no run runs/a")


async def test_a_name_that_is_none_is_not_entered(database: Database) -> None:
    service = ControllerService(database, services=Services(*[FakeServices()] * 3))
    request: Any = request_for("CancelRun", await furnish(database, "team-a"))
    request.name, request.request_id = "runs/\x00; a whole text", "q" * 500
    error = PermissionDenied("watcher is a viewer")
    await service.refused("/seal.controller.v1.ControllerService/CancelRun", request, error)
    entry = (await entries(database))[0]
    assert (entry.resource, entry.request_id, entry.outcome) == ("", "", "PERMISSION_DENIED")


async def test_a_refused_read_is_no_refused_change(database: Database) -> None:
    service = ControllerService(database, services=Services(*[FakeServices()] * 3))
    await service.refused("/seal.controller.v1.ControllerService/GetRun", None, UnknownRun("none"))  # type: ignore[arg-type]
    assert await entries(database) == []


async def test_a_record_that_does_not_answer_takes_no_call_down(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/empty.db")  # without its tables
    service = ControllerService(database, services=Services(*[FakeServices()] * 3))
    request = request_for("PauseRun", await _ghosts(tmp_path))
    await service.refused("/seal.controller.v1.ControllerService/PauseRun", request, UnknownRun("none"))
    await database.close()


async def _ghosts(folder: Path) -> Any:
    other = Database(f"sqlite:///{folder}/other.db")
    await other.start()
    things = await furnish(other, "team-a")
    await other.close()
    return things


# --- reading ----------------------------------------------------------------------------------------------------------
async def test_entries_come_newest_first_by_page_by_thing_and_by_caller(database: Database) -> None:
    for number in range(5):
        resource = "runs/a" if number % 2 else "runs/ab"
        await database.write(audit.enter_refusal, change(resource, str(number), TEAM), UnknownRun("none"))
    await database.write(audit.enter_refusal, change("runs/a/rounds/0/trials/x", "5", TEAM), UnknownRun("none"))
    found, token = [], ""
    while True:
        page = await database.read(audit.page, FULL_ACCESS, 2, token)
        found += [entry.request_id for entry in page.items]
        if not (token := page.next_token):
            break
    assert found == ["5", "4", "3", "2", "1", "0"]
    assert [entry.request_id for entry in await entries(database, resource="runs/a")] == ["5", "3", "1"]
    assert await entries(database, caller="nobody") == []
    assert len(await entries(database, caller=TEAM.name)) == 6


async def test_a_tenant_reads_its_own_entries_alone(database: Database) -> None:
    await furnish(database, "team-a")
    await furnish(database, "team-b")
    assert {entry.tenant for entry in await entries(database, AccessScope("team-b"))} == {"team-b"}
    assert {entry.tenant for entry in await entries(database)} == {"team-a", "team-b"}
    assert await entries(database, AccessScope("")) == []


# --- for good ---------------------------------------------------------------------------------------------------------
def test_no_code_changes_or_deletes_an_entry() -> None:
    """Every statement on the table, in all of the controller: one insert and its queries."""
    written = []
    for file in Path(controller.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]).endswith("audit"):
                written += [(file.name, name) for name in _WRITES if ast.unparse(node.func).endswith(name)]
    assert written == [("audit.py", "insert")]


async def test_entries_outlast_what_they_are_about(database: Database) -> None:
    lease = await driven(database)
    await database.write(runs.fail, lease, runs.Fault(code=13, reason="INTERNAL", message="broke"))
    count = await database.read(lambda c: c.scalar(select(func.count()).select_from(table)))
    assert count == len(await entries(database, resource="runs/a")) == 1
