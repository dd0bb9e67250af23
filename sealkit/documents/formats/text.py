"""Plain text: paragraphs are separated by blank lines. A line that is underlined with === or --- is a heading."""

from __future__ import annotations

import re

from sealkit.documents.blocks import Block, Parsed, clean
from sealkit.encoding import Decoded, decode
from sealkit.errors import InvalidDocument

_UNDERLINE = re.compile(r"([=\-~])\1{2,}")
_LEVELS = {"=": 1, "-": 2, "~": 3}
_PARAGRAPH = re.compile(r"\n(?:[^\S\n]*\n)+")


def read_text(raw: bytes) -> Parsed:
    """Raises InvalidDocument if the bytes are no text."""
    decoded = decoded_text(raw)
    blocks: list[Block] = []
    for paragraph in _PARAGRAPH.split(clean(decoded.text)):
        lines = paragraph.split("\n")
        mark = _UNDERLINE.fullmatch(lines[1]) if len(lines) > 1 and lines[0] else None
        if mark:
            blocks.append(Block(lines[0], _LEVELS[mark[1]]))
            lines = lines[2:]
        if text := "\n".join(lines).strip():
            blocks.append(Block(text))
    return Parsed(blocks, encoding=decoded.encoding, notices=guess_notice(decoded))


def decoded_text(raw: bytes) -> Decoded:
    """The text of the bytes. Raises InvalidDocument."""
    try:
        return decode(raw)
    except ValueError as error:
        raise InvalidDocument(f"is {error}") from error


def guess_notice(decoded: Decoded) -> list[str]:
    """A notice if the encoding was guessed."""
    return [f"read as {decoded.encoding}, a guess; save it as UTF-8 if it is another"] if decoded.guessed else []
