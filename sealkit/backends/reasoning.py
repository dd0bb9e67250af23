"""Reasoning where the tokenizer is: which markers a model uses, completions with their markers, and prompts that go on
with an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerBase

from sealkit.errors import InvalidInput
from sealkit.reasoning import MARKERS, Markers, Said, SaidStream, split
from sealkit.types import TEMPLATE_PARAMETERS

_TAIL_TOKENS = 16
"""More tokens than an opening marker and the whitespace after it have."""


class ReasoningReader:
    """Reads the completions of one tokenizer's model: as text, and split into answer and reasoning."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.markers = markers_of(tokenizer)

    @property
    def facts(self) -> dict[str, str]:
        """A build fact of a thinking model: its opening marker."""
        return {"reasoning": self.markers.opening} if self.markers else {}

    @cached_property
    def hidden(self) -> frozenset[int]:
        """Special tokens of the markers: a text without special tokens would not show them."""
        if self.markers is None:
            return frozenset()
        ids = self._tokenizer(self.markers.opening + self.markers.closing, add_special_tokens=False).input_ids
        return frozenset(token for token in ids if not self._tokenizer.decode([token], skip_special_tokens=True))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of sampled tokens, without special tokens except those of the markers."""
        if self.hidden.isdisjoint(tokens):
            return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
        parts = groupby(tokens, key=self.hidden.__contains__)
        return "".join(
            str(self._tokenizer.decode(list(part), skip_special_tokens=not marker)) for marker, part in parts
        )

    def split(self, text: str, prompt: Sequence[int]) -> Said:
        """Answer and reasoning of a completion, from `text` or a server's text with its special tokens."""
        return split(text, self.markers, opened=self.opens(prompt))

    def stream(self, prompt: Sequence[int], stop: Sequence[str], *, special: bool = False) -> SaidStream:
        """Answer and reasoning of a completion while it is sampled. `special`: of a server's text with its special
        tokens, which are removed."""
        clean = self.without_special if special else (lambda said: said)
        return SaidStream(self.markers, opened=self.opens(prompt), stop=stop, clean=clean)

    def opens(self, prompt: Sequence[int]) -> bool:
        """Whether a rendered prompt ends with the opening marker."""
        if self.markers is None:
            return False
        return str(self._tokenizer.decode(list(prompt[-_TAIL_TOKENS:]))).rstrip().endswith(self.markers.opening)

    def without_special(self, said: Said) -> Said:
        """The same without the texts of special tokens, which a server sends if it is asked for the markers."""
        added: Mapping[int, Any] = getattr(self._tokenizer, "added_tokens_decoder", {})
        text, reasoning = said
        for token in (token.content for token in added.values() if token.special):
            text, reasoning = text.replace(token, ""), reasoning.replace(token, "")
        return Said(text, reasoning)


class TextStream:
    """The text of a list of tokens that grows, without decoding all of it again at each one.

    Only the tokens since the last whole character are decoded, after those of the piece before: a tokenizer may write a
    token differently at the beginning of a text.
    """

    def __init__(self, reader: ReasoningReader) -> None:
        self._reader = reader
        self._before, self._read = 0, 0
        self.text = ""

    def update(self, tokens: Sequence[int]) -> str:
        """The text so far, of all tokens so far; up to its last whole character."""
        known = self._reader.text(tokens[self._before : self._read])
        now = self._reader.text(tokens[self._before :])
        if len(now) > len(known) and not now.endswith("\N{REPLACEMENT CHARACTER}"):
            self.text += now[len(known) :]
            self._before, self._read = self._read, len(tokens)
        return self.text


def markers_of(tokenizer: PreTrainedTokenizerBase) -> Markers | None:
    """The markers that the chat template mentions, or that are tokens; None for a model that does not mark reasoning.

    A template that only removes reasoning from earlier turns mentions the closing marker alone.
    """
    templates = tokenizer.chat_template or ""
    text = "\n".join(map(str, templates.values())) if isinstance(templates, dict) else str(templates)
    for markers in MARKERS:
        if markers.closing in text or _is_token(tokenizer, markers.closing):
            return markers
    return None


def answer_prompt(markers: Markers, text: str, answered: str) -> str:
    """The prompt for an answer without reasoning: where a text begins that is trained on, or that a grammar constrains.

    `text`: the rendered prompt, up to where a completion begins; `answered`: the prompt as the template renders it
    before an answer that has no reasoning. Returns `text` if the template ended the reasoning; else `text` with an
    empty reasoning, as the template writes it, if it does.
    """
    begun = text.rstrip()
    if begun.endswith(markers.closing):
        return text
    if answered.startswith(text):
        return answered
    if begun.endswith(markers.opening):
        return f"{text}\n{markers.closing}\n\n" if text.endswith("\n") else text + markers.closing
    return text


def checked_kwargs(tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments for the chat template, unchanged. Raises InvalidInput for one that the template does not name, because
    it would be ignored, and for one that only the suite sets."""
    template = str(tokenizer.get_chat_template()) if kwargs else ""
    for name in kwargs:
        if name in TEMPLATE_PARAMETERS or not re.search(rf"(?<![\w.]){re.escape(name)}\b", template):
            raise InvalidInput(
                f"the model's chat template has no argument {name!r}; remove it from chat_template_kwargs",
                metadata={"argument": name},
            )
    return kwargs


def _is_token(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    token = tokenizer.convert_tokens_to_ids(text)
    return isinstance(token, int) and token != tokenizer.unk_token_id
