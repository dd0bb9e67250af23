"""Hypothesis strategies for values, by the types and bounds of their fields: a field that is added is drawn too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin

from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from sealkit import resources, types

Strategy = st.SearchStrategy[Any]

CHARACTERS = st.characters(exclude_categories=("Cs",))
SOME = st.text(CHARACTERS, min_size=1, max_size=20)
REAL = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | REAL | st.text(CHARACTERS, max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=20), inner, max_size=3),
    max_leaves=8,
)
MANY = st.integers(0, 2**62)

SPECIAL: dict[tuple[type[types.Value], str], Strategy] = {
    (types.AdapterRef, "digest"): st.text("0123456789abcdef", min_size=64, max_size=64),
    (types.Distillation, "kl_weight"): st.floats(0, 1000, exclude_min=True),
    (types.LoraConfig, "target_modules"): st.lists(SOME, min_size=1, max_size=3, unique=True).map(tuple),
    (types.TrainingExample, "loss_spans"): st.lists(
        st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda span: (span[0], span[0] + span[1])), max_size=3
    ).map(tuple),
    (types.Usage, "prompt_tokens"): MANY,
    (types.Usage, "completion_tokens"): MANY,
    (types.Usage, "train_tokens"): MANY,
    (resources.Budget, "trials"): MANY,
    (resources.Budget, "tokens"): MANY,
}
"""Fields of which not everything goes that their type allows, or more than 31 bits."""


@cache
def values_of(value_class: type[types.Value]) -> Strategy:
    """Values of a class, every field drawn."""
    fields = {
        name: SPECIAL[value_class, name] if (value_class, name) in SPECIAL else _of(info.annotation, info.metadata)
        for name, info in value_class.model_fields.items()
    }
    if value_class is types.TrainingSpec:  # its `contrast` needs anchors
        fields["anchors"] = st.lists(values_of(types.TrainingExample), min_size=1, max_size=3).map(tuple)
    return st.builds(value_class, **fields)


def _of(kind: Any, metadata: Sequence[Any] = ()) -> Strategy:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _of(args[0], args[1:])
    if origin is UnionType:
        return st.one_of([_of(arg, metadata) for arg in args])
    if kind == dict[str, Any]:
        return st.dictionaries(_of(str), JSON, max_size=3)
    if origin is dict:
        return st.dictionaries(_of(args[0]), _of(args[1]), max_size=2)
    if origin is tuple:
        return st.lists(_of(args[0]), min_size=_bounds(metadata).get("min_length", 0), max_size=3).map(tuple)
    if issubclass(kind, types.Value):
        return values_of(kind)
    if issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    return _scalar(kind, _bounds(metadata))


def _scalar(kind: type, bounds: dict[str, Any]) -> Strategy:
    if kind is NoneType:
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is datetime:
        return st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
    if kind is str:
        return st.text(CHARACTERS, min_size=bounds.get("min_length", 0), max_size=20)
    if kind is int:
        highest = bounds.get("le", bounds.get("lt", 2**31) - 1)
        return st.integers(bounds.get("ge", 0), highest)
    assert kind is float, kind
    return st.floats(
        bounds.get("ge", bounds.get("gt")),
        bounds.get("le", bounds.get("lt")),
        exclude_min="gt" in bounds,
        exclude_max="lt" in bounds,
        allow_nan=False,
        allow_infinity=False,
    )


def _bounds(metadata: Sequence[Any]) -> dict[str, Any]:
    names = ("ge", "gt", "le", "lt", "min_length")
    return {name: getattr(rule, name) for rule in _flat(metadata) for name in names if hasattr(rule, name)}


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for rule in metadata:
        yield from rule.metadata if isinstance(rule, FieldInfo) else (rule,)
