"""The ARC plug-in: the policy chooses tools; an adapter is trained with them on a task's demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sealkit import limits
from sealkit.config import InnerLoopConfig
from sealkit.domains.arc.augment import training_tasks
from sealkit.domains.arc.grids import GridStyle, Pair, to_text
from sealkit.domains.arc.prompts import characters, task_prompt, toolkit_prompt, training_example
from sealkit.domains.arc.records import TaskRecord, read_tasks
from sealkit.domains.arc.toolkit import (
    NO_AUGMENTATION,
    SCHEMA,
    DataGeneration,
    Strategy,
    Toolkit,
    Training,
    read_toolkit,
)
from sealkit.domains.arc.transforms import IDENTITY, TURNS, VIEWS, Transform
from sealkit.domains.base import Context, Rejected
from sealkit.errors import InvalidConfig
from sealkit.types import Prompt, PromptFormat, PromptLoss, Query, TrainingExample, TrainingSpec, View, seed_of

_LOSS = {Strategy.ALL: PromptLoss.ALL, Strategy.OUTPUT: PromptLoss.SHOTS}

MOST_VIEWS = 1 + limits.VIEWS
"""Most ways to ask a query: its own prompt and 64 views."""
ORACLE = Toolkit(
    data_generation=DataGeneration(
        use_basic_augmentations=True,
        use_size_augmentations=True,
        use_chain_augmentations=True,
        use_repeat_augmentations=True,
    ),
    training=Training(strategy=Strategy.OUTPUT, learning_rate=1e-4, num_train_epochs=2),
)
"""The fixed choice of test-time training (arXiv 2411.07279), within SEAL's 375 steps."""


class ArcOptions(BaseModel):
    """The `[domain.options]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grid_style: GridStyle = GridStyle.LIST
    """How a grid is written: `list`, `spaced` or `compact`."""
    task_format: PromptFormat = PromptFormat.AUTO
    """How tasks are rendered, in training and in evaluation."""
    prompt_format: PromptFormat = PromptFormat.AUTO
    """How the editor's prompt is rendered."""
    max_examples: int = Field(250, ge=1, le=10000)
    """Most training examples of a trial; from more, a sample is drawn by seed."""
    max_example_characters: int = Field(8192, ge=1)
    """Longer examples are left out."""
    max_steps: int = Field(375, ge=1)
    """A self-edit with more optimiser steps is rejected."""
    views: tuple[str, ...] = tuple(turn.name for turn in TURNS)
    """Rotated and mirrored forms of the test that are asked beside the plain one."""
    permutations: int = Field(1, ge=0, le=8)
    """How often each form is asked again with its demonstrations in another order."""
    oracle: Toolkit = ORACLE
    """The best fixed choice: what the arm `oracle` does on every task."""

    @field_validator("views")
    @classmethod
    def _known(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in views if name not in VIEWS]:
            raise ValueError(f"unknown view {unknown[0]!r}; valid views: {', '.join(turn.name for turn in TURNS)}")
        return views

    @model_validator(mode="after")
    def _few_enough(self) -> ArcOptions:
        if (asked := (1 + len(self.views)) * (1 + self.permutations)) > MOST_VIEWS:
            raise ValueError(f"views and permutations make {asked} ways to ask; the limit is {MOST_VIEWS}")
        return self


