"""Which documents of an alias an answer is about: those whose passages share the words of the question or the answer.

The words are compared as the local judges compare them, and each weighs as in BM25 (Robertson and Zaragoza 2009): rare
ones among the passages more. The adapter is not asked, so this is a hint where to look, not where the answer is from.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from controller.db.documents import StoredDocument
from sealkit.resources import AnswerDocument
from sealkit.words.comparable import content_words

_LEAST_SHARE = 0.5
"""Of the weight of all words of the question, or of the answer."""
_LEAST_WORDS = 2


def documents_about(
    texts: Sequence[str], passages: Sequence[tuple[StoredDocument, Sequence[str]]]
) -> tuple[AnswerDocument, ...]:
    """The documents that one of `texts`, the question and the answer, is about; the best first. `passages`: the texts
    that each document was learned from."""
    known = [[frozenset(content_words(text)) for text in of_document] for _, of_document in passages]
    weights = _Weights([words for of_document in known for words in of_document])
    asked = [frozenset(content_words(text)) for text in texts]
    found = [
        AnswerDocument(name=document.name, digest=document.digest, share=share)
        for (document, _), of_document in zip(passages, known, strict=True)
        if (share := max((weights.share(one, words) for one in asked for words in of_document), default=0.0))
    ]
    return tuple(sorted(found, key=lambda one: -one.share))


class _Weights:
    """Weights of words among passages."""

    def __init__(self, passages: Sequence[frozenset[str]]) -> None:
        self._count = len(passages)
        self._with = Counter(word for words in passages for word in words)

    def share(self, asked: frozenset[str], passage: frozenset[str]) -> float:
        """Share of the weight of `asked` that is in the passage; 0 if that is too little to mean anything."""
        common = asked & passage
        share = self._sum(common) / self._sum(asked) if asked else 0.0
        return share if share >= _LEAST_SHARE and len(common) >= _LEAST_WORDS else 0.0

    def _sum(self, words: frozenset[str]) -> float:
        # A word that no passage has weighs as much as one that a single passage has.
        counts = [max(1, self._with[word]) for word in sorted(words)]
        return sum(math.log(1 + (self._count - count + 0.5) / (count + 0.5)) for count in counts)
