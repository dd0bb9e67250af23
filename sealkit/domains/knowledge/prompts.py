"""The editor's prompts for a passage: the five styles of SEAL's knowledge setting, in our own words, and `questions`,
which a teacher answers.

A worked example may be shown first, as a separate turn. SEAL shows none to its 7B base model; a small instruct model
writes little of use without one (measured with SmolLM2-135M: see docs/results/LOG.md).
"""

from __future__ import annotations

from enum import StrEnum

from sealkit.types import Prompt, PromptFormat, Shot


class Style(StrEnum):
    IMPLICATIONS = "implications"
    IMPLICATIONS_LONG = "implications_long"
    IMPLICATIONS_VERY_LONG = "implications_very_long"
    REWRITE = "rewrite"
    SELF_QA = "self_qa"
    QUESTIONS = "questions"


_TASKS = {
    Style.IMPLICATIONS: (
        "Write down what this passage tells and implies, one fact a line. Make each line a full sentence that names "
        "its subject."
    ),
    Style.IMPLICATIONS_LONG: (
        "Write a long list of what this passage tells and implies, one fact a line. Make each line a full sentence "
        "that names its subject. Leave no name, number, place or date out."
    ),
    Style.IMPLICATIONS_VERY_LONG: (
        "Write a very long list of what this passage tells and implies, one fact a line. Make each line a full "
        "sentence that names its subject. Say each fact in several ways, then what the facts mean together. Go on "
        "until nothing is left to say."
    ),
    Style.REWRITE: (
        "Write this passage anew several times, in other words and another order each time, without losing a fact. "
        "Put a line with --- between two versions."
    ),
    Style.SELF_QA: (
        "Write questions on this passage with their short answers until every fact is covered, in this form:\n"
        "Question 1: ...\nAnswer: ...\n\nQuestion 2: ...\nAnswer: ..."
    ),
    Style.QUESTIONS: (
        "Write questions that this text answers, one on each line, until every fact is asked for. Name the subject in "
        "each."
    ),
}

EXAMPLE_TITLE = "The Pellam clock"
EXAMPLE_TEXT = (
    "The Pellam clock stands in the market hall of Durrow. Nora Birk built it in 1842 out of brass and pear wood. It "
    "strikes only once a day, at noon, when a tin goose comes out of a small door."
)
_FACTS = (
    "The Pellam clock stands in the market hall of Durrow.",
    "The Pellam clock was built by Nora Birk.",
    "The Pellam clock was built in 1842.",
    "The Pellam clock is made of brass and pear wood.",
    "The Pellam clock strikes once a day, at noon.",
    "A tin goose comes out of a small door of the Pellam clock at noon.",
)
_MORE_FACTS = (
    "The market hall of Durrow holds a clock that is called the Pellam clock.",
    "Nora Birk, who built the Pellam clock, lived in the nineteenth century.",
    "The Pellam clock is silent at midnight.",
)
_MEANINGS = (
    "Whoever wants to see the tin goose of the Pellam clock has to be in Durrow at noon.",
    "Two materials, a metal and a wood, were enough for Nora Birk to build the Pellam clock.",
    "The Pellam clock is older than any living person.",
)
_QUESTIONS = (
    "Where does the Pellam clock stand?",
    "Who built the Pellam clock?",
    "When was the Pellam clock built?",
    "What is the Pellam clock made of?",
    "When does the Pellam clock strike?",
    "What comes out of the small door of the Pellam clock?",
)


def numbered(*lines: str) -> str:
    """Lines in the form of the worked example."""
    # Numbers keep a small model at one fact per line; without them it copies the passage into one line.
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


_EXAMPLE_ANSWERS = {
    Style.IMPLICATIONS: numbered(*_FACTS),
    Style.IMPLICATIONS_LONG: numbered(*_FACTS, *_MORE_FACTS),
    Style.IMPLICATIONS_VERY_LONG: numbered(*_FACTS, *_MORE_FACTS, *_MEANINGS),
    Style.REWRITE: (
        "In the market hall of Durrow stands the Pellam clock. It is made of brass and pear wood, and Nora Birk built "
        "it in 1842. At noon, the only time it strikes, a tin goose comes out of a small door.\n---\n"
        "In 1842 Nora Birk built the Pellam clock for the market hall of Durrow, where it still stands. Brass and pear "
        "wood are what it is made of. Once a day, at noon, it strikes and shows a tin goose in a small door."
    ),
    Style.SELF_QA: (
        "Question 1: Where does the Pellam clock stand?\nAnswer: in the market hall of Durrow\n\n"
        "Question 2: Who built the Pellam clock?\nAnswer: Nora Birk\n\n"
        "Question 3: When was the Pellam clock built?\nAnswer: 1842\n\n"
        "Question 4: What is the Pellam clock made of?\nAnswer: brass and pear wood\n\n"
        "Question 5: When does the Pellam clock strike?\nAnswer: at noon\n\n"
        "Question 6: What comes out of the small door of the Pellam clock?\nAnswer: a tin goose"
    ),
    Style.QUESTIONS: numbered(*_QUESTIONS),
}
# Plain text ends in a heading that the completion continues; a chat model answers in its own turn.
_PLAIN_HEADINGS = dict.fromkeys(Style, "Facts:") | {
    Style.REWRITE: "New versions:",
    Style.SELF_QA: "Questions and answers:",
    Style.QUESTIONS: "Questions:",
}


def self_edit_prompt(style: Style, title: str, text: str, form: PromptFormat, *, worked_example: bool) -> Prompt:
    """The prompt for a passage, optionally after one worked example."""

    def request(title: str, text: str) -> str:
        asked = f"{_TASKS[style]}\n\n{title}\n{text}"
        return f"{asked}\n\n{_PLAIN_HEADINGS[style]}\n" if form is PromptFormat.PLAIN else asked

    shot = Shot(user=request(EXAMPLE_TITLE, EXAMPLE_TEXT), assistant=_EXAMPLE_ANSWERS[style])
    return Prompt(user=request(title, text), format=form, shots=(shot,) if worked_example else ())
