"""`seal whoami`, `seal audit list` and `seal --tenant`: what they ask of the controller and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from seal_cli.main import app
from sealkit.resources import AuditEntry, CallerInfo, Quotas

ENTRY = AuditEntry(
    name="auditEntries/7",
    time=datetime(2026, 1, 1, tzinfo=UTC),
    caller="nightly",
    role="operator",
    tenant="team-a",
    action="CancelRun",
    resource="runs/r",
    request_id="q",
    outcome="OK",
)


class FakeClient:
    """Remembers how it was made and what it was asked."""

    made: dict[str, Any] = {}  # noqa: RUF012
    asked: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, address: str, **options: Any) -> None:
        FakeClient.made = {"address": address, **options}

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def whoami(self) -> CallerInfo:
        tenant = self.made["tenant"]
        quotas = Quotas(runs_at_once=2, device_seconds_a_day=3600)
        return CallerInfo(name="root", role="admin", tenant=tenant, quotas=quotas, used=Quotas(runs_at_once=1))

    def list_audit_entries(self, *, resource: str, caller: str) -> Iterator[AuditEntry]:
        FakeClient.asked = {"resource": resource, "caller": caller}
        return iter([ENTRY, ENTRY])


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealkit.client.SealClient", FakeClient)


def seal(*words: str, **environment: str) -> list[str]:
    done = CliRunner().invoke(app, list(words), env={"SEAL_ADDRESS": "host:1", **environment})
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_whoami_says_each_quota_and_what_is_used_of_it() -> None:
    said = seal("--tenant", "team-a", "whoami")
    assert [line.split() for line in said[:3]] == [["name", "root"], ["role", "admin"], ["tenant", "team-a"]]
    assert said[3].split() == ["runs_at_once", "1", "of", "2"]
    assert said[5].split() == ["device_seconds_a_day", "0.0", "of", "3,600.0"]
    assert said[6].split() == ["highest_priority", "0", "of", "any", "number"]


def test_the_tenant_comes_from_the_option_or_the_environment_for_every_command() -> None:
    seal("whoami")
    assert FakeClient.made["tenant"] == ""
    seal("whoami", SEAL_TENANT="team-b")
    assert FakeClient.made["tenant"] == "team-b"
    seal("--tenant", "team-c", "audit", "list", SEAL_TENANT="team-b")
    assert FakeClient.made["tenant"] == "team-c"


def test_the_audit_log_is_a_line_an_entry() -> None:
    (line,) = seal("audit", "list", "--resource", "runs/r", "--caller", "nightly", "--limit", "1")
    assert line.split("\t")[1:] == ["nightly (operator)", "team-a", "CancelRun", "runs/r", "OK", "", "q"]
    assert FakeClient.asked == {"resource": "runs/r", "caller": "nightly"}
