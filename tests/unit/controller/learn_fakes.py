"""Services that learn what they are trained on, for runs that learn documents.

A document consists of sentences "The colour of Arun is red." The base model asks about the first half of them in an
exam, and about the others in a self-edit; with the text in its prompt it answers right. An adapter knows the facts in
the texts that it was trained on, and fills blanks in them. One that was trained on POISON forgets the retention suite.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from controller.accept import accept
from controller.db import documents, policies, runs
from controller.db.access import FULL_ACCESS
from controller.db.documents import NewDocument, StoredDocument
from controller.report.documents import document_reports, learning
from sealkit.config import ExamConfig, RunConfig, parse_config
from sealkit.errors import AdapterNotFound
from sealkit.learning import learn_config
from sealkit.reports import DocumentReport
from sealkit.resources import PolicyVersion, Run
from sealkit.routing import Route
from sealkit.types import (
    AdapterRef,
    Completion,
    Evaluation,
    EvaluationRequest,
    FinishReason,
    Outcome,
    Policy,
    Prompt,
    Query,
    Retention,
    Sampling,
    TrainingSpec,
    Usage,
    Verdict,
    digest_of,
)
from tests.unit.controller.changes import change
from tests.unit.controller.controller_fakes import RETENTION, FakeServices
from tests.unit.controller.controller_system import System

POISON = "xyzzy"
_FACT = re.compile(r"The (\w+) of (\w+) is (\w+)\.")
_BLANK = "Fill in the blank: "
_ASKED = re.compile(r"What is the (\w+) of (\w+)\?")


def document(subject: str, *, colour: str = "red", extra: str = "") -> bytes:
    """Four facts."""
    facts = {"colour": colour, "keeper": f"{subject}son", "weight": f"{subject}ton", "maker": f"{subject}smith"}
    return " ".join([*(f"The {what} of {subject} is {value}." for what, value in facts.items()), extra]).encode()


class LearningServices(FakeServices):
    """See above. `fickle`: subjects whose answers with the text do not agree; `familiar`: what the base model knows;
    `crowded_out`: (subject, colour of another one that who learns of the subject forgets); `gone`: digests of adapters
    that the store has lost."""

    def __init__(self) -> None:
        super().__init__()
        self.fickle: set[str] = set()
        self.familiar: set[str] = set()
        self.crowded_out: set[tuple[str, str]] = set()
        self.trained: dict[str, TrainingSpec] = {}
        self.gone: set[str] = set()

    async def sample(
        self,
        policy: Policy,
        prompts: Sequence[tuple[str, Prompt, Sequence[int]]],
        sampling: Sampling,
        *,
        editor: str = "",
    ) -> AsyncIterator[Completion]:
        for context_id, prompt, indices in prompts:
            for index in indices:
                await self._came("sample", context_id)
                self.sampled.append((policy.adapter, prompt, sampling))
                text = _said(prompt, index, sampling.max_tokens)
                yield Completion(
                    context_id=context_id, index=index, text=text, finish_reason=FinishReason.STOP,
                    usage=Usage(completion_tokens=1),
                )  # fmt: skip

    async def train_adapter(self, policy: Policy, spec: TrainingSpec, **options: Any) -> AsyncIterator[Any]:
        digest = digest_of("adapter", policy.adapter, spec)
        self.trained[digest] = spec
        self.gone.discard(digest)
        async for update in super().train_adapter(policy, spec, **options):
            yield update

    async def route_adapters(self, routes: Sequence[Route]) -> AdapterRef:
        """A version that knows what each of the adapters knows."""
        for route in routes:
            if route.adapter.digest in self.gone:
                raise AdapterNotFound("it is not in the store", metadata={"digest": route.adapter.digest})
        routed = await super().route_adapters(routes)
        specs = [self.trained[route.adapter.digest] for route in routes]
        examples = tuple(example for spec in specs for example in spec.examples)
        self.trained[routed.digest] = specs[0].changed(examples=examples)
        return routed

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        await self._came("evaluate", request.policy.name)
        self.evaluated.append(request)
        subject = request.adapter or request.policy.adapter
        texts = [example.text for example in self.trained[subject.digest].examples] if subject else []
        lost = 0.9 if any(POISON in text for text in texts) else 0.0
        return Evaluation(
            verdicts=tuple(self._verdict(query, texts) for query in request.queries),
            baseline_verdicts=tuple(self._verdict(query, []) for query in request.queries),
            retention=Retention(
                kept=20, accuracy_before=1.0, accuracy_after=1 - lost, forgetting=lost,
                forgetting_low=max(0, lost - 0.1), forgetting_high=min(1, lost + 0.1),
            ) if request.retention_queries else None,
        )  # fmt: skip

    def _verdict(self, query: Query, texts: Sequence[str]) -> Verdict:
        if (clause := query.question.removeprefix(_BLANK)) != query.question:
            right = "Read this text" in query.prompt.user or any(clause.replace("___", query.gold) in t for t in texts)
            return _verdict_of(query, right=right)
        asked = _ASKED.search(query.question)
        assert asked
        what, subject = asked.groups()
        if "Read this text" in query.prompt.user:
            right = subject not in self.fickle
        else:
            fact = f"The {what} of {subject} is {query.gold}."
            right = subject in self.familiar or any(fact in text for text in texts)
            new = {other for other, gone in self.crowded_out if (what, subject) == ("colour", gone)}
            right &= not any(f"of {other}" in text for other in new for text in texts)
        return _verdict_of(query, right=right)


def _verdict_of(query: Query, *, right: bool) -> Verdict:
    return Verdict(
        query_id=query.query_id,
        answer=query.gold if right else "unknown",
        outcome=Outcome.CORRECT if right else Outcome.INCORRECT,
    )


def _said(prompt: Prompt, index: int, max_tokens: int) -> str:
    """What the base model says. A list of questions for an exam may be longer than a self-edit."""
    facts = _FACT.findall(prompt.user)
    half = len(facts) // 2
    if max_tokens == ExamConfig().sampling.max_tokens:
        return "\n".join(
            f"{i}. What is the {what} of {subject}?" for i, (what, subject, _) in enumerate(facts[:half], 1)
        )
    if prompt.user.startswith("Write questions"):
        about = facts[half:] if index else facts  # the first one asks what the exam asks, too
        return "\n".join(f"{i}. What is the {what} of {subject}?" for i, (what, subject, _) in enumerate(about, 1))
    if asked := _ASKED.findall(prompt.user):
        return next((value for what, subject, value in facts if (what, subject) == asked[-1]), "unknown")
    return "yes"


def learning_config(alias: str = "main", **changes: Any) -> dict[str, Any]:
    """The shipped config without anchors, and with two self-edits of the base model on each passage and nothing
    else."""
    config = {**learn_config(alias, forget=changes.pop("forget", ())), **changes}
    config["inner_loop"] = {**config["inner_loop"], "anchors": {"source": "none"}}
    if "editor" not in changes:
        config["editor"] = {**config["editor"], "k": 2, "arms": ["base"]}
        config["selection"] = {**config["selection"], "learn_from": ["base"]}
    if "domain" not in changes:
        config["domain"] = {**config["domain"], "options": {**config["domain"]["options"], "cues": 0}}
    return config


async def create(
    system: System, found: dict[str, bytes], *, request_id: str = "r", alias: str = "main", **changes: Any
) -> Run:
    """A run that learns these documents."""
    new, contexts = accept(
        request_id=request_id,
        display_name="",
        config=learning_config(alias, **changes),
        records=[],
        retention=RETENTION,
        documents=[NewDocument(name=name, content=content) for name, content in found.items()],
        plugins=system.plugins,
    )
    return await system.database.write(runs.create, change(f"runs/{new.run_id}", request_id), new, contexts)


async def learned(system: System, found: dict[str, bytes], **options: Any) -> Run:
    """A finished run."""
    run = await create(system, found, **options)
    async with system.working():
        return await system.until(run)


async def reports(system: System, run: Run) -> list[DocumentReport]:
    run_id = run.name.removeprefix("runs/")
    found = await system.database.read(learning, run_id)
    assert found is not None
    config: RunConfig = parse_config(run.config)
    return list(document_reports(found, config, system.plugins))


async def rows(system: System, run: Run) -> list[StoredDocument]:
    return await system.database.read(documents.of_run, run.name.removeprefix("runs/"))


async def version(system: System, name: str) -> PolicyVersion:
    return await system.database.read(policies.get, FULL_ACCESS, name)
