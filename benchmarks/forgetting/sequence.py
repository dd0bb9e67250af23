"""One arm on one sequence of texts: commits them in order, and measures every policy."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks.forgetting.arms import Arm
from benchmarks.learning.measure import ANSWERING, BASE, Bench
from controller.rules.rehearsal import examples_of, split
from sealkit.domains.base import Context, Rejected
from sealkit.routing import Route
from sealkit.types import (
    AdapterRef,
    EvaluationRequest,
    Policy,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    accuracy,
    seed_of,
)

_SET_ASIDE = 8
"""Queries of the suite that are never measured; arms with rehearsal use the first of them."""


class Learner:
    """An arm in progress. An adapter in the store is not trained again, so a stopped arm continues."""

    def __init__(self, arm: Arm, bench: Bench, contexts: Sequence[Context], seed: int) -> None:
        self._arm = arm
        self._bench = bench
        self._contexts = contexts
        self._seed = seed
        self._rehearsed, self._measured = split(bench.suite, _SET_ASIDE, seed)
        self._rehearsal: tuple[TrainingExample, ...] = ()
        self._specs: list[TrainingSpec] = []
        self._routes: list[Route] = []
        self._trained = 0
        self._cpu_seconds = 0.0

    async def rows(self, known: Sequence[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """Row 0, of the base model, then one after each commit; those that are `known` are not measured again."""
        await self._rehearse()
        policy = BASE
        yield known[0] if known else await self._measure(policy, self._contexts)
        for number, context in enumerate(self._contexts, start=1):
            policy = Policy(name=f"policies/{number}", adapter=await self._commit(policy, context, number))
            if number < len(known):
                self._trained, self._cpu_seconds = known[number]["trained_tokens"], known[number]["cpu_seconds"]
                yield known[number]
            else:
                yield await self._measure(policy, self._contexts[:number])

    async def _rehearse(self) -> None:
        """The base model's answers (`rehearsal.source = "model"`)."""
        asked = self._rehearsed[: self._arm.rehearsed]
        answers = {
            query.query_id: (await self._bench.backend.generate(query.prompt, ANSWERING)).text for query in asked
        }
        self._rehearsal = examples_of(asked, answers)

    async def _commit(self, policy: Policy, context: Context, number: int) -> AdapterRef | None:
        """The adapter of the next policy; that of this one if the self-edit is rejected."""
        way, trainer = self._arm.way, self._bench.built.trainer
        try:
            spec = await self._bench.material.spec(way, context, seed_of("forgetting", context.context_id, self._seed))
        except Rejected:
            return policy.adapter
        self._specs.append(self._bench.with_anchors(way, spec.changed(rehearsal=self._rehearsal)))
        if self._arm.commit == "consolidate":
            examples = tuple(example for one in self._specs for example in one.examples)
            whole = self._specs[0].changed(examples=examples, seed=seed_of("consolidation", self._seed, number))
            return await self._train(BASE, self._bench.at_budget(whole, texts=len(self._specs)))
        own = self._bench.at_budget(self._specs[-1])
        if self._arm.commit == "join":
            return await trainer.join_adapters(policy, await self._train(policy, own))
        self._routes.append(Route(adapter=await self._train(BASE, own), text=way.domain.passage_text(context)))
        return await trainer.route_adapters(self._routes)

    async def _train(self, below: Policy, spec: TrainingSpec) -> AdapterRef:
        began = time.process_time()
        async for update in self._bench.built.trainer.train_adapter(below, spec, "benchmark"):
            if isinstance(update, TrainingResult):
                self._trained += update.usage.train_tokens
                self._cpu_seconds += time.process_time() - began
                return update.adapter
        raise AssertionError("the last update is the result")

    async def _measure(self, policy: Policy, contexts: Sequence[Context]) -> dict[str, Any]:
        """Accuracy on each context; retention and KL relative to the base model."""
        queries = {context.context_id: self._arm.way.domain.queries(context) for context in contexts}
        found = await self._bench.evaluator.evaluate(
            EvaluationRequest(
                policy=policy,
                queries=tuple(query for some in queries.values() for query in some),
                sampling=ANSWERING,
                judge=self._arm.way.domain.judge,
                retention_queries=tuple(self._measured),
                retention_limit=self._bench.setting.kept,
                measure_divergence=True,
            )
        )
        verdicts = {verdict.query_id: verdict for verdict in found.verdicts}
        assert found.retention is not None
        return {
            "scores": {name: accuracy(tuple(verdicts[q.query_id] for q in some)) for name, some in queries.items()},
            "retention": found.retention.model_dump(mode="json"),
            "kl": found.divergence.on_fixed_text if found.divergence else None,
            "trained_tokens": self._trained,
            "cpu_seconds": round(self._cpu_seconds, 1),
        }
