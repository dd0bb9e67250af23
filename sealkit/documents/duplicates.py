"""Which passages say nothing new: the same text, or nearly the same without a word of its own.

Near-duplicates are found by their runs of three words: the Jaccard index of two texts' runs estimates how much of them
is the same (Broder, "On the resemblance and containment of documents", 1997). Only texts that share one of their
smallest hashes are compared, so that the work does not grow with the square of the number of passages.

Similar is not enough to drop a passage: two price lists may differ in one number, which is what there is to learn. So a
passage is dropped only if the earlier one has all its words too.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

SIMILAR = 0.8
"""Jaccard index from which on two passages are nearly the same."""
_RUN = 3
_COMPARED = 16
"""How many of a text's smallest hashes are compared. Of two texts with a Jaccard index of 0.8, none is shared with a
probability far below 1e-6."""
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class _Seen(Generic[T]):
    item: T
    words: frozenset[str]
    runs: frozenset[int]


@dataclass(frozen=True, slots=True)
class Twin(Generic[T]):
    """What was seen before, and how similar it is, in [0, 1]."""

    item: T
    similarity: float


class SeenTexts(Generic[T]):
    """Texts in the order in which they come, each with an item that says whose it is."""

    def __init__(self) -> None:
        self._by_hash: defaultdict[int, list[_Seen[T]]] = defaultdict(list)

    def add(self, text: str, item: T) -> Twin[T] | None:
        """The most similar earlier text that has everything that this one says; without one, None, and the text is
        kept for the next."""
        words = words_of(text)
        new = _Seen(item, frozenset(words), frozenset(_runs(words)))
        smallest = sorted(new.runs)[:_COMPARED]
        similar = [
            Twin(seen.item, similarity)
            for seen in {id(seen): seen for key in smallest for seen in self._by_hash[key]}.values()
            if new.words <= seen.words and (similarity := _jaccard(new.runs, seen.runs)) >= SIMILAR
        ]
        if similar:
            return max(similar, key=lambda twin: twin.similarity)
        for key in smallest:
            self._by_hash[key].append(new)
        return None


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return _WORD.findall(text.casefold())


def words_digest(texts: Iterable[str]) -> str:
    """SHA-256 (hex) of the words of the texts together."""
    return hashlib.sha256(" ".join(word for text in texts for word in words_of(text)).encode()).hexdigest()


def _runs(words: list[str]) -> Iterable[int]:
    """Hashes of the runs of three words; of all words, if there are fewer. Not Python's hash, which differs in each
    process."""
    for start in range(max(1, len(words) - _RUN + 1)):
        run = " ".join(words[start : start + _RUN]).encode()
        yield int.from_bytes(hashlib.blake2b(run, digest_size=8).digest(), "big")


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
