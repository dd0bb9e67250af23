"""A small domain and three instant services whose answers derive from what they are asked, so that runs repeat."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from controller.db.manifest import Found, Instructions, Manifest
from sealkit.domains.base import Context, Rejected
from sealkit.resources import ServiceReplica
from sealkit.routing import Route, routed_digest
from sealkit.rpc.protocols import TrainerInfo
from sealkit.types import (
    AdapterRef,
    AnswerDelta,
    AnswerEnd,
    Completion,
    Divergence,
    Evaluation,
    EvaluationRequest,
    FinishReason,
    LoraConfig,
    ModelInfo,
    Optimisation,
    Outcome,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    Query,
    Retention,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    Usage,
    Verdict,
    digest_of,
)

DOMAIN = "tests.unit.controller.controller_fakes:TinyDomain"
CONFIG = {
    "name": "tiny",
    "seed": 7,
    "rounds": 2,
    "contexts_per_round": 2,
    "domain": {"name": DOMAIN},
    "editor": {"k": 3},
    "evaluation": {"judge": "exact", "retention_limit": 2},
    "held_out": {"samples": 1},
}
RETENTION = [{"id": f"r{i}", "question": f"What is {i}?", "answer": str(i)} for i in range(3)]

LUCK = 1
"""Decides over `graded`; so chosen that the run of `CONFIG` keeps self-edits in both rounds."""

Hook = Callable[[str, str], Awaitable[None]]


def records(train: int = 4, held_out: int = 2) -> list[dict[str, Any]]:
    splits = ["train"] * train + ["heldout"] * held_out
    return [{"id": f"c{i}", "split": split, "text": f"Fact number {i}."} for i, split in enumerate(splits)]


def tiny_config(**changes: Any) -> dict[str, Any]:
    return {**CONFIG, **changes}


class TinyDomain:
    """Each record is a context with four questions; a completion that is blank or says `bad` is rejected."""

    name = "tiny"
    version = "1"
    judge = "exact"
    completion_schema = ""

    def __init__(self, options: Mapping[str, Any], inner_loop: Any) -> None:
        self._inner_loop = inner_loop

    def contexts(self, found: Sequence[Mapping[str, Any]]) -> list[Context]:
        return [Context(context_id=r["id"], split=r["split"], payload={"text": r["text"]}) for r in found]

    def prompt(self, context: Context) -> Prompt:
        return Prompt(user=f"Rewrite: {context.payload['text']}")

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        if not completion.strip():
            raise Rejected("EMPTY")
        if "bad" in completion:
            raise Rejected("UNUSABLE", "it says bad")
        return self._spec(completion, seed)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        return self._spec(context.payload["text"], seed)

    def queries(self, context: Context) -> list[Query]:
        return [
            Query(query_id=f"{context.context_id}/{i}", question=f"Q{i}?", gold="yes", prompt=Prompt(user=f"Q{i}?"))
            for i in range(4)
        ]

    def ready_made(self, context: Context) -> Mapping[str, str]:
        return {"oracle": f"By hand: {context.payload['text']}"}

    def _spec(self, text: str, seed: int) -> TrainingSpec:
        inner = self._inner_loop
        examples = (TrainingExample(text=text),)
        return TrainingSpec(examples=examples, lora=inner.lora, optimisation=inner.optimisation, seed=seed)


class FakeServices:
    """All three at once. `before` is awaited with (call, what) and may block or raise; `calls` counts what came."""

    def __init__(self, before: Hook | None = None, *, seconds: float = 0.0) -> None:
        self.before = before
        self.calls: Counter[str] = Counter()
        self.specs: list[TrainingSpec] = []
        self.taught: list[list[str]] = []
        self.evaluated: list[EvaluationRequest] = []
        self.sampled: list[tuple[AdapterRef | None, Prompt, Sampling]] = []
        """Who was asked to write what, and how."""
        self.text: Callable[[str, int, int], str] = written
        self.outcome: Callable[[str, str], Outcome] = graded
        self.knows: Callable[[str, str], Outcome] = lambda policy, query_id: graded("", query_id)
        """What a policy's adapter alone answers."""
        self.lost: Callable[[str], float] = lambda subject: 0.5
        """What share of the retention queries a subject forgot; its interval is 0.5 to either side."""
        self.deleted: list[str] = []
        self.seen: list[ServiceReplica] = []
        self.routed: list[tuple[Route, ...]] = []
        self.running = 0
        self._seconds = seconds

    async def _came(self, call: str, what: str) -> None:
        self.calls[call] += 1
        self.running += 1
        try:
            await asyncio.sleep(self._seconds)
            if self.before is not None:
                await self.before(call, what)
        finally:
            self.running -= 1

    async def info(self) -> ModelInfo:
        return MODEL

    async def look(self) -> None: ...

    def replicas(self) -> list[ServiceReplica]:
        return self.seen

    async def trainer_info(self) -> TrainerInfo:
        return TrainerInfo(model=MODEL, target_modules=("q_proj",), engine_version="1", max_concurrent_jobs=8)

    async def close(self) -> None: ...

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
                teacher = editor or (policy.adapter.digest[:6] if policy.adapter else "base")
                text = f"{self.text(context_id, index, sampling.seed)} {teacher}"
                yield Completion(context_id=context_id, index=index, text=text, finish_reason=FinishReason.STOP)

    async def answer(
        self, policy: Policy, prompt: Prompt, sampling: Sampling, *, base_model: str = ""
    ) -> AsyncGenerator[AnswerDelta | AnswerEnd, None]:
        """`base` or the adapter's first digits, then `says` and the prompt: a piece and a second for each word."""
        await self._came("answer", base_model)
        self.sampled.append((policy.adapter, prompt, sampling))
        words = f"{policy.adapter.digest[:6] if policy.adapter else 'base'} says {prompt.user}".split()
        try:
            for place, word in enumerate(words):
                await self._came("piece", word)
                yield AnswerDelta(text=word if place == 0 else f" {word}")
            usage = Usage(prompt_tokens=5, completion_tokens=len(words), device_seconds=float(len(words)))
            yield AnswerEnd(finish_reason=FinishReason.STOP, usage=usage)
        finally:
            self.calls["answer closed"] += 1

    async def train_adapter(
        self, policy: Policy, spec: TrainingSpec, *, owner: str, retrain: bool = False
    ) -> AsyncIterator[Progress | TrainingResult]:
        await self._came("train", spec.examples[0].text)
        self.specs.append(spec)
        yield Progress(step=1, total_steps=1, loss=1.0)
        yield _trained(digest_of("adapter", policy.adapter, spec))

    async def train_policy(
        self,
        parent: Policy,
        examples: Sequence[PolicyExample],
        lora: LoraConfig,
        optimisation: Optimisation,
        *,
        from_parent: bool,
        seed: int,
        owner: str,
    ) -> AsyncIterator[Progress | TrainingResult]:
        await self._came("policy", parent.name)
        self.taught.append([example.completion for example in examples])
        yield _trained(digest_of("policy", parent.adapter, list(map(str, examples)), from_parent, seed))

    async def join_adapters(self, policy: Policy, adapter: AdapterRef) -> AdapterRef:
        await self._came("join", policy.name)
        return AdapterRef(digest=digest_of("joined", policy.adapter, adapter)) if policy.adapter else adapter

    async def route_adapters(self, routes: Sequence[Route]) -> AdapterRef:
        await self._came("route", "")
        self.routed.append(tuple(routes))
        return AdapterRef(digest=routed_digest(MODEL.digest, routes))

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        await self._came("count", "")
        return [len(text.split()) for text in texts]

    async def delete_adapters(self, adapters: Sequence[AdapterRef]) -> int:
        await self._came("delete", "")
        self.deleted += [adapter.digest for adapter in adapters]
        return len(adapters)

    async def evaluate(self, request: EvaluationRequest) -> Evaluation:
        policy, adapter = request.policy, request.adapter
        await self._came("evaluate", policy.name)
        self.evaluated.append(request)
        subject, own = adapter.digest if adapter else "", policy.adapter.digest if policy.adapter else ""
        outcome = self.outcome if adapter or not own else self.knows
        lost = self.lost(subject or own)
        earlier = [q for q in request.earlier_queries if self.outcome("", q.query_id) is Outcome.CORRECT]
        return Evaluation(
            verdicts=tuple(_verdict(q, outcome(subject or own, q.query_id)) for q in request.queries),
            baseline_verdicts=tuple(_verdict(q, self.outcome("", q.query_id)) for q in request.queries),
            retention=Retention(
                kept=2 + len(earlier), accuracy_before=1.0, accuracy_after=1 - lost, forgetting=lost,
                forgetting_low=lost - 0.5, forgetting_high=lost + 0.5,
            ) if request.retention_queries else None,
            divergence=Divergence(on_fixed_text=0.25) if request.measure_divergence else None,
        )  # fmt: skip


