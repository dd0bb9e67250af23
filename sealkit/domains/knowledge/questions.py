"""Self-edits of the style `questions`: read as questions, asked of a teacher that has the passage before it, and its
answers looked through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from sealkit.domains.base import Rejected, Study, StudyItem
from sealkit.domains.knowledge.prompts import EXAMPLE_TEXT, EXAMPLE_TITLE
from sealkit.types import Prompt, PromptFormat, Shot


class TeacherStyle(StrEnum):
    """How the teacher is asked."""

    INSTRUCTED = "instructed"
    """The passage, then the request to answer in one short sentence with the words of the text. SmolLM2-135M answers
    .67 of the questions on 12 passages so, .43 in the bare style, .47 with worked examples (docs/results/LOG.md)."""
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
    "Read this text.

{passage}

"
    "Answer this question in one short sentence, using the words of the text: {question}"
)
