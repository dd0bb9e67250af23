"""Constrained decoding: the tokens that a JSON schema allows next, by llguidance (the extra `constrained`)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sealkit.errors import InvalidInput, Unsupported
from sealkit.schema import read_schema

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_MOST_SCHEMAS = 32
_MOST_FAULT = 300
_LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One JSON layout, the usual one. If any were allowed, a model could emit whitespace until its tokens are used up."""


class Grammar:
    """The state of a row in its schema."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int) -> Tensor:
        """Allowed next tokens, [vocabulary]; once the value is complete, only the end-of-text token."""
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        known = (bits[:, None] >> torch.arange(8, dtype=torch.uint8) & 1).bool().flatten()[:vocabulary]
        padding = torch.zeros(vocabulary - len(known), dtype=torch.bool)
        return torch.cat([known, padding])

    def take(self, token: int) -> None:
        """Advances by an allowed token."""
        self._matcher.consume_token(token)

    @property
    def done(self) -> bool:
        """Whether the value is complete and nothing can follow."""
        return self._matcher.is_stopped()


class Grammars:
    """Compiles grammars for one tokenizer and caches them. Not thread-safe."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def make(self, schema: str) -> Grammar:
        """A grammar in its initial state. Raises Unsupported if llguidance is missing or the tokenizer is not a fast
        one, InvalidInput on a schema that llguidance does not support."""
        if schema not in self._compiled:
            read_schema(schema)
            self._compiled[schema] = self._compile(schema)
            if len(self._compiled) > _MOST_SCHEMAS:
                self._compiled.popitem(last=False)
        return Grammar(self._compiled[schema].deep_copy())

    def _compile(self, schema: str) -> LLMatcher:
        try:
            from llguidance import LLMatcher
        except ImportError as error:
            raise Unsupported(
                "this service cannot constrain completions to a schema: llguidance is not installed; install it with "
                "pip install seal-suite[constrained], or set editor.constrained to false"
            ) from error
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_LAYOUT)
        except ValueError as error:
            raise InvalidInput(f"json_schema: {str(error)[:_MOST_FAULT]}") from error
        matcher = LLMatcher(self._words(), grammar, log_level=0)
        if matcher.is_error():
            raise InvalidInput(f"json_schema: {matcher.get_error()[:_MOST_FAULT]}")
        return matcher

    def _words(self) -> LLTokenizer:
        if self._known is None:
            from llguidance.hf import from_tokenizer

            if not isinstance(self._tokenizer, PreTrainedTokenizerFast):
                raise Unsupported(
                    "this model's tokenizer is not a fast one, so completions cannot be constrained to a schema"
                )
            self._known = from_tokenizer(self._tokenizer)
        return self._known
