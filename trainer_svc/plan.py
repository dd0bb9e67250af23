"""The schedule of a job: its micro-batches, optimiser steps and learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from sealkit.types import Optimisation, Schedule, seed_of


@dataclass(frozen=True)
class MicroBatch:
    """Examples of one backward pass of a job. `share`: 1 / number of micro-batches of its optimiser step; `closes`:
    whether it is the last one of that step; `index` counts the job's micro-batches from 0."""

    index: int
    examples: tuple[int, ...]
    share: float
    closes: bool


def micro_batches(examples: int, optimisation: Optimisation, seed: int) -> Iterator[MicroBatch]:
    """All micro-batches of a job, in order.

    Each epoch is a permutation of the examples drawn from `seed`, cut into batches of `batch_size` (the last may be
    smaller); an optimiser step has `gradient_accumulation_steps` of them and never crosses the end of an epoch. The
    loss of a micro-batch is the mean over its label tokens, that of a step the mean over its micro-batches: the
    convention of a plain loop over HF models, whose `loss` is a token mean.
    """
    per_step = optimisation.gradient_accumulation_steps
    index = 0
    for epoch in range(optimisation.epochs):
        order = torch.randperm(examples, generator=generator_of(seed, "order", epoch)).tolist()
        batches = [order[i : i + optimisation.batch_size] for i in range(0, examples, optimisation.batch_size)]
        for i, batch in enumerate(batches):
            step = batches[i - i % per_step : i - i % per_step + per_step]
            closes = i % per_step == len(step) - 1
            yield MicroBatch(index, tuple(batch), 1 / len(step), closes)
            index += 1


def anchors_of_step(count: int, per_step: int, seed: int, step: int) -> tuple[int, ...]:
    """Indices of the anchors, of `count`, in an optimiser step: cyclically through all of them, in an order drawn from
    `seed` for each pass; at most all of them."""
    per_step = min(per_step, count)
    places = range(step * per_step, (step + 1) * per_step)
    return tuple(_anchor_order(count, seed, place // count)[place % count] for place in places)


@lru_cache(maxsize=64)
def _anchor_order(count: int, seed: int, turn: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=generator_of(seed, "anchors", turn)).tolist())


def total_steps(examples: int, optimisation: Optimisation) -> int:
    """Optimiser steps of a job."""
    batches = math.ceil(examples / optimisation.batch_size)
    return optimisation.epochs * math.ceil(batches / optimisation.gradient_accumulation_steps)


def learning_rate(optimisation: Optimisation, step: int, steps: int) -> float:
    """Learning rate of the optimiser step numbered `step` (from 0) of `steps`, as in transformers' `get_scheduler` for
    `constant_with_warmup`, `linear` and `cosine`."""
    warmup = optimisation.warmup_steps
    if step < warmup:
        return optimisation.learning_rate * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    factors = {
        Schedule.CONSTANT: 1.0,
        Schedule.LINEAR: 1 - done,
        Schedule.COSINE: 0.5 * (1 + math.cos(math.pi * done)),
    }
    return optimisation.learning_rate * max(0.0, factors[optimisation.schedule])


def generator_of(*names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose draws depend only on `names`."""
    return torch.Generator(device).manual_seed(seed_of(*names))
