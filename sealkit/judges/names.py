"""Names that are also function words or single letters: "A", "C", "It", "Go". Only their capitals tell them apart."""

from __future__ import annotations

import re

_BARE = re.compile(r"[\s\"'“”‘’(\[]*(\w+(?: \w+)*)[\s\"'“”‘’)\].:!?,]*")
_SENTENCE_START = re.compile(r"(?:^|[.!?\n]\s*)[\"'“”‘’(\[]*$")
_VERB = re.compile(r" (?:is|was|are|were|has|because)\b")
LIKE_WORDS = frozenset(["go"])
"""Names that are also English words with content: only as they are written do they count."""


def is_named(gold: str, answer: str) -> bool:
    """Whether an answer names `gold`, which is a single letter or a function word: it is the whole answer or its mark
    ("B)"), or it stands there as it is written. At the beginning of a sentence, "A banana" or "It is" does not name A
    or It, but "A is" does. Of several letters the first counts: "B. A banana is no vegetable" names B."""
    wanted, text = gold.strip(" .,:;!?\"'()[]*"), answer.replace("*", "").strip()
    if (whole := _BARE.fullmatch(text)) and whole[1].casefold() == wanted.casefold():
        return True
    letter = len(wanted) == 1
    mark = re.match(r"[(\[]?([^\W\d_])[).:\]](?=\s|$)", text) if letter else None
    if mark:
        return mark[1].casefold() == wanted.casefold()
    pattern = "[A-Z]" if letter and wanted.isascii() else re.escape(wanted)
    for found in re.finditer(rf"(?<![\w'’+&.-]){pattern}(?![\w'’+#&]|-\w)", text):
        if _is_name(found, text):
            return found[0] == (wanted.upper() if letter else wanted)
    return False


def _is_name(found: re.Match[str], text: str) -> bool:
    """Whether a capital is not just that of a sentence's first word, or of "I"."""
    rest = text[found.end() :]
    word_follows = re.match(r" [^\W\d_]", rest) is not None
    if found[0] == "I":
        return not word_follows and not text[: found.start()].endswith(("and ", "or "))
    first = _SENTENCE_START.search(text[: found.start()]) is not None
    return not (first and word_follows) or (len(found[0]) == 1 and _VERB.match(rest) is not None)
