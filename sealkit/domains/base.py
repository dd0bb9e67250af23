"""What a domain is: five things behind one protocol, and two more for one whose self-edits say what to study. A plug-in
is one file or folder; nothing else changes for it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import Field

from sealkit import limits
from sealkit.errors import UnknownDomain
from sealkit.types import Prompt, Query, TrainingSpec, Value


class Context(Value):
    """One thing to learn from. `payload` is the domain's own form of it."""

    context_id: str
    split: str
    payload: dict[str, Any]


class Rejected(Exception):
    """A completion that compiles to no TrainingSpec; the trial ends REJECTED with this reason. Not an error."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StudyItem(Value):
    """One thing to study: what the student is asked, and what the teacher is asked in its place, with the text before
    it."""

    prompt: Prompt
    teacher_prompt: Prompt


class Study(Value):
    """What a self-edit wants to be taught: each item is answered by the teacher, and the answers are trained on."""

    items: tuple[StudyItem, ...] = Field(min_length=1, max_length=limits.PROMPTS)


@runtime_checkable
class Domain(Protocol):
    """A domain bound to its options (the run config's `[domain.options]` table and inner-loop defaults)."""

    name: str
    version: str
    judge: str
    """Name of the judge that grades answers (see `sealkit.judges`)."""
    completion_schema: str
    """JSON Schema of a completion, where completions are JSON; else empty."""

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        """Checks records and makes contexts of them. Raises InvalidDataset naming every fault."""
        ...

    def prompt(self, context: Context) -> Prompt:
        """What the editor is asked."""
        ...

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        """A completion's TrainingSpec. Raises Rejected with the reason where it has none."""
        ...

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        """The spec of training on the raw context, no self-edit (`passage-only`), for one pass of data."""
        ...

    def queries(self, context: Context) -> list[Query]:
        """The held-out queries: what they ask for stands in none of their prompts."""
        ...

    def ready_made(self, context: Context) -> Mapping[str, str]:
        """Completions that nobody has to sample, by the name of their editor: `oracle`, say. None, as a rule."""
        ...


@runtime_checkable
class Studies(Protocol):
    """What a domain has beside `Domain` where it knows a teacher: the model that the adapter will sit on, with the text
    in its prompt. Only such a domain may be run with `inner_loop.objective = "distil"`."""

    def study(self, context: Context, completion: str) -> Study | None:
        """What the teacher is asked for a completion; None where it is asked nothing, and `compile` makes the spec.
        Raises Rejected."""
        ...

    def teach(self, context: Context, study: Study, answers: Sequence[str], seed: int) -> TrainingSpec:
        """The TrainingSpec of a study, with the teacher's answer to each of its items, in their order. Raises Rejected
        where no answer is of use."""
        ...


def study_of(domain: Domain, context: Context, completion: str) -> Study | None:
    """What is to be asked of the teacher before `spec_of`; None: nothing. Raises Rejected."""
    return domain.study(context, completion) if isinstance(domain, Studies) else None


def spec_of(domain: Domain, context: Context, completion: str, answers: Sequence[str], seed: int) -> TrainingSpec:
    """A completion's TrainingSpec, with the teacher's `answers` to its study where it has one. Raises Rejected."""
    study = study_of(domain, context, completion)
    if study is None:
        return domain.compile(context, completion, seed)
    return cast(Studies, domain).teach(context, study, answers, seed)


class DomainFactory(Protocol):
    """Makes a domain from a run's options. Raises InvalidConfig on an unknown option."""

    def __call__(self, options: Mapping[str, Any], inner_loop: Any) -> Domain: ...


def load_domain(ref: str, *, plugins: Sequence[str] = ()) -> DomainFactory:
    """A domain factory by entry-point name (group `seal.domains`), or by `module:OBJECT` where the operator named that
    very reference among `plugins`: a caller must not choose what the controller imports. Raises UnknownDomain."""
    known = _registered()
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


@cache
def _registered() -> dict[str, metadata.EntryPoint]:
    """Entry points by name, looked up once: it reads the metadata of every installed distribution."""
    return {entry.name: entry for entry in metadata.entry_points(group="seal.domains")}
