"""Pages of a listing. A token names the row before the next page, so inserted and deleted rows do not shift pages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sealkit import limits
from sealkit.errors import InvalidInput

T = TypeVar("T")

DEFAULT_SIZE = 50


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows, and the token of the next page; empty at the end."""

    items: list[T]
    next_token: str


def size_of(asked: int) -> int:
    """The number of rows of a page: 0 means the default; never more than the maximum."""
    return min(asked or DEFAULT_SIZE, limits.PAGE_ROWS)


def token_after(key: Sequence[str | int]) -> str:
    """An opaque token for the rows after `key`."""
    return base64.urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def key_of(token: str, *kinds: type[str] | type[int]) -> list[str | int] | None:
    """The key in a token; None for an empty token. Raises InvalidInput if the token is not one of this listing."""
    if not token:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        key = None
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise InvalidInput(
            "page_token is not a token of this listing; start again without one",
            fields=(("page_token", "not a token of this listing"),),
        )
    return key
