"""Bytes to text: which encoding a file has."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 256 * 1024
_CONTROL = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Characters that no text file has; ESC and form feed do occur."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text and its encoding. `guessed`: the bytes do not say which it is, and are not UTF-8."""

    text: str
    encoding: str
    guessed: bool = False


def decode(raw: bytes, encoding: str = "") -> Decoded:
    """The text of `raw`, in the given encoding or else in the one that its byte order mark names, UTF-8, or what
    charset-normalizer finds most plausible.

    Raises ValueError, with a message for the reader of the file, if it is not a text.
    """
    if encoding:
        return _decoded(raw, encoding)
    if named := next((name for mark, name in _MARKS if raw.startswith(mark)), ""):
        return _decoded(raw, named)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _guessed(raw, error)
    if _CONTROL.search(text):
        return _guessed(raw, None)  # UTF-16 of ASCII without a mark is valid UTF-8, full of NULs
    return Decoded(text, "utf-8")


def _decoded(raw: bytes, encoding: str) -> Decoded:
    try:
        return Decoded(raw.decode(encoding).removeprefix("\ufeff"), encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding}: {error.reason} at byte {error.start}") from error
    except LookupError as error:
        raise ValueError(f"there is no encoding {encoding!r}; known ones are utf-8, cp1252, shift_jis …") from error


def _guessed(raw: bytes, error: UnicodeDecodeError | None) -> Decoded:
    """The most plausible decoding. A sample decides, around the first byte that is not UTF-8: looking at all of a big
    file takes minutes."""
    start = max(0, (error.start if error else 0) - _SAMPLE // 2) & ~3
    sample = raw[start : start + _SAMPLE]
    # In UTF-16 and UTF-32 at least the ends of lines hold a zero byte; without one, a short text looks like either.
    excluded = _EBCDIC if b"\0" in sample else _EBCDIC + _WIDE
    found = from_bytes(sample, cp_exclusion=excluded)
    best = found.best()
    # Of encodings that are as plausible, charset-normalizer names the first by alphabet: cp1250 for Spanish.
    equal = [one for one in found if best and (one.chaos, one.coherence) == (best.chaos, best.coherence)]
    if usual := next((one for one in equal if _USUAL in one.could_be_from_charset), None):
        best = usual
    try:
        text = raw.decode(best.encoding) if best else ""
    except UnicodeDecodeError:
        text = ""
    if best is None or not text or _CONTROL.search(text):
        at = f" ({error.reason} at byte {error.start})" if error else ""
        raise ValueError(f"not a text in UTF-8{at}, nor in another encoding that can be recognised")
    # Of encodings that give the same text, the usual one is named.
    same = raw.decode(_USUAL, errors="replace") == text
    return Decoded(text, _USUAL if same else best.encoding, guessed=True)


_USUAL = "cp1252"
_EBCDIC = ["cp037", "cp273", "cp424", "cp500", "cp875", "cp1026", "cp1140"]
_WIDE = ["utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"]
