"""The domain interface, with optional methods: of domains whose self-edits say what to study, of those that learn
documents without questions, and of those whose datasets are published in several forms. A plug-in is one file or
folder; adding one changes nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from typing import Any, Protocol, cast, runtime_checkable

from pydantic import Field

from sealkit import limits
from sealkit.dataset.rows import Records, Row
from sealkit.errors import InvalidDataset, UnknownDomain
from sealkit.types import Prompt, Query, TrainingSpec, Value


class Context(Value):
    """One thing to learn from. `payload` is the domain's own form of it.

    Attributes:
        generated: Whether its queries and gold answers were generated (`Examines`), not given.
        document: The position, in the run, of the document that it is a passage of; None if it was given as a record.
    """

    context_id: str
    split: str
    payload: dict[str, Any]
    generated: bool = False
    document: int | None = None


class Rejected(Exception):
    """A completion that does not compile to a TrainingSpec; the trial ends REJECTED with this reason. Not an error."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class StudyItem(Value):
    """One item of a study: the student's prompt, and the teacher's prompt, which also contains the text."""

    prompt: Prompt
    teacher_prompt: Prompt


class Study(Value):
    """The questions of a self-edit: the teacher answers each item, and the adapter is trained on the answers."""

    items: tuple[StudyItem, ...] = Field(min_length=1, max_length=limits.PROMPTS)


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


@runtime_checkable
class Studies(Protocol):
    """Additional methods of a domain with a teacher: the model that the adapter will be on, with the text in its
    prompt. Only such a domain supports `inner_loop.objective = "distil"`."""

    def study(self, context: Context, completion: str) -> Study | None:
        """The study of a completion; None if it asks the teacher nothing, and `compile` makes the spec. Raises
        Rejected."""
        ...

    def teach(self, context: Context, study: Study, answers: Sequence[str], seed: int) -> TrainingSpec:
        """The TrainingSpec of a study, with the teacher's answers to its items, in order. Raises Rejected if no answer
        is usable."""
        ...


class ExamItem(Value):
    """A question that may become one of a generated exam. `prompt` asks it without the text, `open_book` with it.
    `answer`: the gold answer, if the domain knows it; empty: a model has to find it."""

    question: str
    prompt: Prompt
    open_book: Prompt
    answer: str = ""


@runtime_checkable
class Examines(Protocol):
    """Additional methods of a domain that learns documents: it makes a context of each passage, and generates the
    exam. The controller samples and judges; the domain says what to ask and what is fit for an exam."""

    def of_passage(self, title: str, headings: Sequence[str], text: str) -> Context:
        """The context of a passage, without queries."""
        ...

    def passage_text(self, context: Context) -> str:
        """What a context of a passage says, with its title."""
        ...

    def exam_prompt(self, context: Context) -> Prompt:
        """The prompt for the questions of an exam."""
        ...

    def exam_items(self, context: Context, completions: Sequence[str]) -> list[ExamItem]:
        """The distinct questions of the completions, in order; none if they have no question."""
        ...

    def exam_blanks(self, context: Context) -> list[ExamItem]:
        """The questions, with their gold answers, that the domain makes of the text itself, the best first."""
        ...

    def exam_fault(self, context: Context, question: str, answer: str) -> str:
        """Why a question with this answer is not fit for an exam; empty if it is."""
        ...

    def overlap(self, context: Context, one: tuple[str, str], other: tuple[str, str]) -> float:
        """How much of two facts, each a question and its answer, is the same, in [0, 1]."""
        ...

    def with_exam(self, context: Context, exam: Sequence[tuple[str, str]], overlap: float) -> Context:
        """The context with these questions and gold answers as its queries, whose ids begin with the context's id and a
        slash. No study may contain an item that overlaps one of them by more than `overlap`."""
        ...


@runtime_checkable
class Published(Protocol):
    """An additional method of a domain whose datasets are published in other forms than its records. Client side."""

    def records(self, rows: Sequence[Row], notices: Sequence[str]) -> Records:
        """The records of a dataset's rows, with more notices on what was left out. Raises InvalidDataset that names the
        place of a row in none of the forms."""
        ...


def record_path(number: int, *inside: int | str) -> str:
    """The path of a record's field in a fault: `records[3].questions[0].answer`."""
    return f"records[{number}]" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)


def refuse_faulty(what: str, faults: Sequence[tuple[str, str]]) -> None:
    """Raises InvalidDataset with all `faults` (path, message), if there is one; its message shows the first five."""
    if faults:
        shown = "; ".join(f"{path}: {message}" for path, message in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise InvalidDataset(f"faulty {what}: {shown}{more}", fields=tuple(faults))


def study_of(domain: Domain, context: Context, completion: str) -> Study | None:
    """The study for the teacher to answer before `spec_of`; None if there is none. Raises Rejected."""
    return domain.study(context, completion) if isinstance(domain, Studies) else None


def spec_of(domain: Domain, context: Context, completion: str, answers: Sequence[str], seed: int) -> TrainingSpec:
    """A completion's TrainingSpec, with the teacher's `answers` to its study, if it has one. Raises Rejected."""
    study = study_of(domain, context, completion)
    if study is None:
        return domain.compile(context, completion, seed)
    return cast(Studies, domain).teach(context, study, answers, seed)


class DomainFactory(Protocol):
    """Makes a domain from a run's options. Raises InvalidConfig on an unknown option."""

    def __call__(self, options: Mapping[str, Any], inner_loop: Any) -> Domain: ...


def load_domain(ref: str, *, plugins: Sequence[str] = ()) -> DomainFactory:
    """A domain factory by entry-point name (group `seal.domains`), or by `module:OBJECT` if the operator listed exactly
    that reference in `plugins`: a caller must not choose what the controller imports. Raises UnknownDomain."""
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
    """Entry points by name; cached, because the lookup reads the metadata of every installed distribution."""
    return {entry.name: entry for entry in metadata.entry_points(group="seal.domains")}
