"""Answers in the forms of OpenAI's API, whole and in pieces."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sealkit.answers import Answer
from sealkit.resources import AnswerBegun
from sealkit.types import AnswerDelta, AnswerEnd, Usage


@dataclass(kw_only=True)
class Reply:
    """One response. `model` is the request's; `created` in seconds since 1970."""

    chat: bool
    model: str
    created: int
    begun: AnswerBegun
    id: str = field(default_factory=lambda: secrets.token_hex(12))

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The response with all choices, one for each answer, in order."""
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": choices,
            "usage": usage_of([answer.end.usage for answer in answers]),
        }

    def first(self) -> list[dict[str, Any]]:
        """What comes before all pieces: in a chat, the role."""
        return [self._chunk(0, {"delta": {"role": "assistant", "content": ""}})] if self.chat else []

    def piece(self, index: int, update: AnswerDelta | AnswerEnd) -> dict[str, Any]:
        """A piece of a choice, or its end."""
        if isinstance(update, AnswerEnd):
            last: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
            return self._chunk(index, last, str(update.finish_reason))
        if not self.chat:
            return self._chunk(index, {"text": update.text})
        parts = {"reasoning_content": update.reasoning, "content": update.text}
        return self._chunk(index, {"delta": {name: text for name, text in parts.items() if text}})

    def usage(self, used: Sequence[Usage]) -> dict[str, Any]:
        """The stream's usage, in a chunk without choices."""
        return {**self._head(self._kind), "choices": [], "usage": usage_of(used)}

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            # Which version of an alias answers.
            "system_fingerprint": f"fp_{self.begun.adapter[:16]}" if self.begun.adapter else None,
        }

    def _chunk(self, index: int, part: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, **part, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head(self._kind), "choices": [choice]}

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        part: dict[str, Any] = {"text": answer.text}
        if self.chat:
            message = {"role": "assistant", "content": answer.text, "refusal": None}
            part = {"message": message | ({"reasoning_content": answer.reasoning} if answer.reasoning else {})}
        return {"index": index, **part, "logprobs": None, "finish_reason": str(answer.end.finish_reason)}


def usage_of(used: Sequence[Usage]) -> dict[str, int]:
    """Tokens read and sampled."""
    read, sampled = sum(one.prompt_tokens for one in used), sum(one.completion_tokens for one in used)
    return {"prompt_tokens": read, "completion_tokens": sampled, "total_tokens": read + sampled}


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
