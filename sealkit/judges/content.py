"""The local judge: does the answer contain what the gold answer adds to the question?

Calls no model, so it is free, fast and deterministic. It replaces SEAL's GPT-4.1 judge; their agreement is measured by
`benchmarks/reference_parity.py judge` and stated in the docs. The rule, in order:

1. only the content words of the gold that are not in the question are required;
2. a yes/no or either/or question is decided by which side the answer takes;
3. a gold that is a single letter or a function word must be there as it is written;
4. a date may be given less exactly, by its year alone, unless the question asks for the day, but in no other month;
5. every required number must be there, in no other unit, and 60 % of all the required words.

It does not parse: an answer that mentions the gold but states something else counts as correct. Variants that were
tried on the recorded verdicts and rejected are in docs/judges.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sealkit.judges.base import Answer, Judgement
from sealkit.judges.names import LIKE_WORDS, is_named
from sealkit.types import Outcome
from sealkit.words.comparable import all_words, content_words, is_number, occurs, plain, same_word
from sealkit.words.quantities import other_unit

_RECALL = 0.6
_LONGEST = 10_000
"""Characters of a question or a gold answer; of a model's answer at most this many are read. Much longer ones would
block a service: every word is compared with every other."""
_YEAR = re.compile(r"(?:1\d|20)\d\d")
_ASKS_DAY = re.compile(r"\b(?:day|date)\b")
_ASKS_YES_NO = re.compile(r"(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|should)\b")
_EITHER_OR = re.compile(r"\b([^\W\d_]+) or (?:an? |the )?([^\W\d_]+)\b")
_NEGATION = re.compile(r"\b(?:no|not|none|never|neither|without|cannot)\b|n't\b")
_YES_OR_NO = re.compile(r"(?:yes|no)\b")
_LIST_MARK = re.compile(r"^[^\S\n]*\(?\d{1,2}[.)]\s", re.MULTILINE)
_LAST_LETTER = re.compile(r"\s([A-HJ-UWYZ])[\s\"')\]]*$")  # without I, V and X, which are numbers: "World War I"
_BRACKETS = re.compile(r"\([^)]*\)")
_MONTHS = frozenset(
    content_words("January February March April June July August September October November December")
)  # no May: it is a verb more often, and content_words() has one form for both
_MAY = frozenset(content_words("May"))
_DATE_WORDS = _MONTHS | set(
    content_words("May spring summer autumn fall winter early late mid bc onwards around circa")
)


@dataclass(frozen=True, slots=True)
class ContentJudge:
    """Stemmed, fuzzy content-word recall of the gold in the answer; in scripts without spaces, of substrings."""

    name: str = "content"
    version: str = "4"

    async def judge(self, question: str, gold: str, answers: Sequence[Answer]) -> Judgement:
        """Judge the first answer by the rule above; UNGRADED only if the gold has no word."""
        return decide(question, gold, answers[0].text)


def decide(question: str, gold: str, answer: str) -> Judgement:
    """Apply the rule; the same as `ContentJudge.judge` for callers without an event loop."""
    if max(len(question), len(gold)) > _LONGEST:
        return Judgement(Outcome.UNGRADED, f"question or gold answer is longer than {_LONGEST} characters")
    answer = answer[:_LONGEST]
    if not _squeezed(gold):
        return Judgement(Outcome.UNGRADED, "the gold answer holds no word")
    quantity = other_unit(plain(gold), plain(answer))
    if _squeezed(gold) == _squeezed(answer) and not quantity:
        return _verdict(True, "the gold as it stands")
    if not _squeezed(answer):
        return _verdict(False, "no answer")
    answer = _LIST_MARK.sub("", answer)  # "1. " before a line is not a number of the answer
    side = _side_taken(question, gold, answer)
    if side is not None:
        return side
    asked, given = _asked_for(question, gold), set(content_words(answer))
    if not asked or _squeezed(gold) in LIKE_WORDS:
        return _verdict(_stands_there(gold, answer), "the gold as it stands")
    letter = _letter_agrees(question, gold, answer)
    if letter is not None:
        return letter
    if _is_less_exact_date(question, asked, given):
        return _verdict(True, "the year, and nothing against it")
    if _is_date(asked) and _other_month(asked, given):
        return _verdict(False, "the month differs")
    missing = [word for word in asked if is_number(word) and word not in given]
    if missing or _counts_differently(question, asked, answer):
        return _verdict(False, f"the number {' '.join(missing) or 'differs'}")
    if quantity:
        return _verdict(False, f"the unit of {quantity}")
    found = [word for word in asked if occurs(word, given) or any(same_word(word, other) for other in given)]
    return _verdict(len(found) >= _RECALL * len(asked), f"{len(found)} of {len(asked)} words of the gold")


def _is_less_exact_date(question: str, asked: list[str], given: set[str]) -> bool:
    """Whether the gold is a date and the answer gives its year, and no other day, month or end."""
    years = {word for word in asked if _YEAR.fullmatch(word)}
    if not _is_date(asked) or not years <= given or _ASKS_DAY.search(plain(question)):
        return False
    return not any(word not in asked and (is_number(word) or word in _MONTHS) for word in given)


def _is_date(asked: list[str]) -> bool:
    """Whether the words are those of a date, with its year."""
    dated = any(_YEAR.fullmatch(word) for word in asked)
    return dated and all(is_number(word) or word in _DATE_WORDS for word in asked)


def _other_month(asked: list[str], given: set[str]) -> bool:
    """Whether the answer has a month, and not that of the date."""
    wanted = (_MONTHS | _MAY) & set(asked)
    return bool(wanted and _MONTHS & given) and not wanted & given


def _letter_agrees(question: str, gold: str, answer: str) -> Judgement | None:
    """Decide a gold such as "vitamin C" by its letter, if that is all that it adds to the question or if the answer
    lacks it; else None."""
    found = _LAST_LETTER.search(gold)
    if found is None:
        return None
    known = set(content_words(question))
    if all(occurs(word, known) for word in content_words(gold)):
        return _verdict(is_named(found[1], answer), f"the letter {found[1]}")
    there = re.search(rf"(?<!\w){found[1]}(?!\w)", answer)
    return None if there else _verdict(False, f"the letter {found[1]}")


def _stands_there(gold: str, answer: str) -> bool:
    """Whether a gold without content words is in the answer: as it is written, if it has capitals."""
    if len(_squeezed(gold)) == 1 or any(character.isupper() for character in gold):
        return is_named(gold, answer)
    return f" {_squeezed(gold)} " in f" {_squeezed(answer)} "


def _asked_for(question: str, gold: str) -> list[str]:
    """Content words of the gold that are not in the question, or all of them if all are. Brackets are optional."""
    words = list(dict.fromkeys(content_words(_BRACKETS.sub(" ", gold)) or content_words(gold)))
    known = set(content_words(question))
    return [word for word in words if not occurs(word, known)] or words


def _side_taken(question: str, gold: str, answer: str) -> Judgement | None:
    """Decide a yes/no or either/or question by the side taken; None if gold or answer takes none."""
    asked, wanted, said = plain(question).strip(), plain(gold), plain(answer)
    if _ASKS_YES_NO.match(asked) and (_YES_OR_NO.match(wanted.strip(" .")) or _NEGATION.search(wanted)):
        first_sentence = re.split(r"(?<=[.!?])\s", said.strip(), maxsplit=1)[0]
        agrees = bool(_NEGATION.search(wanted)) == bool(_NEGATION.search(first_sentence))
        return _verdict(agrees, "yes or no")
    for match in _EITHER_OR.finditer(asked):
        one, other = (content_words(side)[-1:] for side in match.groups())
        in_gold = [side for side in (*one, *other) if _position(side, wanted) is not None]
        if len(in_gold) == 1 and len(one) == len(other) == 1:
            rival = other[0] if in_gold[0] == one[0] else one[0]
            chosen_at, rival_at = _position(in_gold[0], said), _position(rival, said)
            if chosen_at is None and rival_at is None:
                return None
            first = rival_at is None or (chosen_at is not None and chosen_at < rival_at)
            return _verdict(first, "which side is named first")
    return None


def _position(word: str, text: str) -> int | None:
    """The first index of the word among the content words of the text."""
    return next((at for at, other in enumerate(content_words(text)) if same_word(word, other)), None)


def _counts_differently(question: str, asked: list[str], answer: str) -> bool:
    """Whether a gold number that is also in the question is answered with a number that is in neither."""
    known = set(content_words(question))
    if not all(is_number(word) and word in known for word in asked):
        return False
    return any(is_number(word) and word not in known for word in content_words(answer))


def _squeezed(text: str) -> str:
    return " ".join(all_words(text))


def _verdict(correct: bool, reason: str) -> Judgement:
    return Judgement(Outcome.CORRECT if correct else Outcome.INCORRECT, reason)
