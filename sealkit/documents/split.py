"""Splits a document's blocks into passages by the model's tokens, along headings and paragraphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import Field, model_validator

from sealkit.documents.blocks import Block
from sealkit.documents.values import Passage
from sealkit.types import Value

Tokens = Callable[[str], int]
"""The number of tokens of a text for the model that will learn it, without special tokens."""

_GAP = "\n\n"
_CUTS = (
    re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|[。！？][」』”’）]*"),  # behind a sentence
    re.compile(r"\n+"),
    re.compile(r"\s+"),
    re.compile(r""),  # anywhere
)
"""Where a paragraph that is too long is cut, the best place first."""


class Splitting(Value):
    """How long passages are, in tokens."""

    most: int = Field(512, ge=8)
    """No passage is longer."""
    least: int = Field(64, ge=0)
    """A section that is shorter is joined with the next, under the headings that they share."""

    @model_validator(mode="after")
    def _ordered(self) -> Splitting:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, more than most, {self.most}")
        return self


@dataclass(slots=True)
class _Section:
    headings: tuple[str, ...]
    pieces: list[str]
    tokens: int


def split(blocks: Sequence[Block], tokens: Tokens, how: Splitting, *, title: str = "") -> list[Passage]:
    """The passages of a document, in order. Every paragraph, list and table is in exactly one of them, unless it is
    longer than `how.most` tokens: then it is split at sentences, and a sentence that is longer at lines or words. An
    outermost heading that is the document's `title` is not repeated above its passages."""
    sections = _joined(_sections(blocks, title), tokens, how)
    return [passage for section in sections for passage in _passages(section, tokens, how)]


def _sections(blocks: Sequence[Block], title: str) -> Iterator[_Section]:
    """The text below each heading, with the headings above it."""
    path: list[tuple[int, str]] = []
    pieces: list[str] = []

    def section() -> _Section:
        headings = tuple(text for _, text in path)
        return _Section(headings[1:] if headings[:1] == (title,) else headings, list(pieces), 0)

    for block in _whole(blocks):
        if not block.level:
            pieces.append(block.text)
            continue
        if pieces:
            yield section()
            pieces.clear()
        path = [(level, text) for level, text in path if level < block.level] + [(block.level, block.text)]
    if pieces:
        yield section()


def _whole(blocks: Sequence[Block]) -> Iterator[Block]:
    """The blocks, with all items of a list and all rows of a table as one, a line each."""
    for (part_of, _), parts in groupby(blocks, key=lambda block: (block.part_of, not block.part_of and id(block))):
        together = list(parts)
        yield Block("\n".join(block.text for block in together)) if part_of else together[0]


def _joined(sections: Iterator[_Section], tokens: Tokens, how: Splitting) -> Iterator[_Section]:
    """Short sections joined with the next ones that have a heading in common; each part below the common headings keeps
    its own as a line."""
    gap = tokens(_GAP)
    waiting: _Section | None = None
    for section in sections:
        section.tokens = sum(tokens(piece) + gap for piece in section.pieces)
        if waiting is None:
            waiting = section
            continue
        common = _common(waiting.headings, section.headings)
        head, other = (_below(common, one.headings) for one in (waiting, section))
        extra = sum(tokens(line) + gap for line in (head, other) if line)
        short = waiting.tokens < how.least or (section.tokens < how.least and common == waiting.headings)
        if short and waiting.tokens + section.tokens + extra <= how.most:
            pieces = [*filter(None, [head]), *waiting.pieces, *filter(None, [other]), *section.pieces]
            waiting = _Section(common, pieces, waiting.tokens + section.tokens + extra)
        else:
            yield waiting
            waiting = section
    if waiting is not None:
        yield waiting


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    return one[:shared]


def _below(common: tuple[str, ...], headings: tuple[str, ...]) -> str:
    """The headings below the common ones, as a line."""
    return " – ".join(headings[len(common) :])


def _passages(section: _Section, tokens: Tokens, how: Splitting) -> Iterator[Passage]:
    gap = tokens(_GAP)
    taken: list[str] = []
    length = 0
    for piece in (part for whole in section.pieces for part in _fitting(whole, tokens, how.most)):
        size = tokens(piece) + gap
        if taken and length + size - gap > how.most:
            yield from _passage(section.headings, taken, tokens, how.most)
            taken, length = [], 0
        taken.append(piece)
        length += size
    yield from _passage(section.headings, taken, tokens, how.most)


def _passage(headings: tuple[str, ...], pieces: Sequence[str], tokens: Tokens, most: int) -> Iterator[Passage]:
    """One passage of the pieces; two if they have more tokens together than one by one."""
    text = _GAP.join(pieces)
    count = tokens(text)
    if count > most and len(pieces) > 1:
        half = len(pieces) // 2
        yield from _passage(headings, pieces[:half], tokens, most)
        yield from _passage(headings, pieces[half:], tokens, most)
    elif text:
        yield Passage(headings=headings, text=text, tokens=count)


def _fitting(text: str, tokens: Tokens, most: int, cuts: Sequence[re.Pattern[str]] = _CUTS) -> Iterator[str]:
    """The text in parts of at most `most` tokens: whole, or else as many sentences as fit; a sentence that is too long
    in words, a word in characters."""
    if not cuts or tokens(text) <= most:
        yield text
        return
    cut, *finer = cuts
    ends = [end for match in cut.finditer(text) if 0 < (end := match.end()) < len(text)]
    starts = [0, *ends, len(text)]
    at = 0
    while at < len(starts) - 1:
        taken = _most_that_fit(text, starts, at, tokens, most)
        if part := text[starts[at] : starts[taken]].strip():
            yield from _fitting(part, tokens, most, finer)
        at = taken


def _most_that_fit(text: str, starts: Sequence[int], at: int, tokens: Tokens, most: int) -> int:
    """The largest index behind `at` up to which the text fits; the next one if nothing does. By doubling, then
    bisection, so that no more than twice the fitting text is tokenised."""

    def fits(end: int) -> bool:
        return tokens(text[starts[at] : starts[end]].strip()) <= most

    low, step = at + 1, 1
    while low + step < len(starts) and fits(low + step):
        low += step
        step *= 2
    high = min(low + step, len(starts))
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
