"""A limit that a type and a proto both have is the same number on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic.fields import FieldInfo
from seal.controller.v1 import controller_pb2
from seal.evaluator.v1 import evaluator_pb2
from seal.generator.v1 import generator_pb2
from seal.trainer.v1 import trainer_pb2
from seal.type.v1 import answer_pb2, evaluation_pb2, model_pb2, text_pb2, training_pb2

from sealkit import limits, types
from sealkit.config import RunConfig
from sealkit.rpc.mapping import message_name
from sealkit.rpc.mapping_exceptions import FIELDS

MODULES = (answer_pb2, evaluation_pb2, model_pb2, text_pb2, training_pb2, evaluator_pb2, trainer_pb2)
MESSAGES = {name: found for module in MODULES for name, found in module.DESCRIPTOR.message_types_by_name.items()}
TWINS: dict[type[types.Value], Descriptor] = {
    kind: MESSAGES[message_name(kind)]
    for kind in vars(types).values()
    if isinstance(kind, type) and issubclass(kind, types.Value) and message_name(kind) in MESSAGES
}
_RULES = {
    Ge: ("gte",),
    Gt: ("gt",),
    Le: ("lte",),
    Lt: ("lt",),
    MinLen: ("min_items", "min_len"),
    MaxLen: ("max_items", "max_len"),
}
_NATURAL = {FieldDescriptor.CPPTYPE_INT32: (limits.INT32,), FieldDescriptor.CPPTYPE_UINT64: (0, 2**64)}
"""What the type of a field says by itself."""


def of_type(info: FieldInfo) -> Iterator[tuple[type, float]]:
    """(kind, number) of each constraint of a field."""
    for constraint in info.metadata:
        if type(constraint) in _RULES:
            (name,) = constraint.__dataclass_fields__
            yield type(constraint), getattr(constraint, name)


def of_proto(field: FieldDescriptor, kind: type) -> float | None:
    """The number that a proto's rules have for a constraint of this kind; None where there is no such rule."""
    rules = field.GetOptions().Extensions[validate_pb2.field]
    inner = getattr(rules, rules.WhichOneof("type")) if rules.WhichOneof("type") else None
    for name in _RULES[kind]:
        if inner is not None and name in inner.DESCRIPTOR.fields_by_name and inner.HasField(name):
            return float(getattr(inner, name))
    return None


@pytest.mark.parametrize("kind", TWINS, ids=lambda kind: kind.__name__)
def test_a_types_limits_are_those_of_its_message(kind: type[types.Value]) -> None:
    for name, info in kind.model_fields.items():
        twin = TWINS[kind].fields_by_name[FIELDS.get(kind, {}).get(name, name)]
        for rule, number in of_type(info):
            if number not in _NATURAL.get(twin.cpp_type, ()):
                assert of_proto(twin, rule) == number, f"{name}: {rule.__name__}"


@pytest.mark.parametrize(
    ("message", "field", "number"),
    [
        (trainer_pb2.TrainPolicyRequest, "examples", limits.EXAMPLES),
        (controller_pb2.CreateRunRequest, "display_name", limits.NAME_CHARACTERS),
        (controller_pb2.CreateRunRequest, "documents", limits.DOCUMENTS),
        (controller_pb2.Document, "name", limits.DOCUMENT_NAME_CHARACTERS),
        (controller_pb2.Document, "content", limits.DOCUMENT_BYTES),
        (generator_pb2.SampleSelfEditsRequest, "contexts", limits.PROMPTS),
    ],
)
def test_what_a_request_may_hold_is_the_limit_of_that_name(message: Any, field: str, number: int) -> None:
    assert of_proto(message.DESCRIPTOR.fields_by_name[field], MaxLen) == number


def test_every_listing_has_pages_of_the_same_size() -> None:
    listings = [m for m in controller_pb2.DESCRIPTOR.message_types_by_name.values() if "page_size" in m.fields_by_name]
    assert len(listings) >= 4
    assert {of_proto(listing.fields_by_name["page_size"], Le) for listing in listings} == {limits.PAGE_ROWS}


def test_a_runs_name_fits_where_it_is_shown() -> None:
    assert dict(of_type(RunConfig.model_fields["name"]))[MaxLen] == limits.NAME_CHARACTERS
