"""Writing systems: which marks are part of a letter, and where words have no spaces between them.

In scripts without spaces, and in Korean, whose particles follow without a space, a word is found inside a longer
run of letters. Word boundaries there need a dictionary; a substring needs none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_RUN_RANGES = (
    (0x0E01, 0x0E4E),  # Thai
    (0x0E81, 0x0ECE),  # Lao
    (0x0F00, 0x0FBC),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul letters
    (0x1780, 0x17D3),  # Khmer
    (0x3005, 0x3007),  # Han: repetition, closing mark, zero
    (0x3041, 0x3096),  # Hiragana
    (0x3099, 0x309F),
    (0x30A1, 0x30FA),  # Katakana, without the middle dot
    (0x30FC, 0x30FF),
    (0x3131, 0x318E),  # Hangul compatibility letters
    (0x31F0, 0x31FF),  # Katakana extension
    (0x3400, 0x9FFF),  # Han
    (0xAC00, 0xD7A3),  # Hangul syllables
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x20000, 0x3FFFF),  # Han, extensions
)
_ACCENTS = ((0x0300, 0x036F), (0x0591, 0x05C7), (0x064B, 0x065F), (0x0670, 0x0670))
"""Marks that are left out in everyday spelling: accents, and the vowel points of Hebrew and Arabic."""
_MARKED = ((0x0590, 0x1FFF), (0xA800, 0xABFF))
"""Blocks whose words contain marks that are not letters for `str.isalpha`: vowel signs of India and its neighbours."""


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    """The inside of a character class."""
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


RUN = _class(_RUN_RANGES)
"""The inside of a character class: letters of scripts whose words are found inside a longer run."""
_MARKS = "".join(
    chr(code)
    for first, last in _MARKED
    for code in range(first, last + 1)
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
WORD = rf"[{RUN}]+|(?![{RUN}])[^\W\d_](?:(?![{RUN}])[^\W\d_]|[{_MARKS}])*"
"""A pattern: a run, or a word of another script with its marks."""
_ACCENT = re.compile(f"[{_class(_ACCENTS)}]")
_JOINERS = re.compile("[\u200b-\u200d\ufeff]")
_DIGIT = re.compile(r"(?![0-9])\d")
_IS_RUN = re.compile(f"[{RUN}]")
_LONG_RUN = 9
_RECALL = 0.6


def folded(text: str) -> str:
    """Case, accents, styled letters, width of characters and kinds of digits folded; other marks kept, since they make
    other words (か and が)."""
    if text.isascii():
        return text.casefold()
    # Case-folded after decomposing, which turns styled letters such as U+1D400 into plain capitals; then decomposed
    # again.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = unicodedata.normalize("NFC", _ACCENT.sub("", _JOINERS.sub("", decomposed)))
    return _DIGIT.sub(lambda match: str(unicodedata.decimal(match[0])), bare)


def is_run(word: str) -> bool:
    """Whether a word is of a script in which it may stand inside a longer run."""
    return _IS_RUN.match(word) is not None


def run_occurs(run: str, others: Iterable[str]) -> bool:
    """Whether a run is inside one of the others; of a long one, most of its pairs of neighbouring characters."""
    others = [other for other in others if is_run(other)]
    if any(run in other for other in others):
        return True
    if len(run) < _LONG_RUN:
        return False
    pairs = {run[at : at + 2] for at in range(len(run) - 1)}
    return sum(any(pair in other for other in others) for pair in pairs) >= _RECALL * len(pairs)


def letter_count(text: str) -> int:
    """Letters of a text, in those of an alphabet: a Chinese character counts as three, a kana as two (a consonant and a
    vowel), a Korean syllable as the letters that it is composed of, a vowel sign as one."""
    return sum(map(_letters, text))


def _letters(character: str) -> int:
    code = ord(character)
    if 0xAC00 <= code <= 0xD7A3:
        return len(unicodedata.normalize("NFD", character))
    if 0x3041 <= code <= 0x30FF and character.isalpha():
        return 2
    if 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF:
        return 3
    return int(character.isalpha() or unicodedata.category(character) in ("Mn", "Mc"))
