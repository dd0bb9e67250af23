"""Generated exams: which questions on a passage are fit for one, and what is the same fact.

The questions and answers of an exam are its *facts*, and a self-edit must not study them: how much two facts have in
common is measured by content words, so that another wording of the same fact is found too. The title's words count for
nothing, because most questions on a passage contain them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.domains.knowledge.questions import says_something

_LONGEST_ANSWER = 24
"""Words of a gold answer; a longer one is not an answer to one question."""


def fault_of_item(title: str, text: str, question: str, answer: str) -> str:
    """Why a question with this answer is not fit for an exam on the passage; empty if it is."""
    if not says_something(question, answer):
        return "it has no answer"
    if len(answer.split()) > _LONGEST_ANSWER:
        return "its answer is too long to be graded"
    gold = _content(answer)
    if not gold:
        return "its answer has no content"
    if gold <= _content(question) | _content(title):
        return "it contains its answer"
    if not gold <= _content(text) | _content(title):
        return "its answer is not in the text"
    return ""


def overlap(title: str, one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the content words of the smaller of two facts (question and answer) that the other one has too."""
    facts = [_content(" ".join(fact)) - _content(title) for fact in (one, other)]
    smaller = min(map(len, facts))
    return len(facts[0] & facts[1]) / smaller if smaller else float(facts[0] == facts[1])


def _content(text: str) -> frozenset[str]:
    # The stemmer is not installed where only the command line is.
    from sealkit.words.comparable import content_words

    return frozenset(content_words(text))
