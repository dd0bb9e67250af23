"""The domain interface. A plug-in is one file or folder; adding one changes nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any, Protocol, cast, runtime_checkable

from sealkit.errors import UnknownDomain
from sealkit.types import Prompt, Query, TrainingSpec, Value


class Context(Value):
    """One thing to learn from. `payload` is the domain's own form of it."""

    context_id: str
    split: str
    payload: dict[str, Any]


class Rejected(Exception):
    """A completion that does not compile to a TrainingSpec; the trial ends REJECTED with this reason. Not an error."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@runtime_checkable
class Domain(Protocol):
    """A domain bound to its options (the run config's `[domain.options]` table and inner-loop defaults)."""

    name: str
    version: str
    judge: str
    """Name of the judge that grades answers (see `sealkit.judges`)."""
    completion_schema: str
    """JSON Schema of completions, if they are JSON; else empty."""

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        """Validates records and converts them to contexts. Raises InvalidDataset with every fault."""
        ...

    def prompt(self, context: Context) -> Prompt:
        """The editor's prompt."""
        ...

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        """A completion's TrainingSpec. Raises Rejected with the reason if there is none."""
        ...

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        """The spec of training on the raw context, no self-edit (`passage-only`), for one pass of data."""
        ...

    def queries(self, context: Context) -> list[Query]:
        """The held-out queries; their answers are in none of their prompts."""
        ...

    def ready_made(self, context: Context) -> Mapping[str, str]:
        """Completions that are not sampled, by the name of their editor: `oracle`, say. Usually none."""
        ...


class DomainFactory(Protocol):
    """Makes a domain from a run's options. Raises InvalidConfig on an unknown option."""

    def __call__(self, options: Mapping[str, Any], inner_loop: Any) -> Domain: ...


def load_domain(ref: str, *, plugins: Sequence[str] = ()) -> DomainFactory:
    """A domain factory by entry-point name (group `seal.domains`), or by `module:OBJECT` if the operator listed exactly
    that reference in `plugins`: a caller must not choose what the controller imports. Raises UnknownDomain."""
    known = {e.name: e for e in metadata.entry_points(group="seal.domains")}
    try:
        if ref in known:
            return cast(DomainFactory, known[ref].load())
        module, _, attribute = ref.partition(":")
        if ref in plugins:
            return cast(DomainFactory, getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise UnknownDomain(f"domain {ref!r} cannot be loaded: {error}") from error
    raise UnknownDomain(
        f"unknown domain {ref!r}; known: {', '.join(sorted(known))}, "
        "or a `module:OBJECT` that SEAL_CONTROLLER_DOMAIN_PLUGINS lists"
    )
