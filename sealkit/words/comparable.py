"""Text to comparable words: what "the same word" means for the local judges.

Accents, case, possessives and thousands separators are removed; number words, ordinals and "million" become digits;
everything else becomes its English Snowball stem (Porter 2001) and then the representative of its synonyms
(`synonyms`). Dates, signs and units: `quantities`; scripts other than Latin: `sealkit.writing`.
"""

import re
from collections.abc import Collection
from decimal import Decimal
from difflib import SequenceMatcher
from functools import lru_cache

import snowballstemmer

from sealkit.words.quantities import spelled, with_unit_names
from sealkit.words.synonyms import MEANINGS
from sealkit.writing import WORD, folded, is_run, run_occurs

_STEMMER = snowballstemmer.stemmer("english")
_WORD = re.compile(rf"(?:(?<!\S)-)?\d+(?:\.\d+)?|{WORD}")
_STOP_LIST = """
a an the of in on at to for from by with and or as is was were are be been being it its that this these those my their
his her they he she i we you our your had has have did do does who which whom whose what when where how why than then
there into about also such other some more most any all both each very
"""
_UNIT_LIST = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen
"""
_ORDINAL_LIST = """
third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth
seventeenth eighteenth nineteenth twentieth
"""  # not first and second: they are rarely meant as numbers
_TENS_LIST = "twenty thirty forty fifty sixty seventy eighty ninety"
_STOP = frozenset(_STOP_LIST.split())
_UNITS = {word: number for number, word in enumerate(_UNIT_LIST.split())}
_TENS = {word: 10 * number for number, word in enumerate(_TENS_LIST.split(), start=2)}
_ORDINALS = {word: number for number, word in enumerate(_ORDINAL_LIST.split(), start=3)}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_TENS_AND_UNIT = re.compile(rf"\b({'|'.join(_TENS)})[\s-]({'|'.join(list(_UNITS)[1:10])})\b")
_NUMBER_WORD = re.compile(rf"\b({'|'.join([*_UNITS, *_TENS])})\b")
_ORDINAL_WORD = re.compile(rf"\b({'|'.join(_ORDINALS)})\b")
_SCALED = re.compile(rf"\b(\d+(?:\.\d+)?)((?:[\s-]+(?:{'|'.join(_SCALES)}))+)\b")
_SAME_WORD_RATIO = 0.8
_SHORTEST_FUZZY = 4
_SHORTEST_PREFIX = 5
_LONGEST_SUFFIX = 3
_LONGEST_FUZZY = 64
_MOST_DIGITS = 64


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """Fold case and accents, straighten apostrophes, drop possessives, write every number in plain digits and every
    date in words."""
    text = folded(text).replace("’", "'")
    text = text.replace("%", " percent ").replace("&", " and ")
    text = re.sub(r"'s\b", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\b(\d+)(?:st|nd|rd|th|s)\b", r"\1", text)
    text = _TENS_AND_UNIT.sub(lambda match: str(_TENS[match[1]] + _UNITS[match[2]]), text)
    return spelled(_NUMBER_WORD.sub(lambda match: str(_UNITS.get(match[1], _TENS.get(match[1]))), text))


def all_words(text: str) -> list[str]:
    """Return every word and number of the plain text, in order."""
    return _WORD.findall(plain(text))


@lru_cache(maxsize=4096)
def content_words(text: str) -> tuple[str, ...]:
    """Return the canonical content words of the text, in order, repeats kept; numbers stay digits."""
    counted = _ORDINAL_WORD.sub(lambda match: str(_ORDINALS[match[1]]), with_unit_names(plain(text)))
    words = _WORD.findall(_SCALED.sub(_multiplied, counted))
    return tuple(w if is_number(w) else _canonical(w) for w in words if w not in _STOP and _has_content(w))


def occurs(word: str, others: Collection[str]) -> bool:
    """Whether a canonical word is among others, or inside one of them in a script without spaces."""
    return word in others or (is_run(word) and run_occurs(word, others))


@lru_cache(maxsize=65536)
def same_word(one: str, other: str) -> bool:
    """Whether two canonical words are the same up to misspelling or inflection; numbers must be equal."""
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    if len(short) < _SHORTEST_FUZZY or is_number(one) or is_number(other) or one[0] != other[0]:
        return False
    if len(short) >= _SHORTEST_PREFIX and long.startswith(short) and len(long) - len(short) <= _LONGEST_SUFFIX:
        return True
    if len(long) > _LONGEST_FUZZY:
        return False  # not a word: the comparison takes at least the square of its length
    return SequenceMatcher(None, short, long, autojunk=False).ratio() >= _SAME_WORD_RATIO


def is_number(word: str) -> bool:
    """Whether a canonical word is a number."""
    return word[-1].isdecimal()


def _has_content(word: str) -> bool:
    """A single letter is an initial or the rest of a contraction, except in scripts without spaces."""
    return len(word) > 1 or is_number(word) or is_run(word)


def _multiplied(match: re.Match[str]) -> str:
    """ "2.5 hundred thousand" as plain digits."""
    number = Decimal(match[1])
    for scale in re.findall(r"[a-z]+", match[2]):
        if number.adjusted() > _MOST_DIGITS:
            return match[0]  # not meant as a number
        number *= _SCALES[scale]
    return format(number.normalize(), "f")


@lru_cache(maxsize=65536)
def _canonical(word: str) -> str:
    stem = str(_STEMMER.stemWord(word))
    return _MEANING.get(stem, stem)


_MEANING = {
    str(_STEMMER.stemWord(word)): str(_STEMMER.stemWord(meaning[0])) for meaning in MEANINGS for word in meaning
}
