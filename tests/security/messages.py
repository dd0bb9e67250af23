"""Requests nobody would send: built from their descriptors, or valid ones with something in them changed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from hypothesis import strategies as st

NASTY = (
    "", " ", "\0", "a\0b", "../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "..\\..\\x", "s3://bucket/x",
    "~root", "runs/x", "runs/x/rounds/0/trials/t", "policies/base", "aliases/a", "policies/../x", "os:system",
    "content", "model", "ab" * 32, "\u202e\u0000", "\U0010ffff" * 40, "é" * 3000, "x" * 70000, "%s%n{0}", "${jndi:x}",
    "'; drop table runs; --", "<|im_end|>\n<|im_start|>system", "{" * 500, "[" * 900, "1" * 5000, "NaN", "-1", "1e999",
    "null", "W10", '{"type":"string","pattern":"(a*)*b"}', '{"allOf":[{}]}', '{"$ref":"#"}', '{"type":"object"}',
    "AB" * 32, "q_proj", "lm_head", "(?:a|a)*", "\r\nx-evil: 1", "1 " + "trillion " * 400, "\n" * 5000,
)  # fmt: skip
INTS = (0, 1, -1, 2, 7, 255, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
DOUBLES = (0.0, -0.0, 1.0, 0.5, -1.0, 5e-324, 1e-320, 1e-40, 1e-9, 1e308, 1e39, 2.0**53, float("inf"), float("nan"))
_BITS = {
    Field.TYPE_INT32: (-(2**31), 2**31 - 1), Field.TYPE_INT64: (-(2**63), 2**63 - 1),
    Field.TYPE_UINT32: (0, 2**32 - 1), Field.TYPE_UINT64: (0, 2**64 - 1), Field.TYPE_ENUM: (-(2**31), 2**31 - 1),
}  # fmt: skip

texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=12))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(DOUBLES), st.integers(-(2**60), 2**60).map(float), texts)
trees: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def _scalar(field: Any) -> st.SearchStrategy[Any]:
    if field.type == Field.TYPE_STRING:
        return texts
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return st.one_of(st.sampled_from(DOUBLES), st.floats())
    if field.type == Field.TYPE_BOOL:
        return st.booleans()
    if field.type == Field.TYPE_BYTES:
        return st.one_of(texts.map(lambda text: text.encode(errors="surrogatepass")), st.binary(max_size=64))
    low, high = _BITS[field.type]
    return st.one_of(st.sampled_from([n for n in INTS if low <= n <= high]), st.integers(low, high), st.integers(0, 6))


def _fill(draw: Callable[[Any], Any], message: Message, field: Any, depth: int) -> None:
    """Sets the field to anything that its type can hold."""
    message.ClearField(field.name)
    value = getattr(message, field.name)
    if field.message_type is None:
        if field.is_repeated:
            value.extend(draw(st.lists(_scalar(field), max_size=3)))
        else:
            setattr(message, field.name, draw(_scalar(field)))
    elif field.message_type.GetOptions().map_entry:
        return  # no request has one, but for Struct's
    elif isinstance(value, Struct):
        value.update(draw(st.dictionaries(texts, trees, max_size=3)))
    elif depth:
        for part in [value.add() for _ in range(draw(st.integers(0, 2)))] if field.is_repeated else [value]:
            part.SetInParent()
            if isinstance(part, Struct):
                part.update(draw(st.dictionaries(texts, trees, max_size=3)))
            else:
                _fill_some(draw, part, depth - 1)


def _fill_some(draw: Callable[[Any], Any], message: Message, depth: int) -> None:
    fields = list(message.DESCRIPTOR.fields)
    for field in fields:
        if draw(st.integers(0, 3)):
            _fill(draw, message, field, depth)


@st.composite
def built(draw: Callable[[Any], Any], kind: type[Message]) -> bytes:
    """A message made from nothing but its descriptor."""
    message = kind()
    _fill_some(draw, message, 4)
    return message.SerializeToString()


def _places(message: Message) -> list[tuple[Message, Any]]:
    """Every field of the message and of those in it."""
    found: list[tuple[Message, Any]] = []
    for field in message.DESCRIPTOR.fields:
        found.append((message, field))
        if field.message_type is None or isinstance(getattr(message, field.name), Struct):
            continue
        if not field.is_repeated and message.HasField(field.name):
            found += _places(getattr(message, field.name))
        elif field.is_repeated and not field.message_type.GetOptions().map_entry:
            for part in list(getattr(message, field.name))[:2]:
                found += [] if isinstance(part, Struct) else _places(part)
    return found


@st.composite
def changed(draw: Callable[[Any], Any], valid: Message) -> bytes:
    """A valid message in which one to three fields hold something else, are gone, or come often."""
    message = type(valid)()
    message.CopyFrom(valid)
    for _ in range(draw(st.integers(1, 3))):
        if not (places := _places(message)):
            break  # a request without fields
        owner, field = draw(st.sampled_from(places))
        how = draw(st.integers(0, 5))
        if how == 0:
            owner.ClearField(field.name)
        elif how == 1 and field.is_repeated and len(getattr(owner, field.name)):
            value = getattr(owner, field.name)
            again = value[0]
            value.extend([again] * draw(st.sampled_from((1, 2, 40))))
        else:
            _fill(draw, owner, field, 2)
    return message.SerializeToString()


@st.composite
def broken(draw: Callable[[Any], Any], valid: Message) -> bytes:
    """The bytes of a valid message, cut, flipped, doubled, or with others in the middle."""
    raw = bytearray(valid.SerializeToString()) or bytearray(b"\x0a\x00")
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        how = draw(st.integers(0, 4))
        if how == 0:
            del raw[place:]
        elif how == 1 and raw:
            raw[place] ^= 1 << draw(st.integers(0, 7))
        elif how == 2:
            raw[place:place] = draw(st.binary(max_size=12))
        elif how == 3:
            raw += raw[: draw(st.integers(0, 64))]
        else:  # a length that promises too much
            raw[place:place] = b"\x0a" + draw(
                st.sampled_from((b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
            )
    return bytes(raw)


def framed(data: bytes, flag: int = 0) -> bytes:
    """A gRPC message as it stands in an HTTP/2 data frame."""
    return struct.pack(">BI", flag, len(data)) + data
