"""Questions made of a passage's own clauses, with a number, a name or a phrase left out: cloze items (Taylor 1953).

No model writes them, so the gold answer is right by construction, and a model that is too small to write questions on a
text can still be examined on it. What is left out is found by rules. Those for phrases and number words are for
English; in other languages there are blanks for figures and, in scripts with capitals, for names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sealkit.types import Value

_REQUEST = "Fill in the blank: "
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])|\n+")
_CLAUSE_END = re.compile(r"(?<=[,;:])\s+|\s+[\N{EN DASH}\N{EM DASH}-]\s+")
_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_ARTICLES = frozenset(["a", "an", "the"])
_PREPOSITIONS = frozenset(
    [
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "into",
        "onto",
        "through",
        "near",
        "under",
        "over",
        "between",
        "among",
        "about",
        "around",
        "after",
        "before",
        "above",
        "below",
        "across",
        "along",
        "behind",
        "beside",
        "against",
        "inside",
        "outside",
        "within",
        "without",
        "during",
        "until",
        "towards",
    ]
)
_NO_PHRASE = _PREPOSITIONS | {"one"}  # which is rarely meant as a number
_BEFORE_PHRASE = _ARTICLES | _PREPOSITIONS - {"to"} | frozenset(["called", "named", "its", "his", "her", "their"])
_LONGEST_SPAN = 4
"""Words that are left out."""
_LONGEST_CLAUSE = 20
"""Words of a question; answers are short."""
_MOST_BEFORE = 12
"""Words before the blank; behind more of them, an answer that repeats the clause ends before it."""
_LEAST_BESIDE = 3
"""Content words beside the blank, without those of the title; with fewer, several answers would be right."""


class Blank(Value):
    """A question with a blank, in one line, and what was left out there."""

    question: str
    answer: str


def blanks_of(title: str, text: str) -> list[Blank]:
    """The blanks of a passage: first those for numbers and names, then those for other phrases, each in the order of
    the text. Each is shown in its clause, or, if that says too little, in its sentence."""
    found: list[tuple[int, Blank]] = []
    for sentence in sentences_of(text):
        for begin, end in _clauses(sentence):
            for rank, first, last in _spans(sentence, begin, end):
                for left, right in ((begin, end), (0, len(sentence))):
                    shown = f"{sentence[left:first]}___{sentence[last:right]}".rstrip(" ,;:")
                    if _says_enough(title, shown, sentence[first:last]):
                        found.append((rank, Blank(question=_REQUEST + shown, answer=sentence[first:last])))
                        break
    return [blank for _, blank in sorted(found, key=lambda one: one[0])]


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, and its lines, in order."""
    return list(filter(None, map(str.strip, _SENTENCE_END.split(text))))


def _clauses(sentence: str) -> Iterator[tuple[int, int]]:
    """Begin and end of each clause of a sentence."""
    begin = 0
    for cut in _CLAUSE_END.finditer(sentence):
        yield begin, cut.start()
        begin = cut.end()
    yield begin, len(sentence)


def _spans(sentence: str, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Rank, begin and end of what can be left out of a clause; rank 0 for numbers and names, 1 for other phrases."""
    words = list(_WORD.finditer(sentence, begin, end))
    kinds = [_kind(word[0], starts=word.start() == 0) for word in words]
    i = 0
    while i < len(words):
        j = i + 1
        while j < len(words) and kinds[j] == kinds[i] and sentence[words[j - 1].end() : words[j].start()] in " -":
            j += 1
        named = kinds[i] in ("number", "name")
        if (named or (kinds[i] == "other" and _is_phrase(words, kinds, i, j))) and j - i <= _LONGEST_SPAN:
            yield 0 if named else 1, words[i].start(), words[j - 1].end()
        i = j


def _is_phrase(words: Sequence[re.Match[str]], kinds: Sequence[str], first: int, end: int) -> bool:
    """Whether content words are probably a noun phrase: after an article or a preposition, and neither half of a longer
    phrase nor, since no article follows, ending with a verb."""
    after = words[end][0].lower() if end < len(words) else ""
    begins = first > 0 and words[first - 1][0].lower() in _BEFORE_PHRASE
    return begins and (not after or kinds[end] == "") and after not in _ARTICLES


def _kind(word: str, *, starts: bool) -> str:
    """`number`, `name`, `other` content, or empty. The first word of a sentence has a capital anyway."""
    content = _content(word)
    if not content or word.lower() in _NO_PHRASE:
        return ""
    if content[0][-1].isdecimal() or len(_content(f"2 {word}")) == 1:  # "hundred" and the like
        return "number"
    return "name" if word[0].isupper() and not starts else "other"


def _says_enough(title: str, shown: str, answer: str) -> bool:
    """Whether a clause with a blank asks for one thing only, and neither it nor the title contains that."""
    known, beside, wanted = set(_content(title)), set(_content(shown)), set(_content(answer))
    if len(beside - known) < _LEAST_BESIDE or (beside | known) & wanted:
        return False
    return len(shown.split()) <= _LONGEST_CLAUSE and len(shown.partition("___")[0].split()) <= _MOST_BEFORE


def _content(text: str) -> tuple[str, ...]:
    # The stemmer is not installed where only the command line is.
    from sealkit.words.comparable import content_words

    return content_words(text)
