"""The knowledge plug-in: the policy writes notes on a passage; an adapter trained on them answers questions about
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit.config import InnerLoopConfig
from sealkit.domains.base import Context, Rejected
from sealkit.domains.knowledge.prompts import Style, self_edit_prompt
from sealkit.domains.knowledge.records import Passage, read_passages
from sealkit.domains.knowledge.sequences import training_sequences
from sealkit.errors import InvalidConfig
from sealkit.types import Prompt, PromptFormat, Query, TrainingExample, TrainingSpec


class KnowledgeOptions(BaseModel):
    """The `[domain.options]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: Style = Style.IMPLICATIONS
    prompt_format: PromptFormat = PromptFormat.AUTO
    """How the self-edit prompt is rendered; `auto` uses the chat template if the model has one."""
    worked_example: bool = True
    """Show the editor one worked example first."""
    question_format: PromptFormat = PromptFormat.AUTO
    """How the held-out questions are rendered."""
    split_newlines: bool = True
    """Train on each line of a self-edit separately (SEAL's default for lists)."""
    min_letters: int = Field(20, ge=1)
    """A self-edit with fewer letters is rejected as empty of content."""
    max_characters: int = Field(20_000, ge=1)
    """A longer self-edit is rejected."""


class KnowledgeDomain:
    """SEAL's knowledge incorporation (arXiv 2506.10943, section 3.1). Raises InvalidConfig on an unknown option."""

    name = "knowledge"
    version = "1"
    judge = "content"
    completion_schema = ""

    def __init__(self, options: Mapping[str, Any], inner_loop: InnerLoopConfig) -> None:
        try:
            self.options = KnowledgeOptions.model_validate(options)
        except ValidationError as error:
            fields = tuple((f"domain.options.{'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors())
            raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in fields), fields=fields) from error
        self.inner_loop = inner_loop

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        """See `read_passages`."""
        return read_passages(records)

    def prompt(self, context: Context) -> Prompt:
        passage = Passage.model_validate(context.payload)
        return self_edit_prompt(
            self.options.style,
            passage.title,
            passage.context,
            self.options.prompt_format,
            worked_example=self.options.worked_example,
        )

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        """Raises Rejected: EMPTY, NOT_TEXT (too few letters, or bytes that are not text) or TOO_LONG."""
        text = completion.strip()
        if not text:
            raise Rejected("EMPTY", "the completion is empty")
        letters = sum(character.isalpha() for character in text)
        if letters < self.options.min_letters:
            raise Rejected("NOT_TEXT", f"{letters} letters; the minimum is {self.options.min_letters}")
        broken = text.count("\ufffd")
        if "\x00" in text or broken > letters // 10:
            raise Rejected("NOT_TEXT", f"{broken + text.count(chr(0))} of {len(text)} characters are not text")
        if len(text) > self.options.max_characters:
            raise Rejected("TOO_LONG", f"{len(text)} characters; the limit is {self.options.max_characters}")
        return self._spec(context, text, seed)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        """The passage under its title, as the only example."""
        return self._spec(context, "", seed)

    def queries(self, context: Context) -> list[Query]:
        """Each question after a line with its topic, as in SEAL, without the passage."""
        passage = Passage.model_validate(context.payload)
        return [
            Query(
                query_id=f"{context.context_id}/{number}",
                question=item.question,
                gold=item.answer,
                prompt=Prompt(user=f"Topic: {passage.title}\n{item.question}", format=self.options.question_format),
            )
            for number, item in enumerate(passage.questions)
        ]

    def ready_made(self, context: Context) -> Mapping[str, str]:  # noqa: ARG002
        """None: every self-edit is sampled."""
        return {}

    def _spec(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        passage = Passage.model_validate(context.payload)
        # Without a self-edit, unsplit sequences would contain the bare title too; only the raw passage is wanted here.
        sequences = training_sequences(
            completion,
            title=passage.title,
            context=passage.context,
            split_newlines=self.options.split_newlines or not completion,
        )
        return TrainingSpec(
            examples=tuple(TrainingExample(text=sequence) for sequence in sequences),
            lora=self.inner_loop.lora,
            optimisation=self.inner_loop.optimisation,
            append_eos=self.inner_loop.append_eos,
            seed=seed,
        )
