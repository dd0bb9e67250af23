"""A model for the ARC smoke run: `python -m benchmarks.arc_model FOLDER [--steps N]`, a few minutes on one CPU core.

A Llama of about 280,000 weights, trained on two kinds of synthetic data. First, small grid tasks in the form of
`sealkit.domains.arc`, each with one of a few rules, with too little training to infer the rule from the demonstrations;
so it knows the rules, and an adapter can teach it which one applies. Second, valid toolkits, good and bad ones, so that
selection has something to choose from. It tests the pipeline; it says nothing about ARC.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sealkit.domains.arc.grids import Grid, GridStyle, Pair, Task
from sealkit.domains.arc.prompts import toolkit_prompt, training_example
from sealkit.domains.arc.toolkit import DataGeneration, Strategy
from sealkit.domains.arc.transforms import FLIP_COLUMNS, FLIP_ROWS, IDENTITY, ROTATE_180, TRANSPOSE
from sealkit.testing.tiny import CHAT_TEMPLATE, END, PAD, START
from sealkit.types import PromptFormat, PromptLoss, TrainingExample
from trainer_svc.encoding import encode

STYLE = GridStyle.COMPACT
CONTEXT = 1024
STEPS = 800
MAX_STEPS = 60
"""As in configs/arc_smoke.toml."""
RULES: dict[str, Callable[[Grid], Grid]] = {
    turn.name: turn.apply for turn in (IDENTITY, FLIP_ROWS, FLIP_COLUMNS, ROTATE_180, TRANSPOSE)
}
_TASKS, _EDITS = 16, 6
"""Examples per batch, of both kinds."""


def make_task(rule: str, random: Random, *, demonstrations: int) -> list[Pair]:
    """Pairs of 2 x 2 grids under a rule; without pairs that the rule leaves unchanged, unless it always does."""
    pairs: list[Pair] = []
    while len(pairs) < demonstrations + 1:
        grid = np.array([[random.randint(1, 6) for _ in range(2)] for _ in range(2)], dtype=np.uint8)
        pair = Pair(grid, np.ascontiguousarray(RULES[rule](grid)))
        if rule == IDENTITY.name or (pair.input != pair.output).any():
            pairs.append(pair)
    return pairs


def records(seed: int, train: int, held_out: int) -> list[dict[str, Any]]:
    """Tasks for a run, as records; the rules in turn, without the identity."""
    random, rules = Random(seed), [name for name in RULES if name != IDENTITY.name]
    made = []
    for number in range(train + held_out):
        rule = rules[number % len(rules)]
        pairs = [
            {"input": pair.input.tolist(), "output": pair.output.tolist()}
            for pair in make_task(rule, random, demonstrations=4)
        ]
        split = "train" if number < train else "heldout"
        made.append({"id": f"{rule}-{number}", "train": pairs[:4], "test": pairs[4:], "split": split})
    return made


def example(random: Random) -> TrainingExample:
    """A task; every answer in it carries loss, because the later ones follow from the earlier ones."""
    *shown, asked = make_task(random.choice(list(RULES)), random, demonstrations=3)
    return training_example(Task(tuple(shown), asked), STYLE, PromptFormat.AUTO, PromptLoss.SHOTS)


def choice(random: Random) -> TrainingExample:
    """A request for a toolkit, and a random one as the answer."""
    shown = make_task(random.choice(list(RULES)), random, demonstrations=3)
    picked = {
        "data_generation": {name: random.random() < 0.3 for name in DataGeneration.model_fields},
        "training": {
            "strategy": random.choice(list(Strategy)),
            "learning_rate": random.choice([0.00001, 0.0001, 0.001, 0.003]),
            "num_train_epochs": random.randint(1, 6),
        },
    }
    prompt = toolkit_prompt(shown, STYLE, PromptFormat.AUTO, max_steps=MAX_STEPS, batch_size=2)
    return TrainingExample(text=json.dumps(picked), prompt=prompt)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, one token per digit, with the words of the domain's prompts."""
    random = Random(0)
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made = [example(random), choice(random)]
    texts = [f"{one.prompt.system}\n{one.prompt.user}\n{one.text}" for one in made if one.prompt] * 20
    backend.train_from_iterator([*texts, "user system assistant\n"], trainer)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token=PAD, eos_token=END
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Random weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )


def batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and labels, [n, longest]: tasks, and every fourth time requests for toolkits."""
    random = Random(seed)
    for number in count():
        made = [choice(random) for _ in range(_EDITS)] if number % 4 == 3 else [example(random) for _ in range(_TASKS)]
        encoded = [encode(tokenizer, one, append_eos=True) for one in made]
        longest = max(len(one.ids) for one in encoded)
        ids = torch.full((len(encoded), longest), int(tokenizer.pad_token_id or 0))
        labels = torch.full((len(encoded), longest), -100)
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            labels[row, list(one.labels)] = ids[row, list(one.labels)]
        yield ids, labels


def teach(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int) -> Iterator[tuple[int, float]]:
    """Trains in place; reports step and loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    for step, (ids, labels) in zip(range(steps), batches(tokenizer, 1), strict=False):
        logits = model(input_ids=ids).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        yield step, float(loss.detach())


def make_arc_model(folder: Path, *, steps: int = STEPS) -> Path:
    """Trains the model and writes it to `folder`."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    for step, loss in teach(model, tokenizer, steps):
        if step % 100 < 2:
            print(f"step {step} of {steps}: loss {loss:.3f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arc_model", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args()
    make_arc_model(chosen.folder, steps=chosen.steps)


if __name__ == "__main__":
    main()
