"""What a thinking model writes before its answer: found in a text and kept apart from it.

Reasoning is kept for people to look at. It is never judged and never trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Markers:
    """The texts that a model writes before and after its reasoning."""

    opening: str
    closing: str


MARKERS: tuple[Markers, ...] = (
    Markers(
        "<think>", "</think>"
    ),  # Qwen 3, QwQ, DeepSeek R1, GLM 4.5, SmolLM3, OLMo 3 Think, Phi 4 Reasoning, MiniMax
    Markers("[THINK]", "[/THINK]"),  # Magistral, Ministral 3 Reasoning
    Markers("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning, Command R7B
    Markers("<seed:think>", "</seed:think>"),  # Seed OSS
    Markers("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    Markers("<|channel>thought", "<channel|>"),  # Gemma 4
    Markers("◁think▷", "◁/think▷"),  # Kimi VL Thinking
    Markers("<thought>", "</thought>"),  # EXAONE Deep
    Markers("<thinking>", "</thinking>"),
    Markers("<reasoning>", "</reasoning>"),  # Reka Flash 3
    Markers("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)
"""Of the families that mark their reasoning; the first that a model knows is used."""

_WRAPPERS = (("<answer>", "</answer>"), ("<response>", "</response>"))
"""What Hunyuan A13B and Granite 3.3 put around an answer after their reasoning."""


class Said(NamedTuple):
    """A completion in two parts: the answer (empty if it ended inside its reasoning), and the reasoning."""

    text: str
    reasoning: str = ""


def split(text: str, markers: Markers | None, *, opened: bool = False) -> Said:
    """Splits a completion. `opened`: the prompt ends with the opening marker already. A closing marker without an
    opening one ends reasoning too. A text without markers is returned unchanged."""
    if markers is None or not (opened or markers.opening in text or markers.closing in text):
        return Said(text)
    first_opening, first_closing = text.find(markers.opening), text.find(markers.closing)
    inside = opened or (first_closing >= 0 and not 0 <= first_opening < first_closing)
    parts: dict[bool, list[str]] = {True: [], False: []}
    rest, more = text, True
    while more:
        part, mark, rest = rest.partition(markers.closing if inside else markers.opening)
        parts[inside].append(part.replace(markers.opening, "").strip() if inside else part)
        inside, more = not inside, bool(mark)
    answer = "".join(parts[False]).strip()
    for before, after in _WRAPPERS:
        if answer.startswith(before):
            answer = answer.removeprefix(before).partition(after)[0].strip()
    return Said(answer, "\n\n".join(filter(None, parts[True])))


class SaidStream:
    """A completion while it is written: gives out what is certain, in the two parts into which `split` divides the
    whole. What could be the beginning of a marker or of a stop text is kept back until it is decided.

    One difference: once a part of the answer was given out, a closing marker without an opening one is text.
    """

    def __init__(
        self,
        markers: Markers | None = None,
        *,
        opened: bool = False,
        stop: Sequence[str] = (),
        clean: Callable[[Said], Said] = lambda said: said,
    ) -> None:
        """`stop`: texts that end the completion; `clean` is applied after every split."""
        self._markers = markers
        self._opened = opened
        wrappers = [mark for pair in _WRAPPERS for mark in pair]
        self._ends = (*stop, *((markers.opening, markers.closing, *wrappers) if markers else ()))
        self._clean = clean
        self._plain = markers is None
        self._given = Said("")

    def update(self, text: str) -> Said:
        """The new part of both, of a completion that is `text` so far."""
        certain = text[: len(text) - self._undecided(text)]
        said = self._split(certain)
        new = self._new(said if self._plain else Said(said.text.rstrip(), said.reasoning))
        if not self._opened and self._given.text and not self._marked(certain):
            self._plain = True
        return new

    def finish(self, text: str) -> Said:
        """The rest of both, of a completion that ended as `text`."""
        return self._new(self._split(text))

    @property
    def given(self) -> Said:
        """All that was given out."""
        return self._given

    def _split(self, text: str) -> Said:
        return self._clean(Said(text) if self._plain else split(text, self._markers, opened=self._opened))

    def _new(self, said: Said) -> Said:
        new = Said(*(_added(before, now) for before, now in zip(self._given, said, strict=True)))
        self._given = Said(*(before + more for before, more in zip(self._given, new, strict=True)))
        return new

    def _marked(self, text: str) -> bool:
        return self._markers is not None and (self._markers.opening in text or self._markers.closing in text)

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that is the beginning of a marker or stop text, but not all of it."""
        return max((_overlap(text, end) for end in self._ends), default=0)


def _overlap(text: str, end: str) -> int:
    longest = min(len(end) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(end[:length])), 0)


def _added(before: str, now: str) -> str:
    return now[len(before) :] if now.startswith(before) else ""


def split_unknown(text: str) -> Said:
    """Splits a completion of a model whose markers are not known: those that it begins with, or `</think>` without an
    opening marker."""
    begin = text.lstrip()
    known = next((markers for markers in MARKERS if begin.startswith((markers.opening, markers.closing))), None)
    if known is None and MARKERS[0].opening not in text and MARKERS[0].closing in text:
        known = MARKERS[0]
    return split(text, known)


def no_answer(said: Said, max_tokens: str, kwargs: str) -> str:
    """Why there is no answer, if a completion has reasoning and no text after it; else empty. `max_tokens` and
    `kwargs`: the settings that change it."""
    if said.text.strip() or not said.reasoning:
        return ""
    return (
        f"it ended inside its reasoning, after {len(said.reasoning)} characters; raise {max_tokens}, or turn the "
        f"reasoning off ({kwargs} = {{ enable_thinking = false }}, if the model's template has that)"
    )
