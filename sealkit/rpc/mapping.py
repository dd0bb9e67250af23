"""Converts values of `sealkit.types`, `sealkit.resources` and `sealkit.reports` to messages and back, by the names of
their fields.

| value | message |
|---|---|
| str, int, float, bool | the same |
| another value | its message; if unset, the value's default |
| `X | None` | a field that may be unset |
| `tuple[X, ...]`, `dict[K, X]` | repeated X, map<K, X> |
| StrEnum `RunState.QUEUED` | enum RUN_STATE_QUEUED |
| union of values | oneof; each member is the message of one of them |
| `dict[str, Any]` | google.protobuf.Struct, unset if empty |

Exceptions are listed in `sealkit.rpc.mapping_exceptions`. A plan is built once for each pair of a value's class and a
message type. It raises TypeError if a field exists in only one of them, or if their types do not match. That is a bug,
and a contract test checks all values for it.

Messages are assumed valid: `sealkit.rpc.interceptors` validates those from outside on arrival.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic.fields import FieldInfo

from sealkit.errors import InvalidInput
from sealkit.rpc.mapping_exceptions import CODECS, EMPTY, FIELDS, MESSAGES, ZERO, Codec
from sealkit.rpc.struct import struct_from_pb, struct_to_pb
from sealkit.types import Value

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

M = TypeVar("M", bound=Message)
V = TypeVar("V", bound=Value)
W = TypeVar("W", bound=StrEnum)
N = TypeVar("N", bound=int)

_SCALARS: Mapping[Any, tuple[int, ...]] = {
    str: (FieldDescriptor.TYPE_STRING,),
    bool: (FieldDescriptor.TYPE_BOOL,),
    float: (FieldDescriptor.TYPE_DOUBLE,),
    int: (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64),
}


def to_pb(value: Value, message_class: type[M]) -> M:
    """The message of a value. Raises InvalidInput if JSON cannot represent a part of it, and names its path."""
    message: M = plan(type(value), message_class.DESCRIPTOR).to_pb(value)
    return message


def from_pb(message: Message, value_class: type[V]) -> V:
    """The value of a message. Raises InvalidInput if this version does not know an enum's number or a oneof's
    member."""
    value: V = plan(value_class, message.DESCRIPTOR).from_pb(message)
    return value


def enum_to_pb(word: StrEnum, enum: _EnumTypeWrapper[N]) -> N:
    """The proto's number of an enum value."""
    number: N = _words(type(word), enum.DESCRIPTOR).to_pb(word)
    return number


def enum_from_pb(number: int, word_class: type[W], enum: _EnumTypeWrapper[Any]) -> W:
    """The enum value of a proto's number. Raises InvalidInput if this version does not know the number."""
    word: W = _words(word_class, enum.DESCRIPTOR).from_pb(number)
    return word


@dataclass(frozen=True)
class _Field:
    name: str
    pb_name: str
    codec: Codec | None
    """None: no conversion."""
    unset: Mapping[str, None] | None
    """The result if the message's field is unset: None, or nothing, so that the value's default applies. Without this,
    the field is always read."""


@dataclass(frozen=True)
class _Oneof:
    name: str
    members: Mapping[type[Value], str]
    plans: Mapping[str, Plan]


class Plan:
    """Converts the values of one class to messages of one type, and back."""

    def __init__(self, value_class: type[Value], message: Descriptor) -> None:
        """Raises TypeError if the two do not match."""
        self._value_class = value_class
        self._message_class = GetMessageClass(message)
        fields, self._oneofs = _paired(value_class, message)
        self._writes = [(f.name, f.pb_name, f.codec.to_pb if f.codec else None) for f in fields]
        self._reads = [(f.name, f.pb_name, f.codec.from_pb if f.codec else None, f.unset) for f in fields]

    def to_pb(self, value: Value) -> Any:
        """The message."""
        contents: dict[str, Any] = {}
        for name, pb_name, convert in self._writes:
            content = getattr(value, name)
            contents[pb_name] = content if convert is None or content is None else convert(content)
        for oneof in self._oneofs:
            content = getattr(value, oneof.name)
            member = oneof.members[type(content)]
            contents[member] = oneof.plans[member].to_pb(content)
        return self._message_class(**contents)

    def from_pb(self, message: Message) -> Any:
        """The value."""
        contents: dict[str, Any] = {}
        for name, pb_name, convert, unset in self._reads:
            if unset is not None and not message.HasField(pb_name):
                contents.update(unset)
            else:
                content = getattr(message, pb_name)
                contents[name] = content if convert is None else convert(content)
        for oneof in self._oneofs:
            member = message.WhichOneof(oneof.name)
            if member is None:
                what = f"{self._value_class.__name__} holds a {oneof.name}"
                raise InvalidInput(f"{what} that this version of the suite does not know; update it")
            contents[oneof.name] = oneof.plans[member].from_pb(getattr(message, member))
        return self._value_class(**contents)


@cache
def plan(value_class: type[Value], message: Any) -> Plan:
    """The plan of a value's class and a message's descriptor. Raises TypeError if the two do not match."""
    return Plan(value_class, message)


def message_name(value_class: type[Value]) -> str:
    """The name of the message type of a value's class."""
    return MESSAGES.get(value_class, value_class.__name__)


