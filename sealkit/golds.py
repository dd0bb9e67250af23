"""The gold answers of a question, in the forms that datasets have."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

_KEYS = ("answer", "answers", "other_answers")


def golds_of(question: Mapping[str, Any]) -> tuple[str, ...]:
    """The distinct gold answers of a question, in their order; any of them is right. Empty: the question has no answer
    (`is_impossible` of SQuAD 2.0, null, an empty text or list).

    They are read from `answer`, `answers` and `other_answers`. Each is a text, a number, true or false (yes, no), null,
    a list of these, or an object with its answers under `text`, as in SQuAD and its Hugging Face rows.

    Raises ValueError if there is no such key, or for any other value.
    """
    if not any(key in question for key in _KEYS):
        raise ValueError("there is neither `answer` nor `answers`")
    if question.get("is_impossible") is True:
        return ()
    texts = (text.strip() for key in _KEYS for text in _texts(question.get(key)))
    return tuple(dict.fromkeys(text for text in texts if text))


def _texts(value: Any) -> list[str]:
    match value:
        case None:
            return []
        case str():
            return [value]
        case bool():
            return ["yes" if value else "no"]
        case float() if not isfinite(value):
            return []  # NaN is how tables say that there is none
        case int() | float():
            return [str(int(value) if value == int(value) else value)]
        case list() | tuple():
            return [text for item in value for text in _texts(item)]
        case Mapping() if "text" in value:
            return _texts(value["text"])
        case Mapping():
            raise ValueError(f"an object without `text`, but with the keys {', '.join(map(str, value))}")
    raise ValueError(f"{type(value).__name__} is not an answer")
