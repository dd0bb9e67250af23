"""How rare a word is in everyday text, by the word lists of `wordfreq` (Speer 2022, doi:10.5281/zenodo.7199437)."""

from __future__ import annotations

from functools import lru_cache

from wordfreq import zipf_frequency

from sealkit.words.comparable import all_words, content_words
from sealkit.writing import is_run

_LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs", "ru", "uk", "tr", "ar", "hi")
_UNLISTED = 8.0
"""Above the Zipf value of every word (Van Heuven et al. 2014), which is log10 of its number in a billion words."""
_PAIR = 2.0
"""Of two neighbouring characters in a script without spaces, for which there are no word lists."""


@lru_cache(maxsize=65536)
def rarity(word: str) -> float:
    """In [0, 8]: 8 for a word that no list has, 5 for one in a million words, 3 for "time"; by the language in which it
    is most common."""
    return _UNLISTED - max(zipf_frequency(word, language, wordlist="small") for language in _LANGUAGES)


def rarities(text: str) -> dict[str, float]:
    """The distinct content words of a text, as the local judges compare them, with the rarity of the form that is most
    common. In scripts without spaces: all pairs of neighbouring characters instead."""
    found: dict[str, float] = {}
    for word in all_words(text):
        if is_run(word):
            found.update((word[at : at + 2], _PAIR) for at in range(max(1, len(word) - 1)))
            continue
        for content in content_words(word):
            found[content] = min(found.get(content, _UNLISTED), rarity(word))
    return found
