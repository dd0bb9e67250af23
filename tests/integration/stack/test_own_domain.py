"""A domain of one's own, in one file: sums that a random model cannot know. It goes through the four real services with
no edit anywhere else; `SEAL_CONTROLLER_DOMAIN_PLUGINS` names it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context, Domain, Rejected
from sealkit.errors import InvalidDataset
from sealkit.types import Prompt, Query, TrainingExample, TrainingSpec
from tests.integration.stack.support import PLUGIN, RunningStack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RUN = f"""
name = "sums"
rounds = 1
contexts_per_round = 2
domain = {{ name = "{PLUGIN}" }}
dataset = {{ path = "sums.json" }}
editor = {{ k = 2, arms = ["policy", "teacher"], sampling = {{ max_tokens = 8 }} }}
evaluation = {{ sampling = {{ temperature = 0.0, max_tokens = 8 }}, retention_limit = 1 }}
selection = {{ rule = "positive", must_beat_passage_only = false, learn_from = ["teacher"] }}
held_out = {{ samples = 1 }}
gate = {{ max_forgetting = 1.0 }}
[inner_loop]
lora = {{ rank = 8, alpha = 16 }}
optimisation = {{ learning_rate = 1e-2, epochs = 40 }}
[m_step]
lora = {{ rank = 8, alpha = 16 }}
optimisation = {{ learning_rate = 1e-3, epochs = 1 }}
"""


class Sums:
    """A context is one sum; a self-edit is what the adapter learns to answer to it."""

    name = "sums"
    version = "1"
    judge = "exact"
    completion_schema = ""

    def __init__(self, options: Mapping[str, Any], inner_loop: InnerLoopConfig) -> None:
        self._inner_loop = inner_loop

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        if not all(isinstance(record.get("a"), int) and isinstance(record.get("b"), int) for record in records):
            raise InvalidDataset("every sum needs whole numbers a and b")
        return [
            Context(context_id=f"{r['a']}-and-{r['b']}", split=r["split"], payload={"a": r["a"], "b": r["b"]})
            for r in records
        ]

    def prompt(self, context: Context) -> Prompt:
        return Prompt(user=f"Write what {self._sum(context)} makes.")

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        if not completion.strip():
            raise Rejected("EMPTY")
        example = TrainingExample(text=completion.strip(), prompt=Prompt(user=self._sum(context)))
        inner = self._inner_loop
        return TrainingSpec(examples=(example,), lora=inner.lora, optimisation=inner.optimisation, seed=seed)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        return self.compile(context, self._sum(context), seed)

    def queries(self, context: Context) -> list[Query]:
        question = self._sum(context)
        gold = str(context.payload["a"] + context.payload["b"])
        return [Query(query_id=context.context_id, question=question, gold=gold, prompt=Prompt(user=question))]

    def ready_made(self, context: Context) -> Mapping[str, str]:
        return {"teacher": str(context.payload["a"] + context.payload["b"])}

    def _sum(self, context: Context) -> str:
        return f"{context.payload['a']} + {context.payload['b']}"


def test_it_is_a_domain() -> None:
    assert isinstance(Sums({}, InnerLoopConfig()), Domain)


def test_a_round_of_it_goes_through_the_four_services(stack: RunningStack, tmp_path: Path) -> None:
    seal = stack.seal
    sums = [{"a": n, "b": n + 2, "split": split} for n, split in ((1, "train"), (2, "train"), (3, "heldout"))]
    (tmp_path / "sums.json").write_text(json.dumps(sums))
    (tmp_path / "run.toml").write_text(RUN)
    ran = seal("run", "run.toml", timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    name = ran.stdout.partition(":")[0]
    listed = [line.split("\t") for line in seal("trials", "list", name).stdout.splitlines()]
    assert Counter(editor for _, editor, *_ in listed) == {"policy": 2 * 2 + 2, "teacher": 2 + 1, "passage_only": 2 + 1}
    rows = {
        row["key"]: row["accuracy"]["mean"] for row in json.loads(seal("runs", "report", name, "--json").stdout)["rows"]
    }
    assert rows["train.teacher.self_edit.mean"] == 1.0, "it was told the sum, so it says it"
    assert rows["train.base"] == rows["train.passage_only"] == 0.0
    assert all("kept" in line for line in listed if line[1] == "teacher" and "/trials/heldout" not in line[0])
