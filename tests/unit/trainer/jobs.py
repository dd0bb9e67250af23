"""Models, sequences and job specs to train on."""

from __future__ import annotations

import random

import torch
from transformers import AutoModelForCausalLM

from sealkit.types import LoraConfig, Optimisation
from trainer_svc.encoding import Encoded
from trainer_svc.job import JobSpec
from trainer_svc.packed import PackedModel

PROBE = Encoded((5, 6, 7), (2,))


def packed(folder, dtype=torch.float64) -> PackedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return PackedModel(model.eval().requires_grad_(False))


def sequences(count: int, seed: int, *, shortest: int = 3, longest: int = 14) -> tuple[Encoded, ...]:
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        length = draw.randint(shortest, longest)
        first = draw.randint(1, length - 1)
        made.append(Encoded(tuple(draw.randrange(320) for _ in range(length)), tuple(range(first, length))))
    return tuple(made)


def job_spec(
    count: int = 4, seed: int = 0, *, lora=None, owner: str = "", policy=None, start=None, **options
) -> JobSpec:
    lora = LoraConfig(**{"rank": 4, "alpha": 8, **(lora or {})})
    optimisation = Optimisation(**{"learning_rate": 5e-3, "epochs": 2, **options})
    return JobSpec(sequences(count, seed), lora, optimisation, seed, owner, policy, start)
