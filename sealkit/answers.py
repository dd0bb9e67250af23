"""A whole answer, gathered from its stream."""

from __future__ import annotations

from sealkit.errors import Unavailable
from sealkit.resources import AnswerBegun, AnswerUpdate
from sealkit.types import AnswerDelta, AnswerEnd, Value


class Answer(Value):
    """A whole answer, and who gave it."""

    begun: AnswerBegun
    text: str
    reasoning: str = ""
    end: AnswerEnd


class Gathered:
    """Gathers the updates of a stream into the whole answer. `begun`, `text`: what there is so far."""

    def __init__(self) -> None:
        self.begun, self.text, self._reasoning = AnswerBegun(), "", ""
        self._end: AnswerEnd | None = None

    def add(self, update: AnswerUpdate) -> None:
        match update:
            case AnswerBegun():
                self.begun = update
            case AnswerDelta():
                self.text += update.text
                self._reasoning += update.reasoning
            case AnswerEnd():
                self._end = update

    @property
    def answer(self) -> Answer:
        """The answer. Raises Unavailable if the stream was closed before its end."""
        if self._end is None:
            raise Unavailable("the controller ended an answer in the middle; ask again")
        return Answer(begun=self.begun, text=self.text, reasoning=self._reasoning, end=self._end)
