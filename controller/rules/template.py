"""The run's arguments for the chat template, put into the prompts of its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from sealkit.types import Prompt, PromptFormat, Value

T = TypeVar("T")


def templated(value: T, kwargs: Mapping[str, Any]) -> T:
    """The same value with these arguments in every prompt in it that may be rendered by the chat template."""
    return cast(T, _templated(value, kwargs)) if kwargs else value


def _templated(value: Any, kwargs: Mapping[str, Any]) -> Any:
    if isinstance(value, Prompt):
        plain = value.format is PromptFormat.PLAIN
        return value if plain else value.changed(chat_template_kwargs=dict(kwargs))
    if isinstance(value, tuple):
        return tuple(_templated(item, kwargs) for item in value)
    if isinstance(value, Value):
        return value.model_copy(update={name: _templated(item, kwargs) for name, item in value})
    return value