MODEL = ModelInfo(
    name="tiny", digest="ab" * 32, tokenizer_digest="cd" * 32, context_length=64,
    dtype="float32", device="cpu",
)  # fmt: skip


def manifest() -> Manifest:
    """What a trial may have left."""
    how = Instructions(
        policy=Policy(name="p"), editor="policy", context_id="c", index=0, domain=DOMAIN, options={},
        sampling=Sampling(), row_seed=1, constrained=False, inner_seed=2, target_characters=None, answering=Sampling(),
        judge="exact", retention_limit=2, divergence=False, early_stopping=None,
    )  # fmt: skip
    return Manifest(instructions=how, material={}, found=Found(), versions={})


def written(context_id: str, index: int, seed: int) -> str:
    """One in six or so is unusable."""
    number = int(digest_of(context_id, index, seed)[:8], 16)
    return f"{'bad' if number % 6 == 0 else 'good'} edit {number} of {context_id}"


def graded(subject: str, query_id: str) -> Outcome:
    """Without an adapter one answer in four is right, with one about two in three."""
    number = int(digest_of(subject, query_id, LUCK)[:8], 16)
    right = query_id.endswith("/0") if not subject else number % 3 > 0
    return Outcome.CORRECT if right else Outcome.INCORRECT


def _verdict(query: Query, outcome: Outcome) -> Verdict:
    return Verdict(query_id=query.query_id, answer="yes", outcome=outcome)


def _trained(digest: str) -> TrainingResult:
    return TrainingResult(
        adapter=AdapterRef(digest=digest),
        cached=False,
        steps=1,
        first_loss=2.0,
        final_loss=1.0,
        usage=Usage(train_tokens=10),
    )
