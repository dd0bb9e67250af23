"""Encodes training examples: the tokens of each sequence, and which of them carry loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from sealkit.backends.template import encode_text, rendered_text
from sealkit.errors import ExampleTooLong, InvalidInput, NothingToLearn, Unsupported
from sealkit.types import Prompt, PromptLoss, TrainingExample, TrainingSpec


@dataclass(frozen=True)
class Encoded:
    """One sequence. `labels` are the positions (≥ 1, ascending) of the tokens that carry loss; each is predicted from
    the position before it, so a sequence's first token never does. `teacher`: for a distilled sequence, the same label
    tokens after the teacher's prompt."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    teacher: Encoded | None = None

    def last_label_only(self) -> Encoded:
        """The same tokens, with only the last label."""
        return Encoded(self.ids, self.labels[-1:])


def encode_spec(tokenizer: PreTrainedTokenizerBase, spec: TrainingSpec, context_length: int) -> tuple[Encoded, ...]:
    """The sequences of `spec`, examples before rehearsal, without those that have no label.

    Raises ExampleTooLong for a sequence of more than `context_length` tokens, the teacher's included; NothingToLearn if
    no label is left; InvalidInput for a distilled example whose prompt carries loss.
    """
    kept = _encoded(tokenizer, (*spec.examples, *spec.rehearsal), "example", spec.append_eos, context_length)
    if not kept:
        raise NothingToLearn("no token of the examples carries loss; give longer texts or wider loss_spans")
    return kept


def encode_anchors(tokenizer: PreTrainedTokenizerBase, spec: TrainingSpec, context_length: int) -> tuple[Encoded, ...]:
    """The anchors of `spec`: prompts with the base model's own answers, without an end-of-sequence token. Raises
    ExampleTooLong."""
    plain = [anchor.model_copy(update={"teacher_prompt": None}) for anchor in spec.anchors]
    return _encoded(tokenizer, plain, "anchor", False, context_length)


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[TrainingExample],
    what: str,
    append_eos: bool,
    context_length: int,
) -> tuple[Encoded, ...]:
    encoded = [encode(tokenizer, example, append_eos=append_eos) for example in examples]
    for index, sequence in enumerate(encoded):
        longest = max(len(sequence.ids), len(sequence.teacher.ids) if sequence.teacher else 0)
        if longest > context_length:
            raise ExampleTooLong(
                f"{what} {index} has {longest} tokens, the limit is {context_length}; shorten or split it",
                metadata={"index": str(index), "tokens": str(longest), "limit": str(context_length)},
            )
    return tuple(sequence for sequence in encoded if sequence.labels)


def encode(tokenizer: PreTrainedTokenizerBase, example: TrainingExample, *, append_eos: bool) -> Encoded:
    """Tokens of the rendered prompt, then of the text; with `append_eos` the eos token is the last label. The prompt of
    a thinking model ends behind an empty reasoning: the text is an answer. Raises InvalidInput if a distilled example's
    prompt carries loss, Unsupported if the loss is on a part of the text and the tokenizer does not tell the characters
    of its tokens."""
    if example.teacher_prompt and example.prompt_loss is not PromptLoss.NONE:
        raise InvalidInput("an example with a teacher_prompt is distilled only on its text: leave prompt_loss unset")
    prompt, labels = _prompt(tokenizer, example.prompt, example.prompt_loss) if example.prompt else ([], [])
    if example.loss_spans:
        _check_offsets(tokenizer, "loss_spans")
    text = encode_text(
        tokenizer,
        example.text,
        special=example.prompt is None,
        return_offsets_mapping=bool(example.loss_spans),
        return_special_tokens_mask=True,
    )
    carries = [not special for special in text["special_tokens_mask"]]
    if example.loss_spans:
        inside = [_overlaps(offset, example.loss_spans) for offset in text["offset_mapping"]]
        carries = [c and i for c, i in zip(carries, inside, strict=True)]
    ids = [*prompt, *text["input_ids"]]
    labels += [len(prompt) + position for position, c in enumerate(carries) if c]
    if append_eos:
        labels.append(len(ids))
        ids.append(int(tokenizer.eos_token_id))
    labels = [label for label in labels if label > 0]
    teacher = None
    if example.teacher_prompt:
        shown, _ = _prompt(tokenizer, example.teacher_prompt, PromptLoss.NONE)
        first = len(ids) - len(text["input_ids"]) - append_eos + (0 if example.prompt else _leading(text))
        behind = ids[first:]
        teacher = Encoded((*shown, *behind), tuple(len(shown) + label - first for label in labels))
    return Encoded(tuple(ids), tuple(labels), teacher)


def _leading(text: Mapping[str, Sequence[Any]]) -> int:
    """Special tokens before a text without a prompt."""
    return next((at for at, special in enumerate(text["special_tokens_mask"]) if not special), 0)


def _prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, loss: PromptLoss) -> tuple[list[int], list[int]]:
    """Tokens of a rendered prompt, and which of them carry loss. Raises InvalidInput if a shot cannot be found."""
    text, special = rendered_text(tokenizer, prompt, answering=True)
    if loss is PromptLoss.SHOTS:
        _check_offsets(tokenizer, "loss on the shots of a prompt (the domain arc)")
    encoded = encode_text(tokenizer, text, special=special, return_offsets_mapping=loss is PromptLoss.SHOTS)
    ids = encoded["input_ids"]
    if loss is not PromptLoss.SHOTS:
        return ids, list(range(len(ids))) if loss is PromptLoss.ALL else []
    spans = _answers(text, prompt)
    return ids, [position for position, offset in enumerate(encoded["offset_mapping"]) if _overlaps(offset, spans)]


def _answers(text: str, prompt: Prompt) -> list[tuple[int, int]]:
    """Positions of the shots' answers in a rendered prompt. Templates may trim whitespace."""
    system = prompt.system.strip()
    spans, end = [], text.find(system) + len(system) if system in text else 0
    for shot in prompt.shots:
        asked = text.find(shot.user.strip(), end)
        start = text.find(shot.assistant.strip(), asked + len(shot.user.strip()))
        if asked < 0 or start < 0:
            raise InvalidInput("the model's chat template changes the shots' texts, so their answers cannot carry loss")
        end = start + len(shot.assistant.strip())
        spans.append((start, end))
    return spans


def _check_offsets(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    """Raises Unsupported if the tokenizer does not say which characters a token is made of."""
    if not tokenizer.is_fast:
        raise Unsupported(
            f"{what} needs each token's characters, which the model's tokenizer ({type(tokenizer).__name__}) does "
            "not tell them: use a model with a tokenizer.json, or convert its tokenizer to one"
        )


def _overlaps(offset: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    return any(offset[0] < end and start < offset[1] for start, end in spans)
