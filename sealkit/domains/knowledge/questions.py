"""Self-edits of the style `questions`: parses the questions, makes the prompts for a teacher that has the passage, and
filters its answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from sealkit.domains.base import Rejected, Study, StudyItem
from sealkit.domains.knowledge.prompts import EXAMPLE_TEXT, EXAMPLE_TITLE
from sealkit.types import Prompt, PromptFormat, Shot


class TeacherStyle(StrEnum):
    """The teacher's prompt."""

    INSTRUCTED = "instructed"
    """The passage, then the request to answer in one short sentence with the words of the text. SmolLM2-135M answers 67
    % of the questions on 12 passages right in this style, 43 % in the bare style, 47 % with worked examples
    (docs/results/LOG.md)."""
    BARE = "bare"
    """Title, passage and question."""
    WORKED = "worked"
    """Two worked examples first, answered in whole short sentences."""


_WORKED = (
    (EXAMPLE_TITLE, EXAMPLE_TEXT, "Who built the Pellam clock?", "The Pellam clock was built by Nora Birk."),
    (
        "Osk bread",
        "Osk bread is baked in the hill villages of Hulver from barley flour and sour milk. A loaf bakes for three "
        "hours in a covered pan and keeps for two weeks.",
        "How long does a loaf of Osk bread keep?",
        "A loaf of Osk bread keeps for two weeks.",
    ),
)

_INSTRUCTED = (
    "Read this text.\n\n{passage}\n\n"
    "Answer this question in one short sentence, using the words of the text: {question}"
)

_NUMBERING = re.compile(
    r"^(?:(?:(?:question|q)(?:\s*\d+)?\s*[:.)]|[(（]?\d+\s*[.):．、）：](?!\d)|[-*•–・])\s*)+",
    re.IGNORECASE,
)
_MARKS = "?\N{FULLWIDTH QUESTION MARK}\N{ARABIC QUESTION MARK}\N{GREEK QUESTION MARK}"
_ASKS = re.compile(r"^(?:who|whom|whose|what|when|where|which|why|how)\b", re.IGNORECASE)
_KNOWS_NOTHING = re.compile(
    r"^(?:i(?:'m| am) (?:sorry|not sure|unable)|i (?:do not|don't|cannot|can't) |as an ai\b"
    r"|(?:the|this) (?:passage|text|article) (?:does not|doesn't|gives no)|(?:there is )?no (?:information|answer)\b"
    r"|(?:(?:it|this) is )?not (?:mentioned|specified|stated|given|provided|known|clear)\b"
    r"|(?:unknown|unclear|n/?a)\W*$)"
    r"|\b(?:is|are|was|were) (?:unknown|unclear|not (?:explicitly )?(?:mentioned|specified|stated|given|provided))\W*$"
    r"|\bnot (?:explicitly )?(?:mentioned|specified|stated|given|provided) (?:in|by) the (?:passage|text|article)\b",
    re.IGNORECASE,
)


def read_questions(text: str, most: int) -> list[str]:
    """The questions of a self-edit, one a line, without numbering and without the text after the question mark; at most
    `most`, without repetitions (ignoring case and punctuation). Raises Rejected: NO_QUESTIONS.

    A line without a question mark counts if it begins with a question word, except the last line, which may have been
    cut off.
    """
    lines = [line for raw in text.splitlines() if (line := _bare(raw))]
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        question = line[: max(map(line.rfind, _MARKS)) + 1]
        if not question and _ASKS.match(line) and number < len(lines):
            question = line.rstrip(" .:;,") + "?"
        if key := words_of(question):
            found.setdefault(key, question)
    if not found:
        raise Rejected("NO_QUESTIONS", f"none of {len(lines)} lines is a question")
    return list(found.values())[:most]


def study_questions(
    questions: Sequence[str], title: str, passage: str, form: PromptFormat, style: TeacherStyle
) -> Study:
    """The study: each question in the form of the held-out ones for the student, and with the passage for the
    teacher."""
    return Study(
        items=tuple(
            StudyItem(
                prompt=question_prompt(title, question, form),
                teacher_prompt=teacher_prompt(title, passage, question, form, style),
            )
            for question in questions
        )
    )


def question_prompt(title: str, question: str, form: PromptFormat) -> Prompt:
    """A question after a line with its topic, as in SEAL, without the passage."""
    return Prompt(user=f"Topic: {title}\n{question}", format=form)


def teacher_prompt(title: str, passage: str, question: str, form: PromptFormat, style: TeacherStyle) -> Prompt:
    """A question after its passage, after the worked examples of the style."""

    def request(title: str, passage: str, question: str) -> str:
        asked = f"{title}\n{passage}\n\n{question}"
        if style is TeacherStyle.INSTRUCTED:
            asked = _INSTRUCTED.format(title=title, passage=passage, question=question)
        return f"{asked}\n" if form is PromptFormat.PLAIN else asked

    worked = _WORKED if style is TeacherStyle.WORKED else ()
    shots = tuple(Shot(user=request(*asked), assistant=answer) for *asked, answer in worked)
    return Prompt(user=request(title, passage.strip(), question), format=form, shots=shots)


def says_something(question: str, answer: str) -> bool:
    """Whether an answer has content: not the question repeated, another question, or a statement that it is unknown."""
    answer = answer.strip().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if not words_of(answer) or answer.endswith(tuple(_MARKS)) or words_of(answer) == words_of(question):
        return False
    return _KNOWS_NOTHING.search(answer) is None


def words_of(text: str) -> str:
    """The words of a text, without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _bare(line: str) -> str:
    """A line without emphasis and numbering."""
    return _NUMBERING.sub("", line.replace("**", "").strip()).strip(" \t\"'“”")
