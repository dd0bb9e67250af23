"""How far the KL to k tokens and a bucket lies from that to the whole distribution: `python -m benchmarks.top_k`.

Teacher: the base model with a passage of configs/demo/passages.json in its prompt; student: the same model without it;
the text is the gold answer to each of the passage's questions. Told for each k: the mean KL, what share of the whole KL
it is, how far its gradient by the hidden states is from the exact one (relative L2), and the bytes kept for a token.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.learning.material import passages
from benchmarks.learning.ways import WAYS
from sealkit.backends.models import ModelSettings, load_model
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.domains.knowledge.questions import TeacherStyle, teacher_prompt
from sealkit.types import PromptFormat, TrainingExample
from trainer_svc.encoding import Encoded, encode
from trainer_svc.loss import Goal, Soft, States, head_gradient, joined
from trainer_svc.packed import PackedModel
from trainer_svc.step import Part
from trainer_svc.teacher import size_of

ROOT = Path(__file__).parents[1]
MODEL = ROOT / ".seal/models/smollm2-135m-instruct"
SIZES = (1, 4, 16, 64, 256, 1024)


def sequences(tokenizer: object, count: int) -> list[Encoded]:
    """The gold answers behind both prompts."""
    domain: KnowledgeDomain = WAYS[0].domain
    found = []
    for context in domain.contexts(passages(ROOT / "configs/demo/passages.json", "train", count)):
        title, passage = context.payload["title"], context.payload["context"]
        for query in domain.queries(context):
            shown = teacher_prompt(title, passage, query.question, PromptFormat.AUTO, TeacherStyle.INSTRUCTED)
            example = TrainingExample(text=query.gold, prompt=query.prompt, teacher_prompt=shown)
            found.append(encode(tokenizer, example, append_eos=False))  # type: ignore[arg-type]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=8)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    loaded = load_model(ModelSettings(model=str(MODEL), dtype="float32"))
    model = PackedModel(loaded.model)
    asked = sequences(loaded.tokenizer, options.passages)
    students = _said(model, [Part((s,)) for s in asked], 0)
    rows = torch.cat([soft.states for soft in students if isinstance(soft, States)])
    teachers = [Part((s.teacher,)) for s in asked if s.teacher is not None]
    loss, exact = _gradient(model, rows, _said(model, teachers, 0))
    print(f"{loaded.info.name}: {len(asked)} answers, {len(rows)} tokens, whole KL {loss:.3f} nats a token\n")
    print("| k | KL | of the whole | gradient off by | bytes a token |\n|---|---|---|---|---|")
    for k in SIZES:
        targets = _said(model, teachers, k)
        found, gradient = _gradient(model, rows, targets)
        apart = float((gradient - exact).norm() / exact.norm())
        print(
            f"| {k} | {found:.3f} | {found / loss:.1%} | {apart:.1%} | {sum(map(size_of, targets)) / len(rows):,.0f} |"
        )
    return 0


def _said(model: PackedModel, parts: Sequence[Part], top_k: int) -> list[Soft]:
    return [model.soft_targets([part], top_k)[0] for part in parts]


def _gradient(model: PackedModel, rows: Tensor, targets: Sequence[Soft]) -> tuple[float, Tensor]:
    zero, one = torch.zeros(len(rows)), torch.ones(len(rows))
    goal = Goal(torch.zeros(len(rows), dtype=torch.long), zero, one, joined(targets))
    head = model.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    losses, gradient = head_gradient(rows, head.weight, None, goal)
    return float(losses.mean()), gradient


if __name__ == "__main__":
    sys.exit(main())
