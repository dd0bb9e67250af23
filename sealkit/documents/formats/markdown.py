"""Markdown (CommonMark with tables): rendered to HTML, so that HTML in it is read too."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from sealkit.documents.blocks import Parsed
from sealkit.documents.formats.html import parse_html
from sealkit.documents.formats.text import decoded_text, guess_notice

_FRONT_MATTER = re.compile(r"\ufeff?---[^\S\n]*\n(.*?)\n(?:---|\.\.\.)[^\S\n]*(?:\n|$)", re.DOTALL)
_TITLE = re.compile(r"^title:[^\S\n]*(['\"]?)(.+?)\1[^\S\n]*$", re.MULTILINE)


def read_markdown(raw: bytes) -> Parsed:
    """YAML before the text is left out, but for its title. Raises InvalidDocument if the bytes are no text."""
    decoded = decoded_text(raw)
    text = decoded.text.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(text)
    titled = _TITLE.search(front[1]) if front else None
    parsed = parse_html(MarkdownIt("commonmark").enable("table").render(text[front.end() :] if front else text))
    return Parsed(parsed.blocks, titled[2] if titled else parsed.title, decoded.encoding, guess_notice(decoded))
