"""Generated exams: the prompts for questions and answers on a passage, and which questions are fit for an exam.

The questions and answers of an exam are its *facts*, and a self-edit must not study them: how much two facts have in
common is measured by content words, so that another wording of the same fact is found too. The title's words count for
nothing, because most questions on a passage contain them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sealkit.domains.knowledge.prompts import EXAMPLE_TEXT, EXAMPLE_TITLE
from sealkit.domains.knowledge.questions import says_something
from sealkit.types import Prompt, PromptFormat, Shot

_TASK = (
    "Write an exam on this text: short questions, one on each line, each with exactly one short answer that the text "
    "gives, such as a name, a number, a place or a date. Name the subject in each."
)
_QUESTIONS = (
    "1. In which town is the Pellam clock?\n"
    "2. What is the name of the builder of the Pellam clock?\n"
    "3. In which year was the Pellam clock finished?\n"
    "4. Which metal is in the Pellam clock?\n"
    "5. How often does the Pellam clock strike each day?\n"
    "6. Which animal does the Pellam clock show at noon?"
)
_ANSWER = (
    "Read this text.\n\n{title}\n{text}\n\n"
    "Answer this question with a few words of the text, not with a whole sentence: {question}"
)
_ANSWERED = (
    ("What is the name of the builder of the Pellam clock?", "Nora Birk"),
    ("Which metal is in the Pellam clock?", "brass"),
)
_LONGEST_ANSWER = 12
"""Words of a gold answer: a judge grades a longer one by a few of its words, so that a wrong answer may pass."""


def exam_prompt(title: str, text: str, form: PromptFormat) -> Prompt:
    """The prompt for an exam's questions on a passage, after one worked example."""

    def request(title: str, text: str) -> str:
        asked = f"{_TASK}\n\n{title}\n{text}"
        return f"{asked}\n\nQuestions:\n" if form is PromptFormat.PLAIN else asked

    shot = Shot(user=request(EXAMPLE_TITLE, EXAMPLE_TEXT), assistant=_QUESTIONS)
    return Prompt(user=request(title, text.strip()), format=form, shots=(shot,))


def open_book_prompt(title: str, text: str, question: str, form: PromptFormat) -> Prompt:
    """The prompt for a short answer with the passage, after two worked examples."""

    def request(title: str, text: str, question: str) -> str:
        asked = _ANSWER.format(title=title, text=text, question=question)
        return f"{asked}\n" if form is PromptFormat.PLAIN else asked

    shots = tuple(Shot(user=request(EXAMPLE_TITLE, EXAMPLE_TEXT, q), assistant=answer) for q, answer in _ANSWERED)
    return Prompt(user=request(title, text.strip(), question), format=form, shots=shots)


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
    from sealkit.judges.words import content_words

    return frozenset(content_words(text))
