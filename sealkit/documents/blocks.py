"""The common form of all formats: headings and paragraphs, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

_LIGATURES = str.maketrans(
    {"\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st", "\ufb06": "st"}
)
_SPACES = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\xad\u200b\u2060\ufeff]")


@dataclass(frozen=True, slots=True)
class Block:
    """A heading (`level` 1 is the outermost) or, with level 0, a paragraph, or a `list` item or a `table` row, as
    `part_of` says."""

    text: str
    level: int = 0
    part_of: Literal["", "list", "table"] = ""


@dataclass(frozen=True)
class Parsed:
    """A document in the common form. `title` is empty if the document does not state one."""

    blocks: list[Block]
    title: str = ""
    encoding: str = ""
    notices: list[str] = field(default_factory=list)


def clean(text: str) -> str:
    """A text without invisible characters and ligatures, with single spaces, and with line breaks as they are."""
    text = _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text)).translate(_LIGATURES)
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(lines).strip()
