"""Adapters that nothing references any longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealkit.errors import FailedPrecondition

if TYPE_CHECKING:
    from sealkit.client import SealClient
    from sealkit.store import AdapterStore


@dataclass(frozen=True)
class Garbage:
    digest: str
    age_seconds: float
    bytes: int


def find_garbage(store: AdapterStore, client: SealClient, grace_seconds: float) -> list[Garbage]:
    """Adapters that no trial or policy of the controller references, and no manifest of an adapter that is kept. Only
    those stored longer than `grace_seconds` ago, so that no running trial can be about to reference them.

    Raises Unavailable if the controller does not answer, FailedPrecondition if the caller sees only one tenant or the
    controller references none of the store's adapters (the store of another controller), AdapterCorrupt if a manifest
    of an adapter that is kept cannot be read.
    """
    caller = client.whoami()
    if caller.tenant:
        raise FailedPrecondition(
            f"{caller.name} sees only the tenant {caller.tenant}, but the store holds the adapters of all tenants; "
            "only an admin without a tenant (no --tenant, no SEAL_TENANT) sees all references"
        )
    # The store first: an adapter that is referenced after this is not in the list.
    ages = {digest: store.age_seconds(digest) for digest in store.list()}
    named = set(_named(client))
    old = {digest for digest, age in ages.items() if age > grace_seconds}
    if old and named.isdisjoint(ages):
        raise FailedPrecondition(
            f"the controller at {client.address} references none of the {len(ages)} adapters in {store.url}; they do "
            "not seem to belong together. Set --address and --store"
        )
    stay = _with_parents(store, {digest for digest in ages if digest in named or digest not in old})
    return [Garbage(digest, ages[digest], _size(store, digest)) for digest in sorted(old - stay)]


def _named(client: SealClient) -> Iterator[str]:
    for policy in client.list_policies():
        if policy.adapter is not None:
            yield policy.adapter.digest
    for run in client.list_runs():
        for trial in client.list_trials(run.name):
            if trial.adapter is not None:
                yield trial.adapter.digest


def _with_parents(store: AdapterStore, digests: set[str]) -> set[str]:
    """`digests` and, transitively, the adapters that they were trained over or joined from."""
    found: set[str] = set()
    waiting = set(digests)
    while waiting:
        found.add(digest := waiting.pop())
        if store.has(digest):
            manifest = store.manifest(digest)
            parents = {str(manifest.get(key) or "") for key in ("policy_digest", "start_digest")}
            waiting |= parents - found - {""}
    return found


def _size(store: AdapterStore, digest: str) -> int:
    return sum(int(file["bytes"]) for file in store.manifest(digest)["files"].values())
