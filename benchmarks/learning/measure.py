"""One trial: trains a spec to a budget of tokens, then measures the held-out questions, the retention suite and the
KL."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.material import Material
from benchmarks.learning.ways import Way
from controller.rules.setup import retention_query
from evaluator_svc.evaluate import Evaluator
from sealkit.backends.factory import BackendSettings, make_backend
from sealkit.domains.base import Context, Rejected
from sealkit.routing import Route
from sealkit.types import (
    EvaluationRequest,
    Policy,
    Query,
    Sampling,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    accuracy,
    seed_of,
)
from trainer_svc.build import Built, build
from trainer_svc.encoding import encode_anchors, encode_spec
from trainer_svc.settings import TrainerSettings

ANSWERING = Sampling(temperature=0.0, max_tokens=24, stop=("\n",))
BASE = Policy(name="policies/base")


@dataclass(frozen=True)
class Setting:
    """`tokens`: trained in each trial, anchors included; `kept`: number of retention queries that the base answers
    right."""

    model: Path
    suite: Path
    tokens: int
    kept: int
    jobs: int


class Bench:
    """Trainer and evaluator in this process, on one thread each."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.folder = setting, folder
        self._stack = AsyncExitStack()
        self.anchors: tuple[TrainingExample, ...] = ()

    async def __aenter__(self) -> Bench:
        model: dict[str, Any] = {
            "model": str(self.setting.model),
            "store_url": f"file://{self.folder.absolute() / 'store'}",
            "threads": 1,
            "dtype": "float32",
        }
        async with AsyncExitStack() as stack:  # closes what was started, if something here fails
            settings = TrainerSettings(**model, max_jobs=self.setting.jobs)
            self.built: Built = await asyncio.to_thread(build, settings)
            stack.callback(self.built.engine.close)
            self.backend = make_backend(BackendSettings(**model))
            await self.backend.start()
            stack.push_async_callback(self.backend.close)
            self.material = Material(self.folder / "material.json", self.backend)
            self.evaluator = Evaluator(self.backend, kept_verdicts=100_000)
            lines = self.setting.suite.read_text(encoding="utf-8").splitlines()
            suite = [retention_query(json.loads(line)) for line in lines]
            self.suite = sorted(suite, key=lambda query: seed_of(0, "order of retention", query.query_id))
            self.anchors = await self.material.anchors()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def trials(self, way: Way, contexts: Sequence[Context], seed: int) -> list[dict[str, Any]]:
        """A row for each context; they are trained in one batch and evaluated in sequence."""
        specs = await asyncio.gather(*(self._spec(way, context, seed) for context in contexts))
        began = time.process_time()
        results = await asyncio.gather(*(self._train(spec) for spec in specs))
        share = (time.process_time() - began) / max(1, sum(result is not None for result in results))
        return [
            await self._row(way, context, seed, result, share)
            for context, result in zip(contexts, results, strict=True)
        ]

    async def routed(self, way: Way, contexts: Sequence[Context], seed: int) -> list[dict[str, Any]]:
        """A row for each context, of one policy: the adapters of all of them behind routes. Those in the store are not
        trained again; contexts whose self-edit is rejected have none."""
        results = [await self._train(await self._spec(way, context, seed)) for context in contexts]
        routes = [
            Route(adapter=result.adapter, text=way.domain.passage_text(context))
            for context, result in zip(contexts, results, strict=True)
            if result is not None
        ]
        policy = Policy(name="policies/routed", adapter=await self.built.trainer.route_adapters(routes))
        # One policy is measured once, so it can be asked all of the suite.
        found = await self.evaluator.evaluate(
            self._request(None, (), measured=True, policy=policy).changed(retention_limit=len(self.suite))
        )
        assert found.retention is not None
        rows = []
        for context in contexts:
            asked = await self.evaluator.evaluate(
                self._request(None, way.domain.queries(context), measured=False, policy=policy)
            )
            rows.append(
                {
                    "way": way.behind_routes,
                    "context": context.context_id,
                    "seed": seed,
                    "accuracy": accuracy(asked.verdicts),
                    "lost": found.retention.forgetting,
                    "lost_low": found.retention.forgetting_low,
                    "lost_high": found.retention.forgetting_high,
                    "lost_queries": list(found.retention.lost_query_ids),
                    "kept": found.retention.kept,
                    "kl": found.divergence.on_fixed_text if found.divergence else 0.0,
                    "routes": len(routes),
                }
            )
        return rows

    async def reference(self, contexts: Sequence[Context], way: Way) -> list[dict[str, Any]]:
        """Base model and teacher on each context: without the passage, and with it in the prompt."""
        domain = way.domain
        rows = []
        for context in contexts:
            study = domain.study(context, await self.material.self_edit(way, domain, context, 0))
            assert study is not None
            queries = domain.queries(context)
            shown = [
                query.model_copy(update={"prompt": item.teacher_prompt})
                for query, item in zip(queries, study.items, strict=True)
            ]
            for name, asked in (("base", queries), ("open_book", shown)):
                found = await self.evaluator.evaluate(self._request(None, asked, measured=False))
                rows.append(
                    {"way": name, "context": context.context_id, "seed": 0, "accuracy": accuracy(found.verdicts)}
                )
        return rows

    async def _spec(self, way: Way, context: Context, seed: int) -> TrainingSpec | None:
        try:
            spec = await self.material.spec(way, context, seed_of("learning", context.context_id, seed))
        except Rejected:
            return None
        return self.at_budget(self.with_anchors(way, spec))

    def with_anchors(self, way: Way, spec: TrainingSpec) -> TrainingSpec:
        """The spec with the anchors of a method."""
        anchors = way.inner_loop.anchors
        return spec if anchors.source == "none" else spec.changed(anchors=self.anchors, anchoring=anchors.anchoring)

    def at_budget(self, spec: TrainingSpec, *, texts: int = 1) -> TrainingSpec:
        """The spec with the number of epochs (at least 1) that is nearest to the budget of trained tokens, for each of
        the texts that it is about."""
        tokenizer, length = self.backend_tokenizer, self.built.trainer.info.context_length
        own = sum(len(sequence.ids) for sequence in encode_spec(tokenizer, spec, length))
        anchors = encode_anchors(tokenizer, spec, length)
        steps = -(-len(spec.examples) // spec.optimisation.batch_size)
        held = steps * spec.anchoring.per_step * sum(len(a.ids) for a in anchors) / max(1, len(anchors))
        epochs = max(1, round(texts * self.setting.tokens / (own + held)))
        return spec.model_copy(update={"optimisation": spec.optimisation.model_copy(update={"epochs": epochs})})

    @property
    def backend_tokenizer(self) -> Any:
        """The tokenizer that the trainer encodes with."""
        return self.built.trainer.tokenizer

    async def _train(self, spec: TrainingSpec | None) -> TrainingResult | None:
        if spec is None:
            return None
        async for update in self.built.trainer.train_adapter(BASE, spec, "benchmark"):
            if isinstance(update, TrainingResult):
                return update
        raise AssertionError("the last update is the result")

    async def _row(
        self, way: Way, context: Context, seed: int, result: TrainingResult | None, train_seconds: float
    ) -> dict[str, Any]:
        """The row of a rejected self-edit: the base model's accuracy, no forgetting."""
        row: dict[str, Any] = {"way": way.name, "context": context.context_id, "seed": seed}
        began = time.process_time()
        found = await self.evaluator.evaluate(
            self._request(result.adapter if result else None, way.domain.queries(context), measured=result is not None)
        )
        retention, divergence = found.retention, found.divergence
        return row | {
            "rejected": result is None,
            "accuracy": accuracy(found.verdicts),
            "lost": retention.forgetting if retention else 0.0,
            "lost_queries": list(retention.lost_query_ids) if retention else [],
            "kept": retention.kept if retention else 0,
            "kl": divergence.on_fixed_text if divergence else 0.0,
            "tokens": result.usage.train_tokens if result else 0,
            "teacher_tokens": result.usage.prompt_tokens if result else 0,
            "steps": result.steps if result else 0,
            "train_cpu_seconds": round(train_seconds, 2) if result else 0.0,
            "ask_cpu_seconds": round(time.process_time() - began, 2),
        }

    def _request(
        self, adapter: Any, queries: Sequence[Query], *, measured: bool, policy: Policy = BASE
    ) -> EvaluationRequest:
        return EvaluationRequest(
            policy=policy,
            adapter=adapter,
            queries=tuple(queries),
            sampling=ANSWERING,
            judge="content",
            retention_queries=tuple(self.suite) if measured else (),
            retention_limit=self.setting.kept,
            measure_divergence=measured,
        )
