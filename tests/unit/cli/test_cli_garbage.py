"""Which adapters `seal adapters gc` takes, and which it never does."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from seal_cli.commands import adapters
from seal_cli.garbage import find_garbage
from seal_cli.main import app
from sealkit.errors import AdapterCorrupt, FailedPrecondition, Unavailable
from sealkit.resources import CallerInfo, Editor, PolicyVersion, Run, RunState, Trial, TrialPhase, TrialState
from sealkit.store import AdapterStore
from sealkit.types import AdapterRef

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400


def name(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


class FakeClient:
    """Knows two runs, the second with a trial for each of `trials`, and a policy for each of `policies`."""

    address = "fake:1"

    def __init__(
        self,
        *,
        trials: tuple[str, ...] = (),
        policies: tuple[str, ...] = (),
        away: bool = False,
        tenant: str = "",
    ) -> None:
        self.trials, self.policies, self.away, self.tenant = trials, policies, away, tenant

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None: ...

    def whoami(self) -> CallerInfo:
        return CallerInfo(name="caller", role="admin", tenant=self.tenant)

    def list_policies(self) -> Iterator[PolicyVersion]:
        yield PolicyVersion(name="policies/base", run="runs/r", version=0, create_time=NOW)
        for word in self.policies:
            yield PolicyVersion(
                name=f"policies/{word}", run="runs/r", version=0, adapter=AdapterRef(digest=name(word)), create_time=NOW
            )

    def list_runs(self) -> Iterator[Run]:
        for run in ("runs/empty", "runs/a"):
            yield Run(name=run, display_name="", state=RunState.SUCCEEDED, config={}, create_time=NOW)
        if self.away:
            raise Unavailable("controller at fake:1 does not answer")

    def list_trials(self, parent: str) -> Iterator[Trial]:
        for word in ("", *self.trials) if parent == "runs/a" else ():
            yield Trial(
                round=0,
                name=f"{parent}/rounds/0/trials/{word or 'rejected'}",
                state=TrialState.SUCCEEDED,
                phase=TrialPhase.E_STEP,
                context_id="c",
                editor=Editor.POLICY,
                index=0,
                policy="policies/base",
                adapter=AdapterRef(digest=name(word)) if word else None,
                create_time=NOW,
            )


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(str(tmp_path / "store"))


def put(store: AdapterStore, word: str, *, days: float = 2, **manifest: str) -> None:
    """An adapter that was put that many days ago."""
    store.put(name(word), {"adapter_model.safetensors": bytes(1000)}, manifest)
    folder = store.local_path(name(word))
    assert folder is not None
    os.utime(folder / "manifest.json", (time.time() - days * DAY,) * 2)


def found(store: AdapterStore, client: FakeClient) -> set[str]:
    return {one.digest for one in find_garbage(store, client, DAY)}  # type: ignore[arg-type]


def test_what_nobody_names_and_is_old_enough_is_garbage(store: AdapterStore) -> None:
    for word in ("trial", "policy", "left"):
        put(store, word)
    put(store, "young", days=0.5)
    [one] = find_garbage(store, FakeClient(trials=("trial",), policies=("policy",)), DAY)  # type: ignore[arg-type]
    assert one.digest == name("left")
    assert one.bytes == 1000
    assert one.age_seconds == pytest.approx(2 * DAY, abs=60)


def test_what_an_adapter_that_stays_was_trained_on_stays(store: AdapterStore) -> None:
    put(store, "grandparent")
    put(store, "parent", start_digest=name("grandparent"), policy_digest="")
    put(store, "trial", policy_digest=name("parent"))
    put(store, "under young")
    put(store, "young", days=0, policy_digest=name("under young"))
    put(store, "left", policy_digest=name("left with it"))
    put(store, "left with it")
    assert found(store, FakeClient(trials=("trial",))) == {name("left"), name("left with it")}


def test_a_named_adapter_that_the_store_has_not_is_no_hindrance(store: AdapterStore) -> None:
    put(store, "trial", policy_digest=name("lost"))
    put(store, "left")
    assert found(store, FakeClient(trials=("trial", "elsewhere"))) == {name("left")}


def test_somebody_elses_store_is_left_alone(store: AdapterStore) -> None:
    put(store, "one")
    with pytest.raises(FailedPrecondition, match="fake:1 references none of the 1 adapters"):
        found(store, FakeClient(trials=("another",)))


def test_who_sees_one_tenant_alone_deletes_nothing(monkeypatch: pytest.MonkeyPatch, store: AdapterStore) -> None:
    """What other tenants have would look like garbage."""
    put(store, "trial")
    put(store, "another tenant's")
    refused = gc(monkeypatch, store, FakeClient(trials=("trial",), tenant="team-a"), "--delete")
    assert refused.exit_code == 1
    assert len(store.list()) == 2


def test_a_manifest_that_cannot_be_read_stops_it(store: AdapterStore) -> None:
    put(store, "trial")
    put(store, "left")
    folder = store.local_path(name("trial"))
    assert folder is not None
    (folder / "manifest.json").write_text("{")
    with pytest.raises(AdapterCorrupt):
        found(store, FakeClient(trials=("trial",)))


def gc(monkeypatch: pytest.MonkeyPatch, store: AdapterStore, client: FakeClient, *words: str) -> Result:
    monkeypatch.setattr(adapters, "connect", lambda address, data: client)
    return CliRunner().invoke(app, ["adapters", "gc", "--store", store.url, *words])


def test_nothing_is_deleted_unless_told_so(monkeypatch: pytest.MonkeyPatch, store: AdapterStore) -> None:
    put(store, "trial")
    put(store, "left")
    client = FakeClient(trials=("trial",))
    dry = gc(monkeypatch, store, client)
    assert dry.exit_code == 0
    assert name("left") in dry.stdout
    assert "1 adapters, 0.0 MB, would be deleted" in dry.stdout
    assert len(store.list()) == 2
    assert "0 adapters" in gc(monkeypatch, store, client, "--delete", "--grace", "3d").stdout
    assert len(store.list()) == 2
    assert "1 adapters, 0.0 MB, deleted" in gc(monkeypatch, store, client, "--delete").stdout
    assert store.list() == [name("trial")]


def test_an_adapter_put_again_in_the_meantime_stays(store: AdapterStore) -> None:
    put(store, "left")
    store.put(name("left"), {}, {})
    assert not adapters._delete(store, name("left"), DAY)
    assert store.has(name("left"))


def test_without_an_answer_from_the_controller_nothing_is_deleted(
    monkeypatch: pytest.MonkeyPatch, store: AdapterStore
) -> None:
    put(store, "left")
    put(store, "trial")
    assert gc(monkeypatch, store, FakeClient(trials=("trial",), away=True), "--delete").exit_code == 1
    assert len(store.list()) == 2


def test_without_a_controller_at_all_nothing_is_deleted(store: AdapterStore, tmp_path: Path) -> None:
    put(store, "left")
    words = ["adapters", "gc", "--store", store.url, "--delete", "--data", str(tmp_path / "none")]
    done = CliRunner().invoke(app, words, env={"SEAL_ADDRESS": ""})
    assert done.exit_code == 1
    assert len(store.list()) == 1


@pytest.mark.parametrize("grace", ["", "24", "h", "-1h", "1.5h", "1w"])
def test_a_grace_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, store: AdapterStore, grace: str) -> None:
    assert gc(monkeypatch, store, FakeClient(), "--grace", grace).exit_code == 2
