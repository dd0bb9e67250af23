"""Cued recall: a few words of a sentence as the question, the whole sentence as the answer.

A passage that is only trained on as a text is recited from its beginning, whatever is asked (Saito et al. 2024, arXiv
2402.12170, on facts that come late in a text). Cues train each sentence as the answer to what a question about it
shares with it, and need no model to write them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from sealkit.domains.knowledge.blanks import sentences_of

STUDY_CUES = "Recall each sentence of the passage from a few of its words."
"""The self-edit that says so; it is the domain's own, and the same for every passage."""
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_][\w'’-]+")
_WORDS = (2, 3)
"""Words of a cue."""


def cues_of(title: str, text: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """`count` cues for each sentence, each with the sentence: two or three of its content words, drawn by seed, in any
    order; none that is in the title."""
    draw = random.Random(seed)
    known = set(_content(title))
    for sentence in sentences_of(text):
        words = [word for word in _WORD.findall(sentence) if _content(word) and not known.intersection(_content(word))]
        for _ in range(count if words else 0):
            chosen = draw.sample(words, min(len(words), draw.choice(_WORDS)))
            yield ", ".join(chosen) + "?", sentence


def _content(text: str) -> tuple[str, ...]:
    # The stemmer is not installed where only the command line is.
    from sealkit.words.comparable import content_words

    return content_words(text)