def _paired(value_class: type[Value], message: Descriptor) -> tuple[list[_Field], list[_Oneof]]:
    """The fields and oneofs of the two, which must have the same names."""
    twins = f"{value_class.__name__} and {message.full_name}"
    if message_name(value_class) != message.name:
        raise TypeError(f"{twins} have different names")
    names = FIELDS.get(value_class, {})
    fields, oneofs, unread = [], [], set(message.fields_by_name)
    for name, info in value_class.model_fields.items():
        pb_name = names.get(name, name)
        if oneof := message.oneofs_by_name.get(pb_name):
            oneofs.append(_oneof(info.annotation, oneof))
            unread -= {member.name for member in oneof.fields}
        elif field := message.fields_by_name.get(pb_name):
            fields.append(_field(name, info, field))
            unread.remove(pb_name)
        else:
            raise TypeError(f"{twins}: the message has no {pb_name}")
    if unread:
        raise TypeError(f"{twins}: the value has no {', '.join(sorted(unread))}")
    return fields, oneofs


def _oneof(annotation: Any, oneof: OneofDescriptor) -> _Oneof:
    kinds = {message_name(kind): kind for kind in get_args(annotation)}
    messages = {field.name: field.message_type for field in oneof.fields}
    members = {message.name: member for member, message in messages.items() if message is not None}
    if kinds.keys() != members.keys():
        raise TypeError(f"{oneof.full_name} has other members than {annotation}")
    plans = {member: plan(kinds[name], messages[member]) for name, member in members.items()}
    return _Oneof(oneof.name, {kind: members[name] for name, kind in kinds.items()}, plans)


def _field(name: str, info: FieldInfo, field: FieldDescriptor) -> _Field:
    annotation, args = info.annotation, get_args(info.annotation)
    optional = NoneType in args
    if optional:
        (annotation,) = set(args) - {NoneType}
    # A field of a message type can always be unset, even if the value's field is not optional.
    if field.has_presence != optional and (optional or field.message_type is None):
        raise TypeError(f"{field.full_name} can be unset in only one of value and message")
    has_default = field.has_presence and not info.is_required()
    unset = {name: None} if optional else {} if has_default else None
    return _Field(name, field.name, _codec(annotation, field, optional=optional), unset)


def _codec(annotation: Any, field: FieldDescriptor, *, optional: bool = False) -> Codec | None:
    """The conversion of a whole field; None if none is needed."""
    if not field.is_repeated:
        return _one(annotation, field, optional=optional)
    origin, args = get_origin(annotation), get_args(annotation)
    if field.message_type is not None and field.message_type.GetOptions().map_entry and origin is dict:
        entry = field.message_type.fields_by_name
        if _one(args[0], entry["key"]) is None:
            return _mapped(_one(args[1], entry["value"]))
    elif origin is tuple and args[1:] == (...,):
        return _repeated(_one(args[0], field))
    raise _unfit(annotation, field)


def _mapped(one: Codec | None) -> Codec:
    if one is None:
        return Codec(lambda content: content, dict)
    there, back = one.to_pb, one.from_pb
    return Codec(
        lambda content: {key: there(item) for key, item in content.items()},
        lambda pb: {key: back(item) for key, item in pb.items()},
    )


def _repeated(one: Codec | None) -> Codec:
    if one is None:
        return Codec(lambda content: content, tuple)
    there, back = one.to_pb, one.from_pb
    return Codec(lambda content: [there(item) for item in content], lambda pb: tuple([back(item) for item in pb]))


def _one(annotation: Any, field: FieldDescriptor, *, optional: bool = False) -> Codec | None:
    """The conversion of a field that is not repeated, or of an item of one that is."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    message = field.message_type
    if message is None and field.type in _SCALARS.get(annotation, ()):
        return None
    if field.enum_type is not None and _is_a(annotation, StrEnum):
        return _words(annotation, field.enum_type)
    if message is None:
        raise _unfit(annotation, field)
    if codec := CODECS.get((annotation, message.full_name)):
        return codec
    if annotation == dict[str, Any] and message.full_name == "google.protobuf.Struct":
        write = partial(struct_to_pb, what=field.name)
        return Codec(lambda content: write(content) if content else None, struct_from_pb)
    if _is_a(annotation, Value):
        return _nested(plan(annotation, message), EMPTY.get(annotation) if optional else None)
    raise _unfit(annotation, field)


def _nested(inner: Plan, empty: str | None) -> Codec:
    if empty is None:
        return Codec(inner.to_pb, inner.from_pb)
    return Codec(inner.to_pb, lambda pb: inner.from_pb(pb) if getattr(pb, empty) else None)


@cache
def _words(word_class: type[StrEnum], enum: EnumDescriptor) -> Codec:
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
    numbers = {value.name.removeprefix(prefix): value.number for value in enum.values}
    words = {word: numbers.pop(word.name) for word in word_class if word.name in numbers}
    zero = ZERO.get(word_class)
    known = {number: word for word, number in words.items()}
    if zero is not None:
        words.setdefault(zero, 0)
        known[0] = zero
    if words.keys() != set(word_class) or numbers != {"UNSPECIFIED": 0}:
        raise TypeError(f"{word_class.__name__} and {enum.full_name} have different members")

    def read(number: int) -> StrEnum:
        word = known.get(number)
        if word is None:
            raise InvalidInput(f"{word_class.__name__} has no value {number} in this version of the suite")
        return word

    return Codec(words.__getitem__, read)


def _is_a(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


def _unfit(annotation: Any, field: FieldDescriptor) -> TypeError:
    return TypeError(f"{field.full_name} cannot hold {annotation}")
