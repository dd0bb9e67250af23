"""Generated exams: the prompt for questions on a passage, and which of them are fit for an exam.

The questions and answers of an exam are its *facts*, and a self-edit must not study them: how much two facts have in
common is measured by content words, so that another wording of the same fact is found too. The title's words count for
nothing, because most questions on a passage contain them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.domains.knowledge.prompts import EXAMPLE_QUESTIONS, EXAMPLE_TEXT, EXAMPLE_TITLE
from sealkit.domains.knowledge.questions import says_something
from sealkit.types import Prompt, PromptFormat, Shot

_TASK = (
    "Write an exam on this text: questions that it answers, one on each line, each about another fact. Name the "
    "subject in each."
)
_LONGEST_ANSWER = 24
"""Words of a gold answer; a longer one is not an answer to one question."""


def exam_prompt(title: str, text: str, form: PromptFormat) -> Prompt:
    """The prompt for an exam's questions on a passage, after one worked example: that of a self-edit, because a small
    model writes nonsense after questions that begin less simply than with who, when and where (docs/results/LOG.md)."""

    def request(title: str, text: str) -> str:
        asked = f"{_TASK}\n\n{title}\n{text}"
        return f"{asked}\n\nQuestions:\n" if form is PromptFormat.PLAIN else asked

    shot = Shot(user=request(EXAMPLE_TITLE, EXAMPLE_TEXT), assistant=EXAMPLE_QUESTIONS)
    return Prompt(user=request(title, text.strip()), format=form, shots=(shot,))


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
