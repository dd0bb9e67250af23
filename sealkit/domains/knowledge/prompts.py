"""What an editor is asked to write about a passage: the five styles of SEAL's knowledge setting, in our own words."""

from __future__ import annotations

from enum import StrEnum

from sealkit.types import Prompt, PromptFormat


class Style(StrEnum):
    IMPLICATIONS = "implications"
    IMPLICATIONS_LONG = "implications_long"
    IMPLICATIONS_VERY_LONG = "implications_very_long"
    REWRITE = "rewrite"
    SELF_QA = "self_qa"


_TASKS = {
    Style.IMPLICATIONS: (
        "Read the passage. Then list, one a line, what follows from it: the facts it states and what they imply.",
        "Facts and implications:\n",
    ),
    Style.IMPLICATIONS_LONG: (
        "Read the passage. Then write a long list, one statement a line, of everything that follows from it: each fact "
        "it states, said in a full sentence that can stand alone, and what these facts imply together.",
        "Long list of facts and implications:\n",
    ),
    Style.IMPLICATIONS_VERY_LONG: (
        "Read the passage. Then write a very long list, one statement a line, of everything that can be drawn from it: "
        "every fact in several wordings, every name, number, place and date in a sentence of its own, and what the "
        "facts imply alone and together. Do not stop before nothing is left to say.",
        "Very long list of facts and implications:\n",
    ),
    Style.REWRITE: (
        "Read the passage. Then write it anew several times, each time in other words and another order, without "
        "losing a fact. Put a line with --- between two versions.",
        "New versions:\n",
    ),
    Style.SELF_QA: (
        "Read the passage. Then write questions about it, each followed by its short answer, until every fact is "
        "covered. Use this form:\nQuestion 1: ...\nAnswer: ...\n\nQuestion 2: ...\nAnswer: ...",
        "Question 1:",
    ),
}


def self_edit_prompt(style: Style, title: str, text: str, form: PromptFormat) -> Prompt:
    """The prompt for a passage. As plain text it ends with a heading that the completion continues; a chat model is
    asked and answers in a turn of its own, so there the heading would only be repeated."""
    task, heading = _TASKS[style]
    passage = f"{task}\n\nPassage:\n{title}\n{text}\n"
    return Prompt(user=f"{passage}\n{heading}" if form is PromptFormat.PLAIN else passage.strip(), format=form)
