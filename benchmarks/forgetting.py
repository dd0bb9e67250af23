"""Eight texts learned one after the other: the effect of each method against forgetting.

    python -m benchmarks.forgetting                  every arm that is not complete yet, then the table
    python -m benchmarks.forgetting --arm kl         that arm
    python -m benchmarks.forgetting --table          only the table; `--first 4`: for the first 4 texts
    python -m benchmarks.forgetting --quick          two texts, a tiny random model: a smoke test

The parts are the product's own: the trainer with its `join_adapters`, the evaluator on the decoder, the controller's
rehearsal and R. Self-edits are not sampled: every text is learned from itself (passage-only), so that the arms differ
only in their method against forgetting, and one core is enough. Each text is trained over all commits before it, and
the adapter is joined exactly; `consolidation` instead trains one adapter from the base on all texts so far. Held-out
questions on the texts learned so far and the retention suite are asked after every commit, greedily. Rows are written
as they are measured and adapters stay in the store of `--out`, so an interrupted arm continues.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from controller.report.continual import continual
from controller.rules.rehearsal import examples_of, split
from controller.rules.setup import retention_query
from evaluator_svc.evaluate import Evaluator
from sealkit.backends.base import Backend
from sealkit.backends.factory import BackendSettings, make_backend
from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.reports import Continual, Estimate
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import (
    AdapterRef,
    EvaluationRequest,
    LoraConfig,
    Optimisation,
    Policy,
    Query,
    Retention,
    Sampling,
    Schedule,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
    accuracy,
    seed_of,
)
from trainer_svc.build import build
from trainer_svc.settings import TrainerSettings
from trainer_svc.trainer import Trainer

MODEL = Path(".seal/models/smollm2-135m-instruct")
PASSAGES = Path("configs/demo/passages.json")
SUITE = Path("sealkit/data/retention.jsonl")
OUT = Path(".seal/benchmarks/forgetting")
SEED = 0
_SET_ASIDE = 8
"""Queries of the suite that are never measured; arms with rehearsal use the first of them."""
SAMPLING = Sampling(temperature=0.0, max_tokens=24, stop=("\n",))


@dataclass(frozen=True)
class Arm:
    """One method against forgetting."""

    name: str
    rehearsed: int = 0
    kl_beta: float = 0.0
    consolidates: bool = False


ARMS = (
    Arm("none"),
    Arm("rehearsal", rehearsed=4),
    Arm("kl", kl_beta=0.1),
    Arm("both", rehearsed=4, kl_beta=0.1),
    Arm("consolidation", consolidates=True),
)


@dataclass(frozen=True)
class Setting:
    """Contexts, model and settings of the benchmark."""

    model: Path
    contexts: int
    kept: int
    lora: LoraConfig
    optimisation: Optimisation

    def describe(self, arm: Arm) -> dict[str, Any]:
        lora, optimisation = self.lora.model_dump(mode="json"), self.optimisation.model_dump(mode="json")
        learned = {"contexts": self.contexts, "kept": self.kept, "lora": lora, "optimisation": optimisation}
        return {**learned, "arm": asdict(arm), "seed": SEED}


FULL = Setting(
    MODEL,
    contexts=8,
    kept=24,
    lora=LoraConfig(rank=32, alpha=64),
    optimisation=Optimisation(learning_rate=1e-3, epochs=16, batch_size=1, schedule=Schedule.LINEAR, max_grad_norm=1.0),
)
QUICK = Setting(
    Path(),
    contexts=2,
    kept=2,
    lora=LoraConfig(rank=2, alpha=4),
    optimisation=Optimisation(learning_rate=1e-3, epochs=1),
)


class Bench:
    """One arm in progress."""

    def __init__(self, arm: Arm, setting: Setting, trainer: Trainer, evaluator: Evaluator) -> None:
        self.arm, self.setting, self.trainer, self.evaluator = arm, setting, trainer, evaluator
        optimisation = setting.optimisation.model_copy(update={"kl_beta": arm.kl_beta})
        inner = InnerLoopConfig(lora=setting.lora, optimisation=optimisation, append_eos=False)
        self.domain = KnowledgeDomain({}, inner)
        records = json.loads(PASSAGES.read_text(encoding="utf-8"))
        learned = [context for context in self.domain.contexts(records) if context.split == "train"]
        self.contexts = learned[: setting.contexts]
        suite = [retention_query(json.loads(line)) for line in SUITE.read_text(encoding="utf-8").splitlines()]
        mixed = sorted(suite, key=lambda query: seed_of(SEED, "order of retention", query.query_id))
        # Every arm measures the same queries: those that the arm with the most rehearsal does not use.
        self.rehearsed, self.measured = split(mixed, _SET_ASIDE, SEED)
        self.rehearsal: tuple[TrainingExample, ...] = ()

    async def rehearse(self, backend: Backend) -> None:
        """Replaces the answers by the base model's (`rehearsal.source = "model"`)."""
        rehearsed = self.rehearsed[: self.arm.rehearsed]
        answers = {query.query_id: (await backend.generate(query.prompt, SAMPLING)).text for query in rehearsed}
        self.rehearsal = examples_of(rehearsed, answers)

    async def rows(self, known: Sequence[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """Row 0, then one after each commit; those that are `known` are not measured again. An adapter in the store is
        not trained again."""
        policy = Policy(name="policies/base")
        yield known[0] if known else await self.measure(policy, self.contexts)
        for number, context in enumerate(self.contexts, start=1):
            adapter = await self.commit(policy, number, context)
            policy = Policy(name=f"policies/{number}", adapter=adapter)
            row = known[number] if number < len(known) else await self.measure(policy, self.contexts[:number])
            print(f"  {self.arm.name} {number}/{len(self.contexts)}: {_row_line(row, self.contexts)}", flush=True)
            yield row

    async def commit(self, policy: Policy, number: int, context: Context) -> AdapterRef:
        """The adapter of the next policy."""
        if self.arm.consolidates:
            return await self.train(Policy(name="policies/base"), self.contexts[:number], number)
        return await self.trainer.join_adapters(policy, await self.train(policy, [context], number))

    async def train(self, policy: Policy, contexts: Sequence[Context], number: int) -> AdapterRef:
        specs = [self.domain.context_only(context, seed_of(SEED, "inner loop", number)) for context in contexts]
        examples = tuple(example for spec in specs for example in spec.examples)
        spec: TrainingSpec = specs[0].model_copy(update={"examples": examples, "rehearsal": self.rehearsal})
        async for update in self.trainer.train_adapter(policy, spec, "benchmark"):
            if isinstance(update, TrainingResult):
                return update.adapter
        raise AssertionError("the last update is the result")

    async def measure(self, policy: Policy, contexts: Sequence[Context]) -> dict[str, Any]:
        """Accuracy on each context, and retention relative to the base model."""
        answered = [await self.ask(policy, self.domain.queries(context)) for context in contexts]
        _, retention = await self.ask(policy, (), self.measured)
        assert retention is not None
        return {
            "scores": {context.context_id: score for context, (score, _) in zip(contexts, answered, strict=True)},
            "retention": retention.model_dump(mode="json"),
        }

    async def ask(
        self, policy: Policy, queries: Sequence[Query], suite: Sequence[Query] = ()
    ) -> tuple[float | None, Retention | None]:
        request = EvaluationRequest(
            policy=policy,
            queries=tuple(queries),
            sampling=SAMPLING,
            judge=self.domain.judge,
            retention_queries=tuple(suite),
            retention_limit=self.setting.kept,
        )
        evaluation = await self.evaluator.evaluate(request)
        return accuracy(evaluation.verdicts), evaluation.retention


async def run(arm: Arm, setting: Setting, store: Path, file: Path) -> None:
    """All rows of an arm, written to `file` as they are measured; an interrupted arm continues after its last row."""
    before = _read(file)
    known = before.get("rows", []) if before.get("setting") == setting.describe(arm) else []
    cpu = time.process_time() - (before["cpu_seconds"] if known else 0.0)
    rows: list[dict[str, Any]] = []
    model: dict[str, Any] = {
        "model": str(setting.model),
        "store_url": f"file://{store}",
        "threads": 1,
        "dtype": "float32",
    }
    async with AsyncExitStack() as stack:
        built = await asyncio.to_thread(build, TrainerSettings(**model))
        stack.callback(built.engine.close)
        backend = make_backend(BackendSettings(**model))
        await backend.start()
        stack.push_async_callback(backend.close)
        bench = Bench(arm, setting, built.trainer, Evaluator(backend, kept_verdicts=100_000))
        await bench.rehearse(backend)
        async for row in bench.rows(known):
            rows.append(row)
            result = {
                "arm": arm.name,
                "setting": setting.describe(arm),
                "contexts": [context.context_id for context in bench.contexts],
                "rows": rows if len(rows) > len(known) else known,
                "cpu_seconds": round(time.process_time() - cpu, 1),
            }
            _write(file, result)


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _write(file: Path, result: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(result, indent=1), encoding="utf-8")


# --- results ----------------------------------------------------------------------------------------------------------
def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The arms side by side, then each one's R, in Markdown."""
    head = (
        "| arm | just learned | at the end | BWT | texts forgotten | retention at the end | retention lost | CPU s |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    lines = [head]
    for result in results:
        found, last = _continual(result), result["rows"][-1]["retention"]
        cells = [_interval(e) for e in (found.just_learned, found.at_end, found.bwt, found.forgetting)]
        lost = f"{last['forgetting']:+.2f} [{last['forgetting_low']:+.2f}, {last['forgetting_high']:+.2f}]"
        kept = f"{last['accuracy_after']:.2f} of {last['kept']}"
        lines.append(f"| {result['arm']} | {' | '.join(cells)} | {kept} | {lost} | {result['cpu_seconds']:.0f} |")
    return "\n".join([*lines, "", *(_matrix(result) for result in results)])


def _first(result: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The result with only the first `count` texts: no row of an arm depends on later texts."""
    contexts = result["contexts"][: min(count, len(result["rows"]) - 1)]
    rows = [
        row | {"scores": {context: row["scores"].get(context) for context in contexts}}
        for row in result["rows"][: len(contexts) + 1]
    ]
    return {**result, "contexts": contexts, "rows": rows}


def _continual(result: Mapping[str, Any]) -> Continual:
    rows = [{c: s for c, s in row["scores"].items() if s is not None} for row in result["rows"]]
    return continual(result["contexts"], rows)


def _matrix(result: Mapping[str, Any]) -> str:
    contexts = result["contexts"]
    lines = [
        f"{result['arm']}:",
        "",
        f"| after | {' | '.join(map(str, range(1, len(contexts) + 1)))} | retention |",
        "|---" * (len(contexts) + 2) + "|",
    ]
    for number, row in enumerate(result["rows"]):
        cells = ["" if (s := row["scores"].get(c)) is None else f"{s:.1f}" for c in contexts]
        lines.append(f"| {number} | {' | '.join(cells)} | {row['retention']['accuracy_after']:.2f} |")
    return "\n".join([*lines, ""])


def _row_line(row: Mapping[str, Any], contexts: Sequence[Context]) -> str:
    scores = " ".join("–" if (s := row["scores"].get(c.context_id)) is None else f"{s:.1f}" for c in contexts)
    return f"R {scores}, retention {row['retention']['accuracy_after']:.2f}"


def _interval(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=[arm.name for arm in ARMS], action="append", help="Measure this arm (again).")
    parser.add_argument("--first", type=int, default=FULL.contexts, help="Tables of the first N texts.")
    parser.add_argument("--table", action="store_true", help="Only show the measured rows.")
    parser.add_argument("--quick", action="store_true", help="Two texts, a tiny random model.")
    parser.add_argument("--out", type=Path, default=OUT, help="Folder of results and adapters.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        out, setting = options.out, FULL
        if options.quick:
            out = Path(scratch, "out")
            model = make_tiny_model(Path(scratch, "model"), "llama", hidden=64, layers=2, vocab=512, context=512)
            setting = Setting(model, QUICK.contexts, QUICK.kept, QUICK.lora, QUICK.optimisation)
        out.mkdir(parents=True, exist_ok=True)
        files = {arm: out / f"{arm.name}.json" for arm in ARMS}
        for arm, file in files.items():
            wanted = not options.table and arm.name in (options.arm or [one.name for one in ARMS])
            if wanted and len(_read(file).get("rows", ())) <= setting.contexts:
                asyncio.run(run(arm, setting, (out / "store").absolute(), file))
        results = [_read(file) for file in files.values() if file.exists()]
    print(table([_first(result, options.first) for result in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
