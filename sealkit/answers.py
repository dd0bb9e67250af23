"""A whole answer, gathered from its stream."""

from __future__ import annotations

from sealkit.errors import Unavailable
from sealkit.resources import AnswerAbout, AnswerBegun, AnswerUpdate
from sealkit.types import AnswerDelta, AnswerEnd, Value


class Answer(Value):
    """A whole answer, and who gave it. `about`: None if that was not asked for."""

    begun: AnswerBegun
    text: str
    reasoning: str = ""
    about: AnswerAbout | None = None
    end: AnswerEnd


class Gathered:
    """Gathers the updates of a stream into the whole answer. `begun`, `text`: what there is so far."""

    def __init__(self) -> None:
        self.begun, self.text, self._reasoning = AnswerBegun(), "", ""
        self._about: AnswerAbout | None = None
        self._end: AnswerEnd | None = None

    def add(self, update: AnswerUpdate) -> None:
        match update:
            case AnswerBegun():
                self.begun = update
            case AnswerDelta():
                self.text += update.text
                self._reasoning += update.reasoning
            case AnswerAbout():
                self._about = update
            case AnswerEnd():
                self._end = update

    @property
    def answer(self) -> Answer:
        """The answer. Raises Unavailable if the stream was closed before its end."""
        if self._end is None:
            raise Unavailable("the controller ended an answer in the middle; ask again")
        return Answer(begun=self.begun, text=self.text, reasoning=self._reasoning, about=self._about, end=self._end)
