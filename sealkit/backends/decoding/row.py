"""One sequence: its request, the tokens sampled so far, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sealkit.backends.decoding.grammar import Grammar
from sealkit.backends.decoding.lora import Adapter
from sealkit.types import FinishReason, Sampling

_BYTES_A_CHARACTER = 4
_SLACK_TOKENS = 8


@dataclass(eq=False)
class Row:
    """A request inside the engine. `adapters` are all applied to the base (policy first, then trial); `limit` is the
    largest number of tokens to sample, given the context length; `grammar` constrains the text to a schema. `on_token`
    is called in the decoding thread with the number of tokens so far, after each step that does not end the row. Its
    caller streams the text, so such a row is decoded before waiting ones without it."""

    prompt: list[int]
    sampling: Sampling
    adapters: tuple[Adapter, ...]
    limit: int
    grammar: Grammar | None = None
    on_token: Callable[[int], None] | None = None
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: FinishReason | None = None
    device_seconds: float = 0.0

    @property
    def length(self) -> int:
        """Tokens whose keys and values are cached: all but the newest, which the next step reads."""
        return len(self.prompt) + len(self.tokens) - 1

    def accept(self, token: int, text_of: Callable[[Sequence[int]], str], end_ids: Collection[int]) -> None:
        """Appends the next token; sets `text` and `finish_reason` if the row ends with it. `text_of` decodes tokens."""
        self.tokens.append(token)
        if self.grammar is not None:
            self.grammar.take(token)
        if token in end_ids:
            self._finish(FinishReason.STOP, text_of(self.tokens[:-1]))
        elif self.grammar is not None and self.grammar.done:
            self._finish(FinishReason.STOP, text_of(self.tokens))
        elif self.sampling.stop and self._stopped(text_of):
            text = text_of(self.tokens)
            places = [place for stop in self.sampling.stop if (place := text.find(stop)) >= 0]
            if places:
                self._finish(FinishReason.STOP, text[: min(places)])
        if self.finish_reason is None and len(self.tokens) >= self.limit:
            self._finish(FinishReason.LENGTH, text_of(self.tokens))

    def _stopped(self, text_of: Callable[[Sequence[int]], str]) -> bool:
        """Whether a stop string ends here. A token covers a byte at least, so a short tail shows it; decoding the whole
        text at every token would make a long text quadratic."""
        reach = _BYTES_A_CHARACTER * max(map(len, self.sampling.stop)) + _SLACK_TOKENS
        tail = text_of(self.tokens[-reach:])
        return any(stop in tail for stop in self.sampling.stop)

    def _finish(self, reason: FinishReason, text: str) -> None:
        self.finish_reason, self.text = reason, text
