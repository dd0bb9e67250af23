"""Published question-answering datasets as records: SQuAD's articles, and tables with a row for each question."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sealkit.dataset.rows import HELD_OUT_NAMES, TRAIN_NAMES, Records, Row, keys_of
from sealkit.errors import InvalidDataset
from sealkit.golds import golds_of

_CONTEXT_KEYS = ("context", "passage")
_QUESTION_KEYS = ("question", "answer", "answers", "other_answers", "is_impossible")
_SPLITS = dict.fromkeys(("", *TRAIN_NAMES), "train") | dict.fromkeys(HELD_OUT_NAMES, "heldout")
_CELL = re.compile(r"\s*[\[{]")
_EXPECTED = (
    "expected a passage (title, context and questions), an article of SQuAD (title and paragraphs), or a row for each "
    "question (title, context, question and answers)"
)


def passages_of(rows: Sequence[Row], notices: Sequence[str] = ()) -> Records:
    """The records of rows in any of three forms: a passage with its questions; an article of SQuAD with its paragraphs;
    one question with its passage, as in SQuAD's Hugging Face rows or a CSV. Keys that the domain does not read are
    dropped.

    Passages with the same title and text become one, and so do rows with the same question, with the answers of all.
    Questions without an answer, and passages that have no other, are left out, and counted in the notices.
    Raises InvalidDataset for a row in none of the forms, and if no question has an answer.
    """
    found: dict[tuple[Any, Any], _Passage] = {}
    for row in rows:
        for record, place in _records(row):
            key = (_bare(record["title"]), _bare(record["context"]))
            passage = found.setdefault(key, _Passage(record, place))
            for question in record["questions"]:
                passage.add(question, again="question" in row.values)
    unanswerable = sum(passage.unanswerable for passage in found.values())
    kept = [passage for passage in found.values() if passage.questions or not passage.unanswerable]
    if found and not kept:
        raise InvalidDataset(f"{rows[0].place} and on: none of {unanswerable:,} questions has an answer")
    without = len(found) - len(kept)
    said = [f"left out: {_count(unanswerable, 'question')} without an answer"] if unanswerable else []
    said += [f"left out: {_count(without, 'passage')} of which no question has an answer"] if without else []
    return Records([p.record() for p in kept], [p.place for p in kept], [*notices, *said])


class _Passage:
    """A passage with its questions: by their text where each has a row of its own, else by their number."""

    def __init__(self, record: Mapping[str, Any], place: str) -> None:
        self._head = {key: value for key, value in record.items() if key != "questions"}
        self.place = place
        self.questions: dict[Any, Any] = {}
        self.unanswerable = 0

    def add(self, question: Any, *, again: bool) -> None:
        """Adds a question, or its answers if it may come `again`. One that is malformed is kept as it is, for the
        domain to name."""
        try:
            golds = golds_of(question)
        except (ValueError, AttributeError, TypeError):
            self.questions[len(self.questions)] = question
            return
        if not golds:
            self.unanswerable += 1
            return
        key = _bare(question.get("question")) if again else len(self.questions)
        known = self.questions.get(key)
        earlier = golds_of(known) if known else ()
        self.questions[key] = {"question": question.get("question"), "answers": list(dict.fromkeys((*earlier, *golds)))}

    def record(self) -> dict[str, Any]:
        return {**self._head, "questions": list(self.questions.values())}


def _records(row: Row) -> Iterator[tuple[dict[str, Any], str]]:
    """The passages of a row, and their places."""
    values = row.values
    context = next((values[key] for key in _CONTEXT_KEYS if key in values), None)
    common = {"title": values.get("title"), "split": _split(values.get("split"))}
    if isinstance(values.get("questions"), list):
        yield {**common, "context": context, "questions": values["questions"]}, row.place
    elif isinstance(values.get("paragraphs"), list):
        for number, paragraph in enumerate(values["paragraphs"]):
            place = f"{row.place}, paragraphs[{number}]"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                raise InvalidDataset(f"{place}: there is no list `qas`; {_EXPECTED}")
            yield {**common, "context": paragraph.get("context"), "questions": paragraph["qas"]}, place
    elif isinstance(values.get("question"), str) and context is not None:
        if "title" not in values:
            raise InvalidDataset(
                f"{row.place}: a question and its passage without a title; add a column `title` that says what the "
                "passage is about, because questions are asked under it"
            )
        asked = {key: _cell(value) for key, value in values.items() if key in _QUESTION_KEYS}
        yield {**common, "context": context, "questions": [asked]}, row.place
    else:
        raise InvalidDataset(f"{row.place}: a record with the keys {keys_of(values)}; {_EXPECTED}")


def _split(split: Any) -> Any:
    """A run's split by the name that datasets give it; any other is left for the domain to name."""
    return _SPLITS.get(split.strip().lower(), split) if isinstance(split, str) else split


def _cell(value: Any) -> Any:
    """A list or an object that was written into a cell of a CSV, in the notation of JSON or of Python; anything else as
    it is."""
    if not isinstance(value, str) or not _CELL.match(value):
        return value
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        return ast.literal_eval(_Plain().visit(ast.parse(value.strip(), mode="eval")))
    return value


class _Plain(ast.NodeTransformer):
    """`array([…], dtype=object)`, as numpy prints itself, becomes the list in it."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return node.args[0] if isinstance(node.func, ast.Name) and node.func.id == "array" and node.args else node


def _bare(text: Any) -> Any:
    return text.strip() if isinstance(text, str) else repr(text)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
