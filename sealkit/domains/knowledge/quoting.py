"""Quoted answers: the sentence of a passage that a question is about, found by its words.

A small model asked a question with the passage in its prompt answers half of them wrong or beside the point
(docs/results/learning.md), and an adapter is then trained on that. A quoted answer says nothing that the passage does
not say, and needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.domains.knowledge.blanks import sentences_of


def quoted_answers(questions: Sequence[str], title: str, text: str) -> list[str | None]:
    """For each question the sentence of the text that shares the most with it: the sum of the rarities of the words
    that both have, without those of the title, which all sentences are about. Among equals, the words of the title
    count; then the first one is taken. None if no sentence has any word of the question.
    """
    # The word lists are not installed where only the command line is.
    from sealkit.words.rarity import rarities

    known = set(rarities(title))
    sentences = [(sentence, rarities(sentence)) for sentence in sentences_of(text)]

    def answer(question: str) -> str | None:
        asked = rarities(question)

        def shared(sentence: tuple[str, dict[str, float]]) -> tuple[float, float]:
            common = asked.keys() & sentence[1].keys()
            return sum(asked[word] for word in common - known), sum(asked[word] for word in common & known)

        best = max(sentences, key=shared, default=None)
        return best[0] if best and any(shared(best)) else None

    return [answer(question) for question in questions]
