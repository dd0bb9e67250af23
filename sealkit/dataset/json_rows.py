"""JSON and JSON lines as rows, with the lines they begin at."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from sealkit.dataset.rows import Row
from sealkit.errors import InvalidDataset

_LISTS = ("data", "rows")
"""Keys of an object that hold the rows: of SQuAD's files, and of the Hugging Face dataset viewer's answers."""
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_LINE_END = re.compile(r"\r\n|\n|\r")
_decoder = json.JSONDecoder()


def read_json(name: str, text: str) -> Iterator[Row]:
    """The rows of a JSON list, of a JSON object that holds a list of them (`data`, `rows`), or of one that is a record
    itself. Raises InvalidDataset with file, line and column."""
    return _Json(name, text).rows()


def read_lines(name: str, text: str) -> Iterator[Row]:
    """The rows of JSON lines. Raises InvalidDataset with file, line and column."""
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if line.strip(" \t\ufeff"):
            yield from _Json(name, line, first_line=number).rows(unwrap=False)


def is_lines(text: str) -> bool:
    """Whether the text is JSON lines rather than one JSON value: its first line is an object, and more follows."""
    end = _LINE_END.search(text)
    if end is None or not text[end.end() :].strip():
        return False
    try:
        return isinstance(json.loads(text[: end.start()]), dict)
    except (ValueError, RecursionError):
        return False


class _Json:
    def __init__(self, name: str, text: str, first_line: int = 1) -> None:
        self._name, self._text = name, text
        self._first = first_line
        self._starts = [0, *(match.end() for match in _LINE_END.finditer(text))]

    def rows(self, *, unwrap: bool = True) -> Iterator[Row]:
        """The rows; a single object is one row unless it holds a list of them (`unwrap`)."""
        at = self._skip(0)
        if self._text.startswith("[", at) and unwrap:
            entries, end = self._entries(at)
        elif self._text.startswith("{", at) and unwrap:
            entries, end = self._wrapped(at)
        else:
            value, end = self._value(at)
            entries = [(value, at)]
        if (end := self._skip(end)) < len(self._text):
            raise self._fault(end, "text after the end of the JSON value")
        for value, start in entries:
            yield self._row(value, start)

    def _row(self, value: Any, start: int) -> Row:
        if isinstance(value, dict):
            inner = value.get("row")  # {"row_idx": …, "row": {…}}, as the dataset viewer answers
            return Row(inner if "row_idx" in value and isinstance(inner, dict) else value, self._place(start)[0])
        raise InvalidDataset(
            f"{self._place(start)[0]}: {_kind(value)}, not a record; expected a JSON object, for the knowledge domain "
            "with title, context and questions"
        )

    def _wrapped(self, at: int) -> tuple[list[tuple[Any, int]], int]:
        """The entries of the list that the object at `at` holds, or else the object itself."""
        members: dict[str, Any] = {}
        entries: list[tuple[Any, int]] | None = None
        place = self._skip(at + 1)
        while not self._text.startswith("}", place):
            if members or entries is not None:
                place = self._skip(self._expect(place, ","))
            key, place = self._value(place)
            if not isinstance(key, str):
                raise self._fault(place, "a key that is not a text")
            place = self._skip(self._expect(self._skip(place), ":"))
            if key in _LISTS and entries is None and self._text.startswith("[", place):
                entries, place = self._entries(place)
            else:
                members[key], place = self._value(place)
            place = self._skip(place)
        if entries is not None and (not members or not _is_record(members)):
            return entries, place + 1
        if entries is not None:
            members["data"] = [value for value, _ in entries]
        return [(members, at)], place + 1

    def _entries(self, at: int) -> tuple[list[tuple[Any, int]], int]:
        """The entries of the list at `at`, each with its index in the text, and the index behind the list."""
        entries: list[tuple[Any, int]] = []
        place = self._skip(at + 1)
        while not self._text.startswith("]", place):
            if entries:
                place = self._skip(self._expect(place, ","))
            value, end = self._value(place)
            entries.append((value, place))
            place = self._skip(end)
        return entries, place + 1

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return _decoder.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            raise self._fault(error.pos, error.msg) from error
        except ValueError as error:  # an integer with thousands of digits
            raise self._fault(at, str(error)) from error
        except RecursionError as error:
            raise InvalidDataset(f"{self._place(at)[0]}: nested too deeply to be a list of records") from error

    def _expect(self, at: int, mark: str) -> int:
        if not self._text.startswith(mark, at):
            raise self._fault(at, f"expected {mark!r}")
        return at + 1

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _place(self, at: int) -> tuple[str, int]:
        """File and line of an index in the text, and its column."""
        line = bisect_right(self._starts, at)
        return f"{self._name}, line {self._first + line - 1}", at - self._starts[line - 1] + 1

    def _fault(self, at: int, message: str) -> InvalidDataset:
        place, column = self._place(at)
        return InvalidDataset(
            f"{place}, column {column}: not JSON ({message}); expected a JSON list of records, or one record per line"
        )


def _is_record(members: dict[str, Any]) -> bool:
    """Whether an object that has a list under `data` or `rows` is nevertheless a record of its own."""
    return "context" in members or "questions" in members


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