class ArcDomain:
    """SEAL's few-shot setting (arXiv 2506.10943, section 3.2). Raises InvalidConfig on an unknown option."""

    name = "arc"
    version = "1"
    judge = "grid"
    completion_schema = SCHEMA

    def __init__(self, options: Mapping[str, Any], inner_loop: InnerLoopConfig) -> None:
        try:
            self.options = ArcOptions.model_validate(options)
        except ValidationError as error:
            fields = tuple((f"domain.options.{'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors())
            raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in fields), fields=fields) from error
        self.inner_loop = inner_loop

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        """See `read_tasks`."""
        return read_tasks(records)

    def prompt(self, context: Context) -> Prompt:
        options, optimisation = self.options, self.inner_loop.optimisation
        return toolkit_prompt(
            _task(context).demonstrations,
            options.grid_style,
            options.prompt_format,
            max_steps=options.max_steps,
            batch_size=optimisation.batch_size * optimisation.gradient_accumulation_steps,
        )

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        """Raises Rejected: NO_JSON, INVALID_TOOLKIT, TOO_MANY_STEPS, or NO_EXAMPLES if all are too long."""
        toolkit = read_toolkit(completion)
        chosen = toolkit.training
        examples = self._examples(context, toolkit.data_generation, _LOSS[chosen.strategy], seed)
        if not examples:
            raise Rejected("NO_EXAMPLES", f"all are longer than {self.options.max_example_characters} characters")
        steps = self._steps_an_epoch(len(examples)) * chosen.num_train_epochs
        if steps > self.options.max_steps:
            raise Rejected(
                "TOO_MANY_STEPS",
                f"training.num_train_epochs: {chosen.num_train_epochs} epochs of {len(examples)} examples are {steps} "
                f"steps; the limit is {self.options.max_steps}",
            )
        return self._spec(examples, seed, learning_rate=chosen.learning_rate, epochs=chosen.num_train_epochs)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        """The demonstrations without augmentation: some are left out, one of those is the query."""
        examples = self._examples(context, NO_AUGMENTATION, PromptLoss.ALL, seed)
        if not examples:
            raise Rejected("NO_EXAMPLES", f"all are longer than {self.options.max_example_characters} characters")
        return self._spec(examples, seed)

    def queries(self, context: Context) -> list[Query]:
        """One query for each test input, with the demonstrations in its prompt; the test output is held out. Its views
        are rotated, mirrored, and with reordered demonstrations."""
        task = _task(context)
        return [
            self._query(f"{context.context_id}/{number}", task.demonstrations, record.pair())
            for number, record in enumerate(task.test)
        ]

    def ready_made(self, context: Context) -> Mapping[str, str]:  # noqa: ARG002 - the choice is the same for all
        return {"oracle": self.options.oracle.model_dump_json()}

    def _query(self, query_id: str, shown: Sequence[Pair], test: Pair) -> Query:
        style, form = self.options.grid_style, self.options.task_format

        def asked(turn: Transform, order: int) -> Prompt:
            pairs = [Pair(turn.apply(pair.input), turn.apply(pair.output)) for pair in shown]
            if order:
                rng = np.random.RandomState(seed_of(query_id, turn.name, order) % 2**32)
                pairs = [pairs[i] for i in rng.permutation(len(pairs))]
            return task_prompt(pairs, turn.apply(test.input), style, form)

        plain = asked(IDENTITY, 0)
        ways = [
            View(label=f"{turn.name}/{order}", prompt=asked(turn, order))
            for order in range(self.options.permutations + 1)
            for turn in (IDENTITY, *(VIEWS[name] for name in self.options.views))
        ]
        return Query(
            query_id=query_id,
            question=to_text(test.input, style),
            gold=to_text(test.output, GridStyle.LIST),
            prompt=plain,
            views=tuple(ways[1:]),
        )

    def _examples(
        self, context: Context, chosen: DataGeneration, loss: PromptLoss, seed: int
    ) -> tuple[TrainingExample, ...]:
        limit = self.options.max_examples
        tasks = training_tasks(_task(context).demonstrations, chosen, seed=seed)
        style, form = self.options.grid_style, self.options.task_format
        made = (training_example(task, style, form, loss) for task in tasks)
        kept = (example for example in made if characters(example) <= self.options.max_example_characters)
        return tuple(example for _, example in zip(range(limit), kept, strict=False))

    def _steps_an_epoch(self, examples: int) -> int:
        optimisation = self.inner_loop.optimisation
        return ceil(ceil(examples / optimisation.batch_size) / optimisation.gradient_accumulation_steps)

    def _spec(self, examples: tuple[TrainingExample, ...], seed: int, **chosen: Any) -> TrainingSpec:
        return TrainingSpec(
            examples=examples,
            lora=self.inner_loop.lora,
            optimisation=self.inner_loop.optimisation.model_copy(update=chosen),
            append_eos=self.inner_loop.append_eos,
            seed=seed,
        )


def _task(context: Context) -> TaskRecord:
    return TaskRecord.model_validate(context.payload)
