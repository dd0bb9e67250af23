"""JSON-like values to `google.protobuf.Struct` and back, preserving integers.

A Struct has only doubles: on the way back whole numbers become int again, and an integer that a double cannot represent
is sent as its decimal string (pydantic parses it as an int).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any

from google.protobuf import struct_pb2

from sealkit.errors import InvalidInput

_EXACT = 2**53
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def struct_to_pb(value: Mapping[str, Any], *, what: str = "value", nan_as_null: bool = False) -> struct_pb2.Struct:
    """Raises InvalidInput with the path of a value that JSON cannot represent. `nan_as_null`: NaN and infinity become
    null, for the records of a dataset, which may have keys that nobody reads."""
    return struct_pb2.Struct(
        fields={_text(str(k), what): _value_to_pb(v, f"{what}.{k}", nan_as_null) for k, v in value.items()}
    )


def struct_from_pb(pb: struct_pb2.Struct, *, nan_as_null: bool = False) -> dict[str, Any]:
    """Raises InvalidInput on NaN and infinity, which JSON cannot represent, unless they become null (see
    `struct_to_pb`)."""
    return {key: _value_from_pb(value, nan_as_null) for key, value in pb.fields.items()}


def _value_to_pb(value: Any, path: str, nan_as_null: bool) -> struct_pb2.Value:
    match value:
        case float() if nan_as_null and not isfinite(value):
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() if abs(value) > _EXACT:
            return struct_pb2.Value(string_value=str(value))
        case int() | float() if value - value == 0:  # neither infinite nor NaN
            return struct_pb2.Value(number_value=value)
        case str():
            return struct_pb2.Value(string_value=_text(value, path))
        case Mapping():
            return struct_pb2.Value(struct_value=struct_to_pb(value, what=path, nan_as_null=nan_as_null))
        case list() | tuple():
            items = [_value_to_pb(item, f"{path}[{i}]", nan_as_null) for i, item in enumerate(value)]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
    fault = (
        f"{value!r} cannot be represented in JSON"
        if isinstance(value, float)
        else f"{type(value).__name__} is not JSON"
    )
    raise InvalidInput(f"{path}: {fault}", fields=((path, fault),))


def _text(value: str, path: str) -> str:
    """JSON can contain half a surrogate pair; UTF-8 cannot."""
    if _LONE_SURROGATE.search(value):
        fault = "contains half a surrogate pair, which is not a character"
        raise InvalidInput(f"{path}: {fault}", fields=((path, fault),))
    return value


def _value_from_pb(pb: struct_pb2.Value, nan_as_null: bool) -> Any:
    match pb.WhichOneof("kind"):
        case "number_value":
            number = pb.number_value
            if not isfinite(number):
                if nan_as_null:
                    return None
                raise InvalidInput(f"{number} cannot be represented in JSON; send a finite number, a text or null")
            return int(number) if number.is_integer() and abs(number) <= _EXACT else number
        case "string_value":
            return pb.string_value
        case "bool_value":
            return pb.bool_value
        case "struct_value":
            return struct_from_pb(pb.struct_value, nan_as_null=nan_as_null)
        case "list_value":
            return [_value_from_pb(item, nan_as_null) for item in pb.list_value.values]
    return None
