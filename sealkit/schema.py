"""JSON schemas for constrained decoding: which of them a service accepts.

A caller writes them, and they are compiled to a grammar. A few hundred characters of regular expressions, or of allOf,
can compile for hours and use all memory. So only keywords for plain values are accepted, in sizes that compile quickly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sealkit.errors import InvalidInput

_KEYWORDS = frozenset(
    {"$schema", "$id", "$defs", "$ref", "definitions", "title", "description", "default", "examples", "format"}
    | {"type", "enum", "const", "anyOf", "oneOf", "nullable", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "items", "prefixItems"}
    | {"properties", "required", "additionalProperties"}
)
_BY_NAME = ("properties", "$defs", "definitions")
_MANY = ("anyOf", "oneOf", "prefixItems")
_ONE = ("items", "additionalProperties")
_SIZES = ("minLength", "maxLength", "minItems", "maxItems")
_MOST_PARTS = 500
_MOST_SIZE = 1000
_MOST_CHARACTERS = 20_000
_DEEPEST = 20


def read_schema(text: str) -> Any:
    """The parsed schema. Raises InvalidInput if it is not JSON, or with the keyword that is not supported."""
    if len(text) > _MOST_CHARACTERS:
        raise InvalidInput(f"json_schema has {len(text)} characters; the limit is {_MOST_CHARACTERS}")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"json_schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise InvalidInput("json_schema must be an object")
    for number, (part, depth) in enumerate(_parts(schema)):
        if number >= _MOST_PARTS or depth > _DEEPEST:
            raise InvalidInput(f"json_schema: the limit is {_MOST_PARTS} parts, {_DEEPEST} deep; write a smaller one")
        _check(part)
    return schema


def _check(part: dict[str, Any]) -> None:
    if strange := sorted(set(part) - _KEYWORDS):
        taken = ", ".join(sorted(_KEYWORDS))
        raise InvalidInput(f"json_schema: {strange[0][:60]!r} is not supported; supported keywords: {taken}")
    for name in _SIZES:
        size = part.get(name, 0)
        if type(size) is not int or not 0 <= size <= _MOST_SIZE:
            raise InvalidInput(f"json_schema: {name} must be a whole number from 0 to {_MOST_SIZE}")
    if len(part.get("enum") or ()) > _MOST_PARTS:
        raise InvalidInput(f"json_schema: an enum may have {_MOST_PARTS} values at most")
    if not str(part.get("$ref", "#")).startswith("#"):
        raise InvalidInput("json_schema: a $ref may point into the schema itself only (#/…)")


def _parts(schema: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """The schema and all schemas in it, with their depth."""
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        part, depth = waiting.pop()
        if not isinstance(part, dict):
            continue  # true and false are schemas too
        yield part, depth
        found = [part[name] for name in _ONE if name in part]
        for name in _MANY:
            found += part[name] if isinstance(part.get(name), list) else []
        for name in _BY_NAME:
            found += part[name].values() if isinstance(part.get(name), dict) else []
        waiting += [(one, depth + 1) for one in found]
