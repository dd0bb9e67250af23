"""HTML: the text of its main part, without scripts, navigation, forms and what is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from lxml import etree, html

from sealkit.documents.blocks import Block, Parsed, clean
from sealkit.documents.formats.text import decoded_text, guess_notice
from sealkit.encoding import decode
from sealkit.errors import InvalidDocument

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *_HEADINGS, "address", "article", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "legend", "li", "main", "ol",
    "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
}  # fmt: skip
_LEFT_OUT = {
    "audio", "button", "canvas", "datalist", "embed", "iframe", "input", "map", "math", "nav", "noscript", "object",
    "script", "select", "style", "svg", "template", "textarea", "title", "video",
}  # fmt: skip
_BESIDE = ("aside", "footer", "header")
"""Left out unless they are in the main part."""
_CELLS = ("td", "th")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")


def read_html(raw: bytes) -> Parsed:
    """Raises InvalidDocument if the bytes are no text."""
    declared = _DECLARED.search(raw[:4096])
    decoded = decoded_text(raw)
    if decoded.guessed and declared:
        with suppress(ValueError):  # the declaration may be wrong
            decoded = decode(raw, declared[1].decode("ascii"))
    parsed = parse_html(decoded.text)
    return Parsed(parsed.blocks, parsed.title, decoded.encoding, guess_notice(decoded))


def parse_html(text: str) -> Parsed:
    """The blocks and the title of an HTML text; raises InvalidDocument if it cannot be parsed."""
    # lxml refuses a text that declares an encoding, because a text has none.
    bare = _XML_DECLARATION.sub("", text, count=1).replace("\0", "")
    if not bare.strip():
        return Parsed([])
    # libxml2 leaves out what is nested deeper than 256 elements; with `huge_tree`, than 2048. The size is limited
    # elsewhere.
    parser = html.HTMLParser(huge_tree=True)
    try:
        root = html.document_fromstring(bare, parser=parser)
    except (etree.LxmlError, ValueError) as error:
        raise InvalidDocument(f"is HTML that cannot be parsed ({error})") from error
    if limit := next((fault for fault in parser.error_log if fault.type == etree.ErrorTypes.ERR_RESOURCE_LIMIT), None):
        raise InvalidDocument(f"is HTML that cannot be read to its end ({limit.message.partition(',')[0].lower()})")
    title = clean(" ".join(root.xpath("string(//head/title)").split()))
    return Parsed(list(_Walk(_main_part(root)).blocks()), title)


def _main_part(root: etree._Element) -> etree._Element:
    """`main`, or the only `article`, or else the body."""
    for path in ("//main", "//*[@role='main']", "//article", "//body"):
        found = root.xpath(path)
        if len(found) == 1 and "".join(found[0].itertext()).strip():
            part: etree._Element = found[0]
            return part
    return root


class _Walk:
    """Collects the text of elements until a block begins or ends. Without recursion: pages nest deeply."""

    def __init__(self, root: etree._Element) -> None:
        self._root = root
        self._text: list[str] = []
        self._level = 0
        self._part_of: Literal["", "list", "table"] = ""
        self._verbatim = 0

    def blocks(self) -> Iterator[Block]:
        walker = etree.iterwalk(self._root, events=("start", "end", "comment", "pi"))
        for event, element in walker:
            tag = element.tag if isinstance(element.tag, str) else ""
            if event == "start" and (tag in _LEFT_OUT or self._is_hidden(element, tag)):
                walker.skip_subtree()
                element.set("data-left-out", "")
                self._add("")
            elif event == "start":
                if tag in _BLOCKS:
                    yield from self._flush()
                self._begin(tag, element)
                self._add(element.text)
            elif element.get("data-left-out") is None and event == "end":
                if tag in _BLOCKS:
                    yield from self._flush()
                self._end(tag)
            if event != "start" and element is not self._root:
                self._add(element.tail)
        yield from self._flush()

    def _begin(self, tag: str, element: etree._Element) -> None:
        self._level = _HEADINGS.get(tag, self._level)
        if tag == "li":
            self._part_of = "list"
        elif tag == "tr":
            self._part_of = "table"
        elif tag == "br":
            self._text.append("\n")
        elif tag in _CELLS and "".join(self._text).strip():
            self._text.append(" | ")
        elif tag == "img" and element.get("alt"):
            self._add(element.get("alt"))
        self._verbatim += tag == "pre"

    def _end(self, tag: str) -> None:
        if tag in _HEADINGS:
            self._level = 0
        self._verbatim -= tag == "pre"

    def _add(self, text: str | None) -> None:
        if text:
            self._text.append(text if self._verbatim else re.sub(r"\s+", " ", text))

    def _flush(self) -> Iterator[Block]:
        joined = "".join(self._text)
        text = joined.strip("\n").rstrip() if self._verbatim else clean(joined)
        self._text = []
        if not text.strip():
            return
        if self._level:
            yield Block(" ".join(text.split()), self._level)
        else:
            yield Block(f"- {text}" if self._part_of == "list" else text, part_of=self._part_of)
        self._part_of = ""

    @staticmethod
    def _is_hidden(element: etree._Element, tag: str) -> bool:
        if element.get("hidden") is not None or element.get("aria-hidden") == "true":
            return True
        if tag in _BESIDE and not any(parent.tag in ("article", "main") for parent in element.iterancestors()):
            return True
        return bool(_HIDDEN.search(element.get("style") or ""))
