"""Prompts: to solve a task, and to choose how to learn it. SEAL's prompts in our own words."""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.domains.arc.grids import Grid, GridStyle, Pair, Task, to_text
from sealkit.types import Prompt, PromptFormat, PromptLoss, Shot, TrainingExample

_SOLVE = (
    "One rule turns every input grid into its output grid. The digits 0 to 9 are colours. Find the rule in the "
    "examples and answer with the output grid of the last input, nothing else."
)
_CHOOSE = """\
A small model is about to learn one puzzle by training on its examples. One rule turns every input grid of the puzzle \
into its output grid; the digits are colours. Choose how it is trained.

Ways to make more examples, each on or off:
- use_basic_augmentations: rotations, flips, reflections, transposition, shifts
- use_size_augmentations: higher resolution, height or width
- use_chain_augmentations: a rotation or flip, then higher resolution
- use_repeat_augmentations: the grid repeated downwards, across or both

Training:
- strategy: train_using_all_tokens or train_using_output_tokens (only the output grids teach)
- learning_rate: from 0.000001 to 0.01
- num_train_epochs: from 1 to 100; all epochs together may take {max_steps} steps of {batch_size} examples, not more

The examples of the puzzle:

{examples}

Answer with one JSON object of this form and nothing else:
{{"data_generation": {{"use_basic_augmentations": true or false, "use_size_augmentations": true or false, \
"use_chain_augmentations": true or false, "use_repeat_augmentations": true or false}}, \
"training": {{"strategy": "...", "learning_rate": ..., "num_train_epochs": ...}}}}"""


def task_prompt(shown: Sequence[Pair], asked: Grid, style: GridStyle, form: PromptFormat) -> Prompt:
    """The demonstrations as shots, then the test input. A task may have no demonstration."""
    shots = tuple(Shot(user=_request(pair.input, style), assistant=to_text(pair.output, style)) for pair in shown)
    return Prompt(user=_request(asked, style), system=_SOLVE, format=form, shots=shots)


def training_example(task: Task, style: GridStyle, form: PromptFormat, loss: PromptLoss) -> TrainingExample:
    """A task with its answer. `loss`: which tokens carry loss beside those of the answer."""
    prompt = task_prompt(task.train, task.test.input, style, form)
    return TrainingExample(text=to_text(task.test.output, style), prompt=prompt, prompt_loss=loss)


def characters(example: TrainingExample) -> int:
    """Characters of an example; with byte-level tokenizers at least its number of tokens, without the template's
    own."""
    prompt = example.prompt
    assert prompt is not None
    shots = sum(len(shot.user) + len(shot.assistant) for shot in prompt.shots)
    return shots + len(prompt.user) + len(prompt.system) + len(example.text)


def toolkit_prompt(
    shown: Sequence[Pair], style: GridStyle, form: PromptFormat, *, max_steps: int, batch_size: int
) -> Prompt:
    """The prompt for a choice of tools for a task, with at most `max_steps` optimiser steps of `batch_size`
    examples."""
    examples = "\n\n".join(
        f"Input:\n{to_text(pair.input, style)}\nOutput:\n{to_text(pair.output, style)}" for pair in shown
    )
    asked = _CHOOSE.format(examples=examples, max_steps=max_steps, batch_size=batch_size)
    return Prompt(user=f"{asked}\n\nJSON:\n" if form is PromptFormat.PLAIN else asked, format=form)


def _request(grid: Grid, style: GridStyle) -> str:
    return f"Input:\n{to_text(grid, style)}\nOutput:\n"
